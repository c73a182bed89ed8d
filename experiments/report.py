"""Makes one HTML page of all studies, or prints the table of one run.

python -m experiments.report --results=experiments/results --page=report.html
python -m experiments.report --run=runs/demo --arms=paper,bounded
"""

import pathlib
import sys

from experiments import cli
from experiments.reports import page, summary, tables, tensorboard
from experiments.runs import records
from experiments.settings import Config, setting

_FORMATS = {"markdown": tables.markdown, "text": tables.text}


class Settings(Config):
    """What is shown."""

    results: str = setting("experiments/results", "Folder of the studies that the page shows.")
    page: str = setting("report.html", "The page, a file without any other.")
    run: str | None = setting(
        None, "Folder of a run: instead of the page its table, summary and picture are made."
    )
    arms: tuple[str, ...] = setting((), "Arms of the run beside the base; by default all.")
    tensorboard: bool = setting(False, "Also write the run's epochs as TensorBoard events.")
    format: str = setting("text", "How the table of a run is printed.", of=_FORMATS)


def main(config: Settings) -> None:
    """Runs the program."""
    if config.run is None:
        _write_page(pathlib.Path(config.results), pathlib.Path(config.page))
        return
    run_dir = pathlib.Path(config.run)
    try:
        scores = summary.write(run_dir, config.arms)
        if config.tensorboard:
            print(tensorboard.write(run_dir, records.read(run_dir)), file=sys.stderr)
    except ImportError:
        sys.exit("`tensorboard` needs tensorboardX: pip install '.[tensorboard]' in a clone")
    except (OSError, ValueError) as error:
        sys.exit(f"`run`: {error}")
    print(_FORMATS[config.format](scores))
    print(f"\n{run_dir / summary.PICTURE}\n{run_dir / summary.SUMMARY}", file=sys.stderr)


def _write_page(results: pathlib.Path, out: pathlib.Path) -> None:
    try:
        text = page.write(results)
    except ValueError as error:
        sys.exit(f"`results`: {error}")
    try:
        out.write_text(text)
    except OSError as error:
        sys.exit(f"`page`: {error}")
    print(out)


if __name__ == "__main__":
    cli.run(main, Settings)
