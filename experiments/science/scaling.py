"""Seconds to Adam's final loss against the number of weights, 10^3 to 10^6.

Networks of three hidden layers; the learning rate falls with the width. What is recorded is not run
again. Prints a table and draws `scaling.png`.

Example:
  python -m experiments.science.scaling --task=poisson --seconds=30 --run_dir=runs/scaling
"""

import sys

from absl import flags

from experiments import cli
from experiments.science import crossing, rivals, runs, tasks
from experiments.science.running import run_all

METHODS = ("adam", "lbfgs", "lm", "solve")
DEPTH = 3

_TASK = flags.DEFINE_enum("task", "poisson", list(tasks.PROBLEMS), "What is solved.")
_WIDTHS = flags.DEFINE_list("widths", ["20", "64", "224", "706"], "Of the hidden layers.")
_RATES = flags.DEFINE_list("learning_rates", ["1e-2", "5e-3", "1e-3", "3e-4"], "One a width.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_SECONDS = flags.DEFINE_float("seconds", 30.0, "Seconds of each run.", lower_bound=0.01)
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/scaling", "Folder of the records.")

for _name in ("widths", "seeds"):
    flags.register_validator(
        _name,
        lambda words: words and all(word.isdecimal() for word in words),
        message="must be integers from 0.",
    )


def main() -> None:
    """Runs the program."""
    if len(_RATES.value) != len(_WIDTHS.value):
        sys.exit(
            f"flag --learning_rates: must be as many as --widths, {len(_WIDTHS.value)}, "
            f"got {len(_RATES.value)}."
        )
    folder = cli.folder(_RUN_DIR.value)
    runs.start(folder)
    for width, rate in zip(_WIDTHS.value, _RATES.value, strict=True):
        task = tasks.make(_TASK.value, width=int(width), depth=DEPTH)
        for method in METHODS:
            if rivals.RIVALS[method].fits(task):
                run_all(folder, task, _settings(method, width, float(rate)))
    recorded = [run for run in runs.read(folder) if run.setting.task == _TASK.value]
    print(f"\n{crossing.table(recorded)}\n")
    crossing.draw(recorded).savefig(folder / "scaling.png")
    print(folder / "scaling.png")


def _settings(method: str, width: str, rate: float) -> list[runs.Setting]:
    own_rate = rate if rivals.RIVALS[method].has_rate else None
    return [
        runs.Setting(
            _TASK.value, method, int(seed), own_rate, _SECONDS.value, size=f"{width}x{DEPTH}"
        )
        for seed in _SEEDS.value
    ]


if __name__ == "__main__":
    cli.run(main)
