"""Which method is fastest at which number of weights: a table and a picture."""

from collections.abc import Sequence
import math
import statistics

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
import numpy as np

from experiments.reports.tables import grid
from experiments.science import pictures, rivals, summary
from experiments.science.runs import Run


def seconds_by_weights(recorded: Sequence[Run]) -> dict[str, dict[int, float]]:
    """Median over the seeds of the seconds to Adam's best loss, by method and number of weights."""
    weights = {run.setting.problem: run.weights for run in recorded}
    medians: dict[str, dict[int, float]] = {name: {} for name in summary.methods(recorded)}
    for (problem, method), seconds in summary.seconds_to_base(recorded).items():
        medians[method][weights[problem]] = statistics.median(seconds)
    return {name: dict(sorted(by.items())) for name, by in medians.items()}


def table(recorded: Sequence[Run]) -> str:
    """Seconds in Markdown, a row for each number of weights; a dash where Adam was not reached."""
    medians = seconds_by_weights(recorded)
    heads = ["weights", *(rivals.RIVALS[name].label for name in medians)]
    rows = []
    for number in sorted({number for by in medians.values() for number in by}):
        cells = [_cell(by.get(number)) for by in medians.values()]
        rows.append([f"{number:,}", *cells])
    return grid(heads, rows, labels=0)


def _cell(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.3g}" if math.isfinite(seconds) else "-"


def draw(recorded: Sequence[Run]) -> Figure:
    """Seconds against weights, both logarithmic; a cross on top where Adam was not reached."""
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    top = 1.6 * max(run.setting.seconds for run in recorded)
    for name, by in seconds_by_weights(recorded).items():
        numbers, seconds = np.array(list(by)), np.array(list(by.values()))
        reached = np.isfinite(seconds)
        color, label = pictures.COLORS[name], rivals.RIVALS[name].label
        axes.plot(numbers[reached], seconds[reached], "o-", color=color, label=label)
        if not reached.all():
            missed = numbers[~reached]
            axes.plot(missed, np.full(len(missed), top), "x", color=color)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="weights", ylabel="seconds to Adam's best loss (cross: never)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
