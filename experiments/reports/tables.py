"""The table of a run: arms as rows, medians and ranges over seeds; text or Markdown."""

from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple

from experiments.reports.time_to_target import BASE, Score, by_arm, interval, spread


class Column(NamedTuple):
    """A column of the table.

    Attributes:
      heading: three lines.
      attribute: field of `Score`.
      form: format of a number.
      scale: factor on the number.
      miss: what stands for `None`, and what it counts as among other seeds.
    """

    heading: tuple[str, str, str]
    attribute: str
    form: str
    scale: float = 1.0
    miss: tuple[str, float] = ("never", math.inf)

    def cell(self, scores: Sequence[Score]) -> tuple[str, str]:
        """Returns median and '[least, greatest]' over the seeds of an arm, if they differ."""
        text, value = self.miss
        numbers = spread((getattr(score, self.attribute) for score in scores), value)
        median, low, high = (
            text if n is None else f"{self.scale * n:{self.form}}" for n in numbers
        )
        return median, f"[{low}, {high}]" if low != high else ""


_WORST_IS_LOW = ("-", -math.inf)

_COMPARISON = (
    Column(("epochs to", "base's best", "train loss"), "loss_epochs", "g"),
    Column(("seconds to", "base's best", "train loss"), "loss_seconds", ".1f"),
    Column(("", "time", "saved %"), "loss_reduction", "z.0f", 100, _WORST_IS_LOW),
    Column(("epochs to", "base's best", "val. acc."), "accuracy_epochs", "g"),
    Column(("seconds to", "base's best", "val. acc."), "accuracy_seconds", ".1f"),
)
_FINAL = (
    Column(("", "final", "train loss"), "train_loss", ".3g", miss=("diverged", math.inf)),
    Column(("", "final", "val. acc. %"), "validation_accuracy", ".1f", 100, _WORST_IS_LOW),
    Column(("", "test", "acc. %"), "test_accuracy", ".1f", 100, _WORST_IS_LOW),
    Column(("mean", "mask", "ratio %"), "mask_ratio", ".1f", 100, ("-", math.inf)),
)


_MAIN = (_COMPARISON[0], _COMPARISON[2], _COMPARISON[3], *_FINAL[:3])


def markdown(scores: Sequence[Score]) -> str:
    """Returns the table in Markdown."""
    return grid(_cells(scores), labels=1)


_FLOPS = Column(("", "operations", "saved %"), "flops_reduction", "z.0f", 100, _WORST_IS_LOW)


def rows(runs: Mapping[str, Sequence[Score]]) -> list[list[str]]:
    """The table of several runs, the heading first: the main columns and bootstrap intervals."""
    if not _compared(runs):
        return _joined(_lines(runs))
    counted = any(score.flops_reduction is not None for part in runs.values() for score in part)
    columns = (*_MAIN[:2], _FLOPS, *_MAIN[2:]) if counted else _MAIN
    (_, *names), *_ = _joined(_lines(runs, columns))
    lines = []
    for run, scores in runs.items():
        cells = _joined(_cells(scores, columns)[1:])
        for (arm, first, *rest), part in zip(cells, by_arm(scores).values(), strict=True):
            low, high = (
                "never" if end is None else f"{end:g}"
                for end in interval(score.loss_epochs for score in part)
            )
            lines.append([run, arm, first, f"[{low}, {high}]", *rest])
    return [["run", *names[:2], "its 95 % interval", *names[2:]], *lines]


def study(runs: Mapping[str, Sequence[Score]]) -> str:
    """Returns one Markdown table of several runs: run and arm as rows, the main columns."""
    return grid(_lines(runs), labels=2)


def _compared(runs: Mapping[str, Sequence[Score]]) -> bool:
    return any(BASE in by_arm(scores) for scores in runs.values())


def _lines(
    runs: Mapping[str, Sequence[Score]], columns: Sequence[Column] | None = None
) -> list[list[tuple[str, ...]]]:
    """Run and arm as rows of cells of several lines, the heading first."""
    columns = columns or (_MAIN if _compared(runs) else _FINAL[:3])
    tables = {run: _cells(scores, columns) for run, scores in runs.items()}
    heading = [("run",), *next(iter(tables.values()))[0]]
    return [heading, *([(run,), *row] for run, (_, *rows) in tables.items() for row in rows)]


def _joined(table: Sequence[Sequence[tuple[str, ...]]]) -> list[list[str]]:
    return [[" ".join(cell).strip() for cell in row] for row in table]


def text(scores: Sequence[Score]) -> str:
    """Returns the table for a terminal: columns aligned, the range below the median."""
    blocks = [list(zip(*row, strict=True)) for row in _cells(scores)]
    lines = [line for block in blocks for line in block if any(line)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
    aligned.insert(len(blocks[0]), "─" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join(aligned)


def grid(table: Sequence[Sequence[tuple[str, ...]]], labels: int) -> str:
    """Returns a Markdown table of rows of cells of several lines, the heading first.

    Args:
      table: the rows.
      labels: how many columns, from the first, are names.
    """
    heading, *rows = _joined(table)
    rule = ["---"] * labels + ["---:"] * (len(heading) - labels)
    return "\n".join("| " + " | ".join(line) + " |" for line in (heading, rule, *rows))


def _cells(
    scores: Sequence[Score], columns: Sequence[Column] | None = None
) -> list[list[tuple[str, ...]]]:
    """The table as rows of cells of several lines, the heading first."""
    arms = by_arm(scores)
    columns = columns or ((*_COMPARISON, *_FINAL) if BASE in arms else _FINAL)
    heading = [("", "", "arm"), *(column.heading for column in columns)]
    return [heading, *([(arm, ""), *(c.cell(rows) for c in columns)] for arm, rows in arms.items())]
