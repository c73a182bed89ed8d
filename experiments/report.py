"""Makes one HTML page of all studies, or prints the table of one run.

Examples:
  python -m experiments.report --results=experiments/results --page=report.html
  python -m experiments.report --run=runs/demo --arms=paper,bounded
"""

import pathlib
import sys

from absl import flags

from experiments import cli
from experiments.configs.studies import TITLES
from experiments.reports import page, summary, tables

_RESULTS = flags.DEFINE_string(
    "results", "experiments/results", "Folder of the studies that the page shows."
)
_PAGE = flags.DEFINE_string("page", "report.html", "The page, a file without any other.")
_RUN = flags.DEFINE_string(
    "run", None, "Folder of a run: instead of the page its table, summary and picture are made."
)
_ARMS = flags.DEFINE_list("arms", [], "Arms of the run beside the base; by default all.")
_FORMATS = {"markdown": tables.markdown, "text": tables.text}
_FORMAT = flags.DEFINE_enum("format", "text", list(_FORMATS), "How the table of a run is printed.")


def main() -> None:
    """Runs the program."""
    if _RUN.value is None:
        _write_page(pathlib.Path(_RESULTS.value), pathlib.Path(_PAGE.value))
        return
    run_dir = pathlib.Path(_RUN.value)
    try:
        scores = summary.write(run_dir, _ARMS.value)
    except (OSError, ValueError) as error:
        sys.exit(f"flag --run: {error}")
    print(_FORMATS[_FORMAT.value](scores))
    print(f"\n{run_dir / summary.PICTURE}\n{run_dir / summary.SUMMARY}", file=sys.stderr)


def _write_page(results: pathlib.Path, out: pathlib.Path) -> None:
    try:
        text = page.write(results, TITLES)
    except ValueError as error:
        sys.exit(f"flag --results: {error}")
    try:
        out.write_text(text)
    except OSError as error:
        sys.exit(f"flag --page: {error}")
    print(out)


if __name__ == "__main__":
    cli.run(main)
