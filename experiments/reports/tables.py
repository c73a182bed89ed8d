"""Tables of scores: arms as rows, medians and ranges over seeds; text or Markdown."""

from collections.abc import Mapping, Sequence
import math
import statistics
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
_FLOPS = Column(("", "operations", "saved %"), "flops_reduction", "z.0f", 100, _WORST_IS_LOW)


def grid(heading: Sequence[str], rows: Sequence[Sequence[str]], labels: int) -> str:
    """Returns a Markdown table whose first columns, so many, are names.

    By hand: tabulate pads its cells, and one longer cell would change every line of a page.
    """
    rule = ["---"] * labels + ["---:"] * (len(heading) - labels)
    return "\n".join("| " + " | ".join(line) + " |" for line in (heading, rule, *rows))


def mean_and_range(values: Sequence[float], form: str) -> str:
    """The mean, and '[least, greatest]' if they differ as they are shown."""
    mean, low, high = (f"{v:{form}}" for v in (statistics.fmean(values), min(values), max(values)))
    return f"{mean} [{low}, {high}]" if low != high else mean


def mean_of_reached(steps: Sequence[float], runs: int) -> str:
    """The mean steps of the runs that got there, and how many of all if not all did."""
    if not steps:
        return "never"
    mean = f"{statistics.fmean(steps):.0f}"
    return mean if len(steps) == runs else f"{mean} on {len(steps)} of {runs}"


def markdown(scores: Sequence[Score]) -> str:
    """Returns the table of a run in Markdown."""
    columns = _columns(scores)
    return grid(["arm", *_headings(columns)], _lines(scores, columns), labels=1)


def study(runs: Mapping[str, Sequence[Score]]) -> str:
    """Returns one Markdown table of several runs: run and arm as rows, the main columns."""
    columns = _MAIN if _compared(runs) else _FINAL[:3]
    lines = [[run, *line] for run, scores in runs.items() for line in _lines(scores, columns)]
    return grid(["run", "arm", *_headings(columns)], lines, labels=2)


def rows(runs: Mapping[str, Sequence[Score]]) -> list[list[str]]:
    """The table of several runs, the heading first: the main columns and bootstrap intervals."""
    if not _compared(runs):
        columns = _FINAL[:3]
        lines = [[run, *line] for run, scores in runs.items() for line in _lines(scores, columns)]
        return [["run", "arm", *_headings(columns)], *lines]
    counted = any(score.flops_reduction is not None for part in runs.values() for score in part)
    columns = (*_MAIN[:2], _FLOPS, *_MAIN[2:]) if counted else _MAIN
    first, *names = _headings(columns)
    lines = [["run", "arm", first, "its 95 % interval", *names]]
    for run, scores in runs.items():
        pairs = zip(_lines(scores, columns), by_arm(scores).values(), strict=True)
        for (arm, first, *rest), part in pairs:
            low, high = (
                "never" if end is None else f"{end:g}"
                for end in interval(score.loss_epochs for score in part)
            )
            lines.append([run, arm, first, f"[{low}, {high}]", *rest])
    return lines


def text(scores: Sequence[Score]) -> str:
    """Returns the table for a terminal: columns aligned, the range below the median."""
    columns = _columns(scores)
    cells = [[("", "", "arm"), *(column.heading for column in columns)]]
    cells += [[(arm, ""), *(c.cell(r) for c in columns)] for arm, r in by_arm(scores).items()]
    blocks = [list(zip(*row, strict=True)) for row in cells]
    lines = [line for block in blocks for line in block if any(line)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
    aligned.insert(len(blocks[0]), "─" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join(aligned)


def _compared(runs: Mapping[str, Sequence[Score]]) -> bool:
    return any(BASE in by_arm(scores) for scores in runs.values())


def _columns(scores: Sequence[Score]) -> Sequence[Column]:
    return (*_COMPARISON, *_FINAL) if BASE in by_arm(scores) else _FINAL


def _headings(columns: Sequence[Column]) -> list[str]:
    return [" ".join(column.heading).strip() for column in columns]


def _lines(scores: Sequence[Score], columns: Sequence[Column]) -> list[list[str]]:
    """A line of cells for each arm."""
    return [
        [arm, *(" ".join(column.cell(rows)).strip() for column in columns)]
        for arm, rows in by_arm(scores).items()
    ]
