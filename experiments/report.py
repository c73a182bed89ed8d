"""Prints the table of a run and writes its summary and picture into the run folder.

Example:
  python -m experiments.report --run=runs/demo
"""

import pathlib
import sys

from absl import flags

from experiments import cli, summary, tables

_RUN = flags.DEFINE_string("run", "runs/demo", "Folder of the run.")
_FORMATS = {"markdown": tables.markdown, "text": tables.text}
_FORMAT = flags.DEFINE_enum("format", "text", list(_FORMATS), "How the table is printed.")


def main() -> None:
    """Runs the program."""
    run_dir = pathlib.Path(_RUN.value)
    try:
        scores = summary.write(run_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"flag --run: {error}")
    print(_FORMATS[_FORMAT.value](scores))
    print(f"\n{run_dir / summary.PICTURE}\n{run_dir / summary.SUMMARY}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
