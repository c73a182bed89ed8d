"""Tables and pictures of a study: `report.md`, `losses.png` and a picture of each solution.

Example:
  python -m experiments.science.report --run_dir=runs/science
"""

import pathlib
import sys

from experiments import cli
from experiments.science import page, runs
from experiments.settings import Config, setting


class Settings(Config):
    """Where the records are."""

    run_dir: str = setting("runs/science", "Folder of the records.")


def main(config: Settings) -> None:
    """Runs the program."""
    folder = pathlib.Path(config.run_dir)
    recorded = runs.read(folder)
    if not recorded:
        sys.exit(f"`run_dir` must hold records of a study, got {folder}.")
    for path in page.write(folder, recorded):
        print(path)


if __name__ == "__main__":
    cli.run(main, Settings)
