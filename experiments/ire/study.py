"""Compares AdamW with IRE, and with random and sharp masks, on a character language model.

The learning rate of each arm is tuned on one seed, then each is trained with its best on the
seeds that are reported, AdamW for more steps as well. Further stages try to raise the gain, on a
seed that is not reported, train the best of what was tried on those that are, and measure how flat
the minima are. What is recorded is not run again.

Example:
  python -m experiments.ire.study --run_dir=runs/ire_lm
  python -m experiments.ire.study --run_dir=experiments/results/ire_lm --stages=
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import sys
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from experiments.ire import flatness, language, report
from experiments.ire.language import Arm
from experiments.runs import records

_EVERY = 40  # Steps between evaluations.
STAGES = ("tune", "report", "longer", "trial", "best", "flatness")

_RUN_DIR = flags.DEFINE_string("run_dir", "runs/ire_lm", "Folder of records, table and picture.")
_STAGES = flags.DEFINE_list(
    "stages", list(STAGES), "What is run; nothing: only the report is written."
)
_STEPS = flags.DEFINE_integer(
    "steps", 400, f"Steps of a run, a multiple of {_EVERY}.", lower_bound=_EVERY
)
_KAPPA = flags.DEFINE_float("ire_kappa", 4.0, "How much larger masked steps are.", lower_bound=0.0)
_GAMMA = flags.DEFINE_float("ire_gamma", 0.6, "Part of the coordinates in a mask.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds that are reported.")
_TUNING_SEED = flags.DEFINE_integer("tuning_seed", 1000, "Seed on which arms are tuned.")

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


def main() -> None:
    """Runs the program."""
    if _STEPS.value % _EVERY:
        sys.exit(f"flag --steps: must be a multiple of {_EVERY}.")
    unknown = [stage for stage in _STAGES.value if stage not in STAGES]
    if unknown:
        sys.exit(f"flag --stages={unknown[0]}: must be of {', '.join(STAGES)}.")
    try:
        study = Study(pathlib.Path(_RUN_DIR.value))
    except (OSError, ValueError) as error:
        sys.exit(f"flag --run_dir: {error}")
    for stage in _STAGES.value:
        getattr(study, stage)()
    print(report.write(study.run_dir, study.rows))


class Study:
    """The study in a folder."""

    def __init__(self, run_dir: pathlib.Path):
        """Opens a folder, or starts it.

        Raises:
          OSError: if the folder cannot be written.
          ValueError: if it holds a study with other flags.
        """
        self.run_dir = run_dir
        given = {f.name: f.value for f in (_STEPS, _KAPPA, _GAMMA, _SEEDS, _TUNING_SEED)}
        records.resume(run_dir, given)
        self.rows = records.read_rows(run_dir)

    def tune(self) -> None:
        """Trains each arm with each learning rate on the tuning seed."""
        for mask, rates in RATES.items():
            for rate in rates:
                self._loss("tune", _arm(mask), rate, _STEPS.value, _TUNING_SEED.value)

    def report(self) -> None:
        """Trains each arm with its best learning rate on the reported seeds."""
        for mask in RATES:
            for seed in map(int, _SEEDS.value):
                self._loss("report", _arm(mask), self._best_rate(mask), _STEPS.value, seed)

    def longer(self) -> None:
        """Trains AdamW for more steps."""
        for steps in _longer():
            for seed in map(int, _SEEDS.value):
                self._loss("longer", Arm(), self._best_rate("none"), steps, seed)

    def trial(self) -> None:
        """Trains what might raise the gain, on the tuning seed."""
        for turn in range(2):
            for difference, rates in TRIALS:
                arm = dataclasses.replace(_arm("flat"), **difference)
                self._loss("trial", arm, rates[turn], _STEPS.value, _TUNING_SEED.value)

    def best(self) -> None:
        """Trains the best of these on the reported seeds."""
        done = [r for r in self.rows if r["stage"] == "trial"]
        if len(done) < 2 * len(TRIALS):
            sys.exit("flag --stages: trial must come first.")
        trial = min(done, key=_last)
        arm = Arm(**{field.name: trial[field.name] for field in dataclasses.fields(Arm)})
        for seed in map(int, _SEEDS.value):
            self._loss("best", arm, trial["learning_rate"], _STEPS.value, seed)

    def flatness(self) -> None:
        """Measures the Hessian after IRE, and after the run of AdamW whose loss is nearest."""
        for seed in map(int, _SEEDS.value):
            done = [
                r for r in self.rows if r["stage"] in ("report", "longer") and r["seed"] == seed
            ]
            base = [r for r in done if r["mask"] == "none"]
            for flat in (r for r in done if r["mask"] == "flat"):
                nearest = min(base, key=lambda r: abs(_last(r) - _last(flat)))
                self._flatness(flat)
                self._flatness(nearest)

    def _flatness(self, row: Mapping[str, Any]) -> None:
        """Trains as a row says, and measures the Hessian."""
        key = {"stage": "flatness"} | {name: row[name] for name in ("mask", "steps", "seed")}
        if not self._find(key):
            rate = row["learning_rate"]
            *_, end = language.cpu().run(_arm(row["mask"]), rate, row["steps"], row["seed"])
            self._append(key | _flatness(end.params, end.loss))

    def _best_rate(self, mask: str) -> float:
        tuned = [r for r in self.rows if r["stage"] == "tune" and r["mask"] == mask]
        if len(tuned) < len(RATES[mask]):
            sys.exit("flag --stages: tune must come first.")
        return min(tuned, key=_last)["learning_rate"]

    def _loss(self, stage: str, arm: Arm, rate: float, steps: int, seed: int) -> None:
        """Trains, unless that is done, and records the validation losses."""
        run = {"learning_rate": rate, "steps": steps, "seed": seed}
        key = {"stage": stage, **dataclasses.asdict(arm), **run}
        if self._find(key):
            return
        start = time.perf_counter()
        losses = [round(p.loss, 5) for p in language.cpu().run(arm, rate, steps, seed)]
        seconds = round(time.perf_counter() - start, 2)
        self._append(key | {"seconds": seconds, "validation_losses": losses})

    def _find(self, key: Mapping[str, Any]) -> bool:
        defaults = dataclasses.asdict(Arm())
        return any(key.items() <= (defaults | row).items() for row in map(_hashable, self.rows))

    def _append(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        records.append_row(self.run_dir, row)
        print(row, flush=True)


def _hashable(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "validation_losses"}


def _last(row: Mapping[str, Any]) -> float:
    loss = row["validation_losses"][-1]
    return loss if np.isfinite(loss) else np.inf


def _arm(mask: str) -> Arm:
    return Arm() if mask == "none" else Arm(mask, _KAPPA.value, _GAMMA.value)


def _longer() -> list[int]:
    return [round(f * _STEPS.value / _EVERY) * _EVERY for f in LONGER]


def _flatness(params: Any, validation_loss: float) -> dict[str, float]:
    """Of the loss on a quarter of the validation rows."""
    task = language.cpu()
    rows = jnp.asarray(task.validation_rows[::4])

    def loss(params: Any) -> jax.Array:
        return task.loss(params, rows)

    trace = flatness.trace(loss, params, jax.random.key(5), num_probes=32)
    return {
        "validation_loss": round(validation_loss, 5),
        "trace": round(trace.mean, 3),
        "trace_error": round(trace.error, 3),
        "top_eigenvalue": round(flatness.top_eigenvalue(loss, params, 1e-2), 3),
    }


if __name__ == "__main__":
    cli.run(main)
