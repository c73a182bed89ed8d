"""The summary of a run folder: its table and picture, computed from its records alone."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from experiments.reports import figures, tables, time_to_target
from experiments.runs import records

SUMMARY = "summary.md"
PICTURE = "summary.png"
_MOST_NAMED = 6  # Seeds that a title has room for.

_NOTE = """\
One row per arm, all arms trained from the same initialisation on the same batches. Targets are the
base run's best train loss and best validation accuracy of the same seed; the base is held to its
own first crossing, a miss ("never") counts as infinite. Seconds are training alone: evaluation and
compilation are left out."""


def write(run_dir: pathlib.Path, arms: Sequence[str] = ()) -> list[time_to_target.Score]:
    """Writes `summary.md` and `summary.png` into a run folder and returns the scores.

    Args:
      run_dir: the folder.
      arms: those that are shown beside the base; by default all.

    Raises:
      ValueError: if the folder holds no records, or none of an arm.
    """
    config = records.read_config(run_dir)
    rows = records.read(run_dir)
    scores = time_to_target.score(rows)
    if not scores:
        raise ValueError(f"{run_dir} holds no records yet.")
    there = {s.arm for s in scores}
    for arm in arms:
        if arm not in there:
            raise ValueError(f"{run_dir} has no arm {arm}, only {', '.join(sorted(there))}.")
    shown = {time_to_target.BASE, *arms} if arms else there
    rows = [row for row in rows if row.arm in shown]
    scores = [s for s in scores if s.arm in shown]
    title = describe(config["config"])
    figure = figures.draw(rows, title)
    figure.savefig(run_dir / PICTURE)
    (run_dir / SUMMARY).write_text(
        f"# {title}\n\n{tables.markdown(scores)}\n\n{_NOTE} {_remarks(scores)}\n\n"
        f"![train loss, validation accuracy and mask ratio]({PICTURE})\n\n{origin(config)}\n"
    )
    return scores


def describe(config: Mapping[str, Any]) -> str:
    """Returns the configuration of a run in a line."""
    seeds = list(map(str, config["seeds"]))
    named = f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(seeds)}"
    if len(seeds) > _MOST_NAMED:
        named = f"{len(seeds)} seeds from {seeds[0]} to {seeds[-1]}"
    return (
        f"{config['model']} on {config['dataset']}, {config['optimizer']} "
        f"{config['learning_rate']:g} {config['schedule']}, batch {config['batch_size']}, "
        f"{config['epochs']} epochs, {named}"
    )


def _remarks(scores: list[time_to_target.Score]) -> str:
    compiled = [
        f"{arm} {rows[0].compile_seconds:.2f} s"
        for arm, rows in time_to_target.by_arm(scores).items()
        if rows[0].compile_seconds is not None
    ]
    ended = [f"{s.arm} {s.status} (seed {s.seed})." for s in scores if s.status != "finished"]
    return " ".join([f"Compilation: {', '.join(compiled)}."] * bool(compiled) + ended)


def origin(config: dict[str, Any]) -> str:
    """Returns machine and versions of a run in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    return (
        f"Run on {config['device_count']} {config['device_kind']} "
        f"({config['cpu_count']} CPU cores, {config['platform']}); {versions}; "
        f"revision {config['git_revision'] or 'unknown'}."
    )
