r"""Runs the studies behind the tables and figures; what is done already is skipped.

Example:
  python -m experiments.reproduce --study=verified
"""

from collections.abc import Sequence
import pathlib
import subprocess
import sys

from absl import flags

from experiments import cli, records, score, tables
from experiments.studies import STUDIES

_STUDY = flags.DEFINE_enum("study", None, list(STUDIES), "What is reproduced.")
_RUNS_DIR = flags.DEFINE_string(
    "runs_dir", "runs", "Folder in which each study has a folder of its own."
)
_RUNS = flags.DEFINE_list("runs", [], "Runs of the study; by default all.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the commands.")


def main() -> None:
    """Runs the program."""
    if _STUDY.value is None:
        sys.exit(f"flag --study: must be given, one of {', '.join(STUDIES)}.")
    study = STUDIES[_STUDY.value]
    unknown = sorted(set(_RUNS.value) - set(study))
    if unknown:
        sys.exit(f"flag --runs={unknown[0]}: must be of {', '.join(study)}.")
    folder = pathlib.Path(_RUNS_DIR.value, _STUDY.value)
    names = [name for name in study if not _RUNS.value or name in _RUNS.value]
    for name in names:
        arguments = [*study[name], f"--run_dir={folder / name}"]
        print(" ".join(["python -m experiments.train", *arguments]), flush=True)
        if not _DRY_RUN.value and not _is_finished(folder / name):
            _train(arguments)
    if not _DRY_RUN.value:
        scores = {name: score.score(records.read(folder / name)) for name in names}
        table = tables.study(scores)
        (folder / "summary.md").write_text(f"# {_STUDY.value}\n\n{table}\n")
        print(f"\n{table}\n\n{folder / 'summary.md'}")


def _train(arguments: Sequence[str]) -> None:
    """Runs the training program, whose compiled programs end with it."""
    command = [sys.executable, "-m", "experiments.train", *arguments]
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


def _is_finished(run_dir: pathlib.Path) -> bool:
    """Whether every arm of every seed has ended; an unfinished run is started anew."""
    if not (run_dir / records.RECORDS).exists():
        return False
    scores = score.score(records.read(run_dir))
    seeds = records.read_config(run_dir)["flags"]["seeds"]
    arms = {s.arm for s in scores}
    ended = [s for s in scores if s.status != "unfinished"]
    return bool(arms) and len(ended) == len(seeds) * len(arms)


if __name__ == "__main__":
    cli.run(main)
