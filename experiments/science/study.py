"""Runs rivals on tasks for equal seconds, or chooses their learning rates.

Those of a task and a seed run side by side, a chunk of steps in turn. What is recorded is not run
again. Rates come from `tuned.json`, chosen on seeds of their own.

Examples:
  python -m experiments.science.study --tune --seeds=100,101 --seconds=10 --run_dir=runs/tuning
  python -m experiments.science.study --tasks=poisson,wave --seconds=30 --run_dir=runs/science
"""

from collections.abc import Iterator
import itertools
import json
import pathlib
import sys

import jax

from experiments import cli
from experiments.science import rivals, runs, tuning
from experiments.science.running import run_all
from experiments.science.tasks import SIZES, TASKS, make
from experiments.settings import Config, setting


class Settings(Config):
    """What is run, and where the records go."""

    tasks: tuple[str, ...] = setting(tuple(TASKS), "Tasks.", of=TASKS, some=True)
    methods: tuple[str, ...] = setting(
        tuple(rivals.RIVALS), "Rivals, or variants of solved jumps.", of=rivals.ALL, some=True
    )
    seeds: tuple[int, ...] = setting((0, 1, 2, 3, 4), "Seeds.", least=0, some=True)
    seconds: float = setting(30.0, "Seconds of training of each run.", above=0)
    size: str = setting("own", "Size of the networks.", of=SIZES)
    dtype: str = setting("float32", "Of the weights.", of=("float32", "float64"))
    points: str = setting("fixed", "The same at each step, or new ones.", of=("fixed", "fresh"))
    learning_rate: float | None = setting(None, "Instead of the tuned ones.", above=0)
    tune: bool = setting(False, "Choose the learning rates and write `tuned`.")
    tuned: str = setting(str(tuning.TUNED), "File of the chosen rates.")
    run_dir: str = setting("runs/science", "Folder of the records.")


def main(config: Settings) -> None:
    """Runs the program."""
    jax.config.update("jax_enable_x64", config.dtype == "float64")
    folder = cli.folder(config.run_dir)
    runs.start(folder)
    for name in config.tasks:
        if name == "circuit" and config.size != "own":
            continue
        task = make(name, config.size, config.dtype)
        fresh = config.points == "fresh"
        fit = [method for method in config.methods if rivals.ALL[method].fits(task, fresh)]
        run_all(folder, task, [how for method in fit for how in _settings(config, name, method)])
    if config.tune:
        tuned = pathlib.Path(config.tuned)
        equal = [run for run in runs.read(folder) if run.setting.seconds == config.seconds]
        chosen = tuning.choose(equal, tuning.read(tuned))
        tuned.write_text(json.dumps(chosen, indent=1, sort_keys=True) + "\n")
        print(tuned)


def _settings(config: Settings, task: str, method: str) -> Iterator[runs.Setting]:
    how = (config.seconds, config.size, config.dtype, config.points)
    problem = runs.Setting(task, method, 0, None, *how).problem
    for rate, seed in itertools.product(_rates(config, problem, method), config.seeds):
        yield runs.Setting(task, method, seed, rate, *how)


def _rates(config: Settings, problem: str, method: str) -> tuple[float | None, ...]:
    method = rivals.ALL[method].rate_of or method
    if not rivals.ALL[method].has_rate:
        return () if config.tune else (None,)
    if config.tune:
        return rivals.RATES
    if config.learning_rate is not None:
        return (config.learning_rate,)
    try:
        return (tuning.read(pathlib.Path(config.tuned))[problem][method],)
    except KeyError:
        sys.exit(
            f"`tuned`: {config.tuned} must hold a rate of {method} on {problem}; "
            "run with --tune, or give --learning_rate."
        )


if __name__ == "__main__":
    cli.run(main, Settings)
