"""Trains a small policy on verifiable rewards, with jumps and without, and extrapolates its runs.

Learning rates are tuned on some seeds, then each arm is trained with its best on the seeds that are
reported. The runs without jumps are measured for linearity, and extrapolated from a part of them.
What is recorded is not run again.

  python -m experiments.post_training.study --run_dir=runs/post_training
  python -m experiments.post_training.study --run_dir=experiments/results/post_training --stages=
"""

import dataclasses
from typing import Any

import numpy as np

from experiments import cli
from experiments.post_training import linearity, report, stops
from experiments.post_training.arms import ARMS
from experiments.post_training.pretraining import STARTS, pretrained
from experiments.post_training.training import EVERY, Trainer
from experiments.settings import Config, setting

STAGES = ("tune", "report")


class Settings(Config):
    """What is run, and where the records go."""

    run_dir: str = setting("runs/post_training", "Folder of records and table.")
    stages: tuple[str, ...] = setting(STAGES, "Nothing: only the tables are written.", of=STAGES)
    starts: tuple[str, ...] = setting(tuple(STARTS), "Of rewards.", of=STARTS, some=True)
    arms: tuple[str, ...] = setting(tuple(ARMS), "Ways of training.", of=ARMS, some=True)
    steps: int = setting(300, f"Steps of a run, a multiple of {EVERY}.", least=8 * EVERY)
    seeds: tuple[int, ...] = setting((3, 4, 5), "Seeds that are reported.", least=0)
    tuning_seeds: tuple[int, ...] = setting((1,), "Seeds on which rates are tuned.", least=0)
    most: int = setting(10_000, "Steps of pretraining at most.", least=EVERY)

    def __post_init__(self):
        super().__post_init__()
        if self.steps % EVERY:
            raise ValueError(f"`steps` must be a multiple of {EVERY}, got {self.steps}.")


def main(config: Settings) -> None:
    """Runs the program."""
    left_out = ("run_dir", "stages", "starts", "arms")
    given = {n: v for n, v in dataclasses.asdict(config).items() if n not in left_out}
    study = _Study(config, cli.rows(config.run_dir, given))
    for name in config.arms if config.stages else ():
        study.run(name)
    text = report.report(study.done.rows)
    (study.done.run_dir / "summary.md").write_text(text + "\n")
    print(text)


class _Study:
    def __init__(self, config: Settings, done: Any):
        self.config, self.done = config, done

    def run(self, name: str) -> None:
        arm, trainer = ARMS[name], Trainer(ARMS[name], self.config.steps)
        for start in self.config.starts:
            if "tune" in self.config.stages and arm.share is None:
                for rate in arm.rates:
                    for seed in self.config.tuning_seeds:
                        self._train(trainer, "tune", start, name, rate, seed)
            if "report" in self.config.stages:
                rate = report.rate(self.done.rows, start, name)
                for seed in self.config.seeds:
                    self._train(trainer, "report", start, name, rate, seed)

    def _train(
        self, trainer: Trainer, stage: str, start: str, arm: str, rate: float, seed: int
    ) -> None:
        key = {"stage": stage, "start": start, "arm": arm, "learning_rate": rate, "seed": seed}
        if self.done.has(key):
            return
        begin = pretrained(dataclasses.replace(STARTS[start], most=self.config.most), seed)
        run = list(trainer.run(begin.params, rate, seed))
        row = {
            **key,
            "jumps": run[-1].jumps,
            "value_calls": run[-1].value_calls,
            "rewards": [round(p.expected, 4) for p in run],
            "greedy": round(run[-1].greedy, 4),
        }
        if stage == "report" and arm in report.WITHOUT_JUMPS:
            row |= self._measured([begin.params, *(p.params for p in run)], seed)
        if stage == "report" and arm == report.BASE:
            row |= {"pretraining_steps": begin.steps, "pretraining": _linearity(begin.snapshots)}
        self.done.append(row)
        print({name: value for name, value in row.items() if name not in _LONG}, flush=True)

    @staticmethod
    def _measured(snapshots: list[Any], seed: int) -> dict[str, Any]:
        """Of a run without jumps."""
        walk = [linearity.random_walk(p, seed) for p in linearity.paths(snapshots).values()]
        return {
            "linearity": _linearity(snapshots),
            "walk": _rounded([linearity.linearity(path) for path in walk]),
            "stops": {f"{s:g}": stops.stopped(snapshots, s) for s in stops.SHARES},
        }


_LONG = ("rewards", "linearity", "walk", "stops", "pretraining")


def _linearity(snapshots: list[Any]) -> list[list[float]]:
    return _rounded([linearity.linearity(p) for p in linearity.paths(snapshots).values()])


def _rounded(measured: list[linearity.Linearity]) -> list[list[float]]:
    """A line for each tensor."""
    return np.round(measured, 4).tolist()


if __name__ == "__main__":
    cli.run(main, Settings)
