"""Seconds to Adam's final loss against the number of weights, 10^3 to 10^6.

Networks of three hidden layers; the learning rate falls with the width. What is recorded is not run
again. Prints a table and draws `scaling.png`.

Example:
  python -m experiments.science.scaling --task=poisson --seconds=30 --run_dir=runs/scaling
"""

from experiments import cli
from experiments.science import crossing, rivals, runs, tasks
from experiments.science.running import run_all
from experiments.settings import Config, setting

METHODS = ("adam", "lbfgs", "lm", "solve")
DEPTH = 3


class Settings(Config):
    """What is run, and where the records go."""

    task: str = setting("poisson", "What is solved.", of=tasks.PROBLEMS)
    widths: tuple[int, ...] = setting((20, 64, 224, 706), "Of the layers.", least=1, some=True)
    learning_rates: tuple[float, ...] = setting(
        (1e-2, 5e-3, 1e-3, 3e-4), "One a width.", above=0, repeats=True
    )
    seeds: tuple[int, ...] = setting((0, 1, 2), "Seeds.", least=0, some=True)
    seconds: float = setting(30.0, "Seconds of each run.", above=0)
    run_dir: str = setting("runs/scaling", "Folder of the records.")

    def __post_init__(self):
        super().__post_init__()
        rates, widths = len(self.learning_rates), len(self.widths)
        if rates != widths:
            raise ValueError(
                f"`learning_rates` must be as many as `widths`, {widths}, got {rates}."
            )


def main(config: Settings) -> None:
    """Runs the program."""
    folder = cli.folder(config.run_dir)
    runs.start(folder)
    for width, rate in zip(config.widths, config.learning_rates, strict=True):
        task = tasks.make(config.task, width=width, depth=DEPTH)
        fit = [method for method in METHODS if rivals.RIVALS[method].fits(task)]
        run_all(folder, task, [how for m in fit for how in _settings(config, m, width, rate)])
    recorded = [run for run in runs.read(folder) if run.setting.task == config.task]
    print(f"\n{crossing.table(recorded)}\n")
    crossing.draw(recorded).savefig(folder / "scaling.png")
    print(folder / "scaling.png")


def _settings(config: Settings, method: str, width: int, rate: float) -> list[runs.Setting]:
    own_rate = rate if rivals.RIVALS[method].has_rate else None
    size = f"{width}x{DEPTH}"
    return [
        runs.Setting(config.task, method, seed, own_rate, config.seconds, size=size)
        for seed in config.seeds
    ]


if __name__ == "__main__":
    cli.run(main, Settings)
