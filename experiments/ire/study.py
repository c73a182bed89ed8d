"""Compares AdamW with IRE, and with random and sharp masks, on a character language model.

The learning rate of each arm is tuned on one seed, then each is trained with its best on the
seeds that are reported, AdamW for more steps as well. Further stages try to raise the gain, on a
seed that is not reported, train the best of what was tried on those that are, and measure how flat
the minima are. What is recorded is not run again.

  python -m experiments.ire.study --run_dir=runs/ire_lm
  python -m experiments.ire.study --run_dir=experiments/results/ire_lm --stages=
"""

from collections.abc import Mapping, Sequence
import dataclasses
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from experiments.ire import flatness, language, report
from experiments.ire.language import Mask
from experiments.settings import Config, setting

_EVERY = 40  # Steps between evaluations.
STAGES = ("tune", "report", "longer", "trial", "best", "flatness")


class Settings(Config):
    """What is run, and where the records go."""

    run_dir: str = setting("runs/ire_lm", "Folder of records, table and picture.")
    stages: tuple[str, ...] = setting(STAGES, "Nothing: only the report is written.", of=STAGES)
    steps: int = setting(400, f"Steps of a run, a multiple of {_EVERY}.", least=_EVERY)
    kappa: float = setting(4.0, "How much larger masked steps are.", least=0)
    gamma: float = setting(0.6, "Part of the coordinates in a mask.", above=0, most=1)
    seeds: tuple[int, ...] = setting((0, 1, 2), "Seeds that are reported.", least=0)
    tuning_seed: int = setting(1000, "Seed on which masks are tuned.", least=0)

    def __post_init__(self):
        super().__post_init__()
        if self.steps % _EVERY:
            raise ValueError(f"`steps` must be a multiple of {_EVERY}, got {self.steps}.")

    def mask(self, name: str) -> Mask:
        """A mask that is reported."""
        return Mask() if name == "none" else Mask(name, self.kappa, self.gamma)


RATES: Mapping[str, Sequence[float]] = {
    "none": (2e-3, 3e-3, 4e-3, 6e-3),
    "flat": (1e-3, 1.5e-3, 2e-3, 3e-3),
    "random": (0.7e-3, 1e-3, 1.5e-3, 2e-3),
    "sharp": (0.7e-3, 1e-3, 1.5e-3, 2e-3),
}
# To raise the gain: what differs from the arm that is reported, and two learning rates.
TRIALS: Sequence[tuple[Mapping[str, Any], tuple[float, float]]] = (
    ({"beta": 0.9}, (2e-3, 1.5e-3)),
    ({"beta": 0.9, "update_interval": 2}, (2e-3, 1.5e-3)),
    ({"kappa": 8.0}, (1e-3, 1.5e-3)),
    ({"kappa": 2.0}, (3e-3, 2e-3)),
    ({"gamma": 0.8}, (1.5e-3, 2e-3)),
    ({"kappa_decays": True}, (2e-3, 3e-3)),
    ({"scope": "leaf"}, (2e-3, 1.5e-3)),
    ({"num_chunks": 1}, (1.5e-3, 2e-3)),
    ({"beta": 0.9, "kappa": 8.0}, (1e-3, 1.5e-3)),
)
LONGER = (1.2, 1.4)


def main(config: Settings) -> None:
    """Runs the program."""
    study = Study(config)
    for stage in config.stages:
        getattr(study, stage)()
    print(report.write(study.done.run_dir, study.done.rows))


class Study:
    """The study in a folder."""

    def __init__(self, config: Settings):
        self.config = config
        left_out = ("run_dir", "stages")
        given = {n: v for n, v in dataclasses.asdict(config).items() if n not in left_out}
        self.done = cli.rows(config.run_dir, given)

    def tune(self) -> None:
        """Trains each arm with each learning rate on the tuning seed."""
        for mask, rates in RATES.items():
            for rate in rates:
                self._loss(
                    "tune", self.config.mask(mask), rate, self.config.steps, self.config.tuning_seed
                )

    def report(self) -> None:
        """Trains each arm with its best learning rate on the reported seeds."""
        for mask in RATES:
            for seed in self.config.seeds:
                self._loss(
                    "report", self.config.mask(mask), self._best_rate(mask), self.config.steps, seed
                )

    def longer(self) -> None:
        """Trains AdamW for more steps."""
        for steps in (round(f * self.config.steps / _EVERY) * _EVERY for f in LONGER):
            for seed in self.config.seeds:
                self._loss("longer", Mask(), self._best_rate("none"), steps, seed)

    def trial(self) -> None:
        """Trains what might raise the gain, on the tuning seed."""
        for turn in range(2):
            for difference, rates in TRIALS:
                arm = dataclasses.replace(self.config.mask("flat"), **difference)
                self._tuning("trial", arm, rates[turn])

    def best(self) -> None:
        """Trains the best of these on the reported seeds."""
        done = [r for r in self.done.rows if r["stage"] == "trial"]
        if len(done) < 2 * len(TRIALS):
            sys.exit("`stages`: trial must come first.")
        trial = min(done, key=_last)
        arm = Mask(**{field.name: trial[field.name] for field in dataclasses.fields(Mask)})
        for seed in self.config.seeds:
            self._loss("best", arm, trial["learning_rate"], self.config.steps, seed)

    def flatness(self) -> None:
        """Measures the Hessian after IRE, and after the run of AdamW whose loss is nearest."""
        for seed in self.config.seeds:
            done = [
                r
                for r in self.done.rows
                if r["stage"] in ("report", "longer") and r["seed"] == seed
            ]
            base = [r for r in done if r["mask"] == "none"]
            for flat in (r for r in done if r["mask"] == "flat"):
                nearest = min(base, key=lambda r: abs(_last(r) - _last(flat)))
                self._flatness(flat)
                self._flatness(nearest)

    def _flatness(self, row: Mapping[str, Any]) -> None:
        """Trains as a row says, and measures the Hessian."""
        key = {"stage": "flatness"} | {name: row[name] for name in ("mask", "steps", "seed")}
        if not self.done.has(key):
            rate = row["learning_rate"]
            *_, end = language.cpu().run(
                self.config.mask(row["mask"]), rate, row["steps"], row["seed"]
            )
            self._append(key | _flatness(end.params, end.loss))

    def _best_rate(self, mask: str) -> float:
        tuned = [r for r in self.done.rows if r["stage"] == "tune" and r["mask"] == mask]
        if len(tuned) < len(RATES[mask]):
            sys.exit("`stages`: tune must come first.")
        return min(tuned, key=_last)["learning_rate"]

    def _tuning(self, stage: str, arm: Mask, rate: float) -> None:
        self._loss(stage, arm, rate, self.config.steps, self.config.tuning_seed)

    def _loss(self, stage: str, arm: Mask, rate: float, steps: int, seed: int) -> None:
        """Trains, unless that is done, and records the validation losses."""
        run = {"learning_rate": rate, "steps": steps, "seed": seed}
        key = {"stage": stage, **dataclasses.asdict(arm), **run}
        if self.done.has(key, dataclasses.asdict(Mask())):
            return
        start = time.perf_counter()
        losses = [round(p.loss, 5) for p in language.cpu().run(arm, rate, steps, seed)]
        seconds = round(time.perf_counter() - start, 2)
        self._append(key | {"seconds": seconds, "validation_losses": losses})

    def _append(self, row: dict[str, Any]) -> None:
        self.done.append(row)
        print(row, flush=True)


def _last(row: Mapping[str, Any]) -> float:
    loss = row["validation_losses"][-1]
    return loss if np.isfinite(loss) else np.inf


def _flatness(params: Any, validation_loss: float) -> dict[str, float]:
    """Of the loss on a quarter of the validation rows."""
    task = language.cpu()
    rows = jnp.asarray(task.validation_rows[::4])

    def loss(params: Any) -> jax.Array:
        return task.loss(params, language.next_tokens(rows))

    trace = flatness.trace(loss, params, jax.random.key(5), num_probes=32)
    return {
        "validation_loss": round(validation_loss, 5),
        "trace": round(trace.mean, 3),
        "trace_error": round(trace.error, 3),
        "top_eigenvalue": round(flatness.top_eigenvalue(loss, params, 1e-2), 3),
    }


if __name__ == "__main__":
    cli.run(main, Settings)
