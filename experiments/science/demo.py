"""A physics-informed network trained by Adam, by L-BFGS and by Adam with jumps, side by side.

Each has the same seconds. Prints a table and draws the solutions with their errors.

Example:
  python -m experiments.science.demo --task=poisson --seconds=20
"""

import pathlib

from experiments import cli
from experiments.science import pictures, rivals, runs, solutions, tasks
from experiments.science.running import run_all
from experiments.settings import Config, setting

METHODS = ("adam", "lbfgs", "solve")


class Settings(Config):
    """What is solved, and for how long."""

    task: str = setting("poisson", "What is solved.", of=tasks.PROBLEMS)
    seconds: float = setting(20.0, "Seconds of training of each.", least=0.1)
    learning_rate: float = setting(1e-2, "Of Adam, at first.", above=0)
    seed: int = setting(0, "Of the weights.", least=0)
    run_dir: str = setting("runs/demo", "Folder of the pictures.")


def main(config: Settings) -> None:
    """Runs the program."""
    folder = cli.folder(config.run_dir)
    (folder / runs.RECORDS).unlink(missing_ok=True)
    runs.start(folder)
    task = tasks.make(config.task)
    print(f"{_equation(config.task)}\nA network of {task.weights():,} weights.\n")
    rates = {m: config.learning_rate if rivals.RIVALS[m].has_rate else None for m in METHODS}
    run_all(
        folder,
        task,
        [runs.Setting(task.name, m, config.seed, rates[m], config.seconds) for m in METHODS],
    )
    recorded = runs.read(folder)
    print("\n" + table(recorded) + "\n")
    for path in draw(folder, recorded):
        print(path)


def _equation(name: str) -> str:
    """What the function that makes the problem says about it."""
    problem = tasks.PROBLEMS[name]
    words = getattr(problem, "func", problem).__doc__ or name
    values = ", ".join(f"{value:g}" for value in getattr(problem, "args", ()))
    return f"{name}: {words}" + (f" Here the factor is {values}." if values else "")


def table(recorded: list[runs.Run]) -> str:
    """One line for each method."""
    width = max(len(rivals.RIVALS[run.setting.method].label) for run in recorded)
    head = f"{'':{width}}  compiling  training   steps      loss  relative error"
    lines = [
        f"{rivals.RIVALS[run.setting.method].label:{width}}  {run.compile_seconds:7.1f} s"
        f"  {run.seconds[-1]:6.1f} s  {run.steps[-1]:6}  {run.loss[-1]:8.1e}"
        f"  {solutions.percent(run.final_error):>14}"
        for run in recorded
    ]
    return "\n".join([head, *lines])


def draw(folder: pathlib.Path, recorded: list[runs.Run]) -> list[pathlib.Path]:
    """Draws the solutions and the losses; tells the paths."""
    figures = {"losses": pictures.draw_losses(recorded)}
    shown = [run for run in recorded if run.status == "finished"]
    if shown:
        figures["solution"] = solutions.draw(folder, shown)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures]


if __name__ == "__main__":
    cli.run(main, Settings)
