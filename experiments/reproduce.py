r"""Runs the studies behind the tables and figures; what is done already is skipped.

Example:
  python -m experiments.reproduce --study=verified
"""

from collections.abc import Sequence
import math
import pathlib
import signal
import subprocess
import sys
import time

from absl import flags

from experiments import cli
from experiments.configs.studies import SCALES, STUDIES, Study, at_scale
from experiments.reports import tables, time_to_target
from experiments.runs import records

_STUDY = flags.DEFINE_enum("study", None, list(STUDIES), "What is reproduced.")
_SCALE = flags.DEFINE_enum(
    "scale",
    "cpu",
    SCALES,
    "cpu: as reported; smoke: seconds, to try it; paper: the published sizes and data, for "
    "accelerators.",
)
_RUNS_DIR = flags.DEFINE_string(
    "runs_dir", "runs", "Folder in which each study has a folder of its own."
)
_RUNS = flags.DEFINE_list("runs", [], "Runs of the study; by default all.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the commands.")


def main() -> None:
    """Runs the program."""
    if _STUDY.value is None:
        sys.exit(f"flag --study: must be given, one of {', '.join(STUDIES)}.")
    try:
        study = at_scale(_STUDY.value, _SCALE.value)
    except ValueError as error:
        sys.exit(f"flag --study={_STUDY.value}: {error}")
    unknown = sorted(set(_RUNS.value) - set(study))
    if unknown:
        sys.exit(f"flag --runs={unknown[0]}: must be of {', '.join(study)}.")
    folder = pathlib.Path(_RUNS_DIR.value, _folder(_STUDY.value))
    names = [name for name in study if not _RUNS.value or name in _RUNS.value]
    if _DRY_RUN.value:
        for name in names:
            print(_command(study[name], folder / name))
        return
    left = [name for name in names if not _is_finished(study[name], folder / name)]
    start = time.monotonic()
    for number, name in enumerate(left):
        print(f"{_progress(study, left, number, start)}: {_command(study[name], folder / name)}")
        _train([*study[name], f"--run_dir={folder / name}"])
    scores = {name: time_to_target.score(records.read(folder / name)) for name in names}
    table = tables.study(scores)
    (folder / "summary.md").write_text(f"# {_STUDY.value}\n\n{table}\n")
    print(f"\n{table}\n\n{folder / 'summary.md'}")


def _folder(study: str) -> str:
    return study if _SCALE.value == "cpu" else f"{study}_{_SCALE.value}"


def _command(arguments: Sequence[str], run_dir: pathlib.Path) -> str:
    return " ".join(["python -m experiments.train", *arguments, f"--run_dir={run_dir}"])


def _progress(study: Study, left: Sequence[str], number: int, start: float) -> str:
    """Which run comes, and how long those that are left will take at the pace so far."""
    parts = left[:number], left[number:]
    done, ahead = (sum(_weight(study[name]) for name in part) for part in parts)
    text = f"run {number + 1} of {len(left)}"
    if not done:
        return text
    minutes = (time.monotonic() - start) / 60 * ahead / done
    return f"{text}, about {math.ceil(minutes)} min left"


def _weight(arguments: Sequence[str]) -> int:
    """Epochs times seeds of a run."""
    given = _given(arguments)
    return int(given.get("epochs", 1)) * len(given.get("seeds", "0").split(","))


def _given(arguments: Sequence[str]) -> dict[str, str]:
    """The values of flags; the last one counts, and one without a value is true."""
    return {
        name: value or "True"
        for name, _, value in (argument[2:].partition("=") for argument in arguments)
    }


def _train(arguments: Sequence[str]) -> None:
    """Runs the training program, whose compiled programs end with it; hands signals on to it."""
    command = [sys.executable, "-m", "experiments.train", *arguments]
    with subprocess.Popen(command) as process:
        signal.signal(signal.SIGINT, lambda *_: None)  # The terminal sends it to both.
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        status = process.wait()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if status:
        sys.exit(status)


def _is_finished(arguments: Sequence[str], run_dir: pathlib.Path) -> bool:
    """Whether every arm of every seed has ended; an unfinished run goes on."""
    if not (run_dir / records.CONFIG).exists():
        return False
    flags = records.read_config(run_dir)["flags"]
    for name, value in _given(arguments).items():
        if name in records.MEANS:
            continue
        there = flags.get(name)
        if (",".join(there) if isinstance(there, list) else _number(str(there))) != _number(value):
            sys.exit(f"flag --runs_dir: {run_dir} holds another run: {name} is {there} there.")
    scores = time_to_target.score(records.read(run_dir))
    arms = {s.arm for s in scores}
    ended = [s for s in scores if s.status != "unfinished"]
    return bool(arms) and len(ended) == len(flags["seeds"]) * len(arms)


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    cli.run(main)
