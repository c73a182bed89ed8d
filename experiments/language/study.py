"""Trains a small language model with jumps, and with what else gains from past weights.

The learning rate of each arm is tuned on one seed, then each is trained with its best on the seeds
that are reported. What is recorded is not run again.

  python -m experiments.language.study --run_dir=runs/language
  python -m experiments.language.study --text=numpy --steps=2000 --run_dir=runs/language_numpy
  python -m experiments.language.study --run_dir=experiments/results/language --stages=
"""

import dataclasses

from experiments import cli
from experiments.data.text import TEXTS
from experiments.language import report
from experiments.language.arms import ARMS
from experiments.language.training import EVERY, Trainer
from experiments.settings import Config, setting

STAGES = ("tune", "report")


class Settings(Config):
    """What is run, and where the records go."""

    text: str = setting("pydoc", "What is trained on.", of=TEXTS)
    run_dir: str = setting("runs/language", "Folder of records and table.")
    stages: tuple[str, ...] = setting(STAGES, "Nothing: only the table is written.", of=STAGES)
    arms: tuple[str, ...] = setting(tuple(ARMS), "Ways of training.", of=ARMS, some=True)
    steps: int = setting(1000, f"Steps of a run, a multiple of {EVERY}.", least=EVERY)
    seeds: tuple[int, ...] = setting((3, 4, 5, 6, 7, 8), "Seeds that are reported.", least=0)
    tuning_seed: int = setting(1, "Seed on which rates are tuned.", least=0)

    def __post_init__(self):
        super().__post_init__()
        if self.steps % EVERY:
            raise ValueError(f"`steps` must be a multiple of {EVERY}, got {self.steps}.")


def main(config: Settings) -> None:
    """Runs the program."""
    left_out = ("run_dir", "stages", "arms")
    given = {n: v for n, v in dataclasses.asdict(config).items() if n not in left_out}
    done = cli.rows(config.run_dir, given)
    for name in config.arms if config.stages else ():
        trainer = Trainer(ARMS[name], config.steps, config.text)
        arm, runs = ARMS[name], []
        if "tune" in config.stages and arm.is_tuned:
            runs += [("tune", rate, config.tuning_seed) for rate in arm.rates]
        for stage, rate, seed in runs:
            _train(done, trainer, name, stage, rate, seed)
        if "report" in config.stages:
            rate = report.best_rate(done.rows, name if arm.is_tuned else "adamw")
            for seed in config.seeds:
                _train(done, trainer, name, "report", rate, seed)
    text = report.table(done.rows)
    (done.run_dir / "summary.md").write_text(text + "\n")
    print(text)


def _train(done, trainer: Trainer, name: str, stage: str, rate: float, seed: int) -> None:
    key = {"stage": stage, "arm": name, "learning_rate": rate, "seed": seed}
    if done.has(key):
        return
    run = list(trainer.run(rate, seed))
    row = {
        **key,
        "jumps": run[-1].jumps,
        "validation_losses": [round(p.loss, 4) for p in run],
        "seconds": [round(p.seconds, 2) for p in run],
    }
    done.append(row)
    print(row, flush=True)


if __name__ == "__main__":
    cli.run(main, Settings)
