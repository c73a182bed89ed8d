"""Tables and pictures of a study: `report.md`, `losses.png` and a picture of each solution.

Example:
  python -m experiments.science.report --run_dir=runs/science
"""

import pathlib
import sys

from absl import flags

from experiments import cli
from experiments.science import page, runs

_RUN_DIR = flags.DEFINE_string("run_dir", "runs/science", "Folder of the records.")


def main() -> None:
    """Runs the program."""
    folder = pathlib.Path(_RUN_DIR.value)
    recorded = runs.read(folder)
    if not recorded:
        sys.exit(f"flag --run_dir={folder}: it must hold records of a study, got none.")
    for path in page.write(folder, recorded):
        print(path)


if __name__ == "__main__":
    cli.run(main)
