"""Runs rivals on tasks for equal seconds, or chooses their learning rates.

What is recorded is not run again. Rates come from `tuned.json`, chosen on seeds of their own.

Examples:
  python -m experiments.science.study --tune --seeds=100,101 --seconds=10 --run_dir=runs/tuning
  python -m experiments.science.study --tasks=poisson,wave --seconds=30 --run_dir=runs/science
"""

from collections.abc import Iterator, Mapping
import itertools
import json
import math
import pathlib
import sys

from absl import flags
import jax

from experiments import cli
from experiments.science import rivals, runs, tasks, tuning
from experiments.science.running import run_all

_TASKS = flags.DEFINE_list("tasks", list(tasks.TASKS), "Names of tasks.")
_METHODS = flags.DEFINE_list(
    "methods", list(rivals.RIVALS), "Names of rivals, or of variants of solved jumps."
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds.")
_SECONDS = flags.DEFINE_float("seconds", 30.0, "Seconds of training of each run.")
_SIZE = flags.DEFINE_enum("size", "own", list(tasks.SIZES), "Size of the networks.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float64"], "Of the weights.")
_POINTS = flags.DEFINE_enum(
    "points", "fixed", ["fixed", "fresh"], "The same at every step, or fresh ones."
)
_RATE = flags.DEFINE_float("learning_rate", None, "Instead of the tuned ones.")
_TUNE = flags.DEFINE_bool("tune", False, "Choose the learning rates and write `tuned`.")
_TUNED = flags.DEFINE_string("tuned", str(tuning.TUNED), "File of the chosen rates.")
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/science", "Folder of the records.")


def _of(names: Mapping) -> dict:
    return {
        "checker": lambda words: words and set(words) <= set(names),
        "message": f"must be some of {', '.join(names)}.",
    }


flags.register_validator("tasks", **_of(tasks.TASKS))
flags.register_validator("methods", **_of(rivals.ALL))
flags.register_validator(
    "seeds",
    lambda words: words and all(word.isdecimal() for word in words),
    message="must be integers from 0.",
)
for _name in ("seconds", "learning_rate"):
    flags.register_validator(
        _name,
        lambda value: value is None or 0 < value < math.inf,
        message="must be a finite number above 0.",
    )


def main() -> None:
    """Runs the program."""
    jax.config.update("jax_enable_x64", _DTYPE.value == "float64")
    folder = cli.folder(_RUN_DIR.value)
    runs.start(folder)
    for name in _TASKS.value:
        if name == "circuit" and _SIZE.value != "own":
            continue
        task = tasks.make(name, _SIZE.value, _DTYPE.value)
        for method in _METHODS.value:
            if rivals.ALL[method].fits(task, _POINTS.value == "fresh"):
                run_all(folder, task, list(_settings(name, method)))
    if _TUNE.value:
        tuned = pathlib.Path(_TUNED.value)
        equal = [run for run in runs.read(folder) if run.setting.seconds == _SECONDS.value]
        chosen = tuning.choose(equal, tuning.read(tuned))
        tuned.write_text(json.dumps(chosen, indent=1, sort_keys=True) + "\n")
        print(tuned)


def _settings(task: str, method: str) -> Iterator[runs.Setting]:
    how = (_SECONDS.value, _SIZE.value, _DTYPE.value, _POINTS.value)
    problem = runs.Setting(task, method, 0, None, *how).problem
    for rate, seed in itertools.product(_rates(problem, method), map(int, _SEEDS.value)):
        yield runs.Setting(task, method, seed, rate, *how)


def _rates(problem: str, method: str) -> tuple[float | None, ...]:
    method = rivals.ALL[method].rate_of or method
    if not rivals.ALL[method].has_rate:
        return () if _TUNE.value else (None,)
    if _TUNE.value:
        return rivals.RATES
    if _RATE.value is not None:
        return (_RATE.value,)
    try:
        return (tuning.read(pathlib.Path(_TUNED.value))[problem][method],)
    except KeyError:
        sys.exit(
            f"flag --tuned={_TUNED.value}: it must hold a rate of {method} on {problem}; "
            "run with --tune, or give --learning_rate."
        )


if __name__ == "__main__":
    cli.run(main)
