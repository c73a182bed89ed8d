"""The table and the picture of predicted against real training times, from their records."""

from collections.abc import Iterator, Mapping, Sequence
import itertools
import math
import statistics
from typing import Any, NamedTuple

from matplotlib.figure import Figure
import numpy as np

from experiments.reports import tables
from experiments.training_time.task import LOSSES

THRESHOLDS = (0.5, 0.3, 0.2)
LEAST_STEPS = 25  # Fewer are not scored: one more or less is above 4 %.
UNSTABLE_PART = 1.2
_COLORS: Mapping[int, str] = {0: "#4d4d4d", 1: "#D55E00", 2: "#0072B2"}
_Rows = Sequence[Mapping[str, Any]]


class Comparison(NamedTuple):
    """One run at one threshold.

    Attributes:
      steps: that training took.
      error: predicted steps over those, less one; infinite if none were predicted.
      saving: sample gradients of training over those of the prediction.
    """

    steps: int
    error: float
    saving: float


def compare(
    rows: _Rows, loss: str, threshold: float, linearizations: int, start: str = "pretrained"
) -> list[Comparison]:
    """Compares the stable runs that reached the threshold, in the order of the records."""
    found = []
    trained = {_case(row): row["steps"][str(threshold)] for row in rows if _is_trained(row)}
    for row in rows:
        if (row["start"], row["loss"]) != (start, loss) or row["setting"][0] == UNSTABLE_PART:
            continue
        if _is_trained(row) or row["linearizations"] != linearizations:
            continue
        steps, predicted = trained.get(_case(row)), row["steps"][str(threshold)]
        if steps:
            error = math.inf if predicted is None else predicted / steps - 1
            saving = steps * row["setting"][2] / row["sample_gradients"]
            found.append(Comparison(steps, error, saving))
    return found


def summary(rows: _Rows) -> str:
    """The tables in Markdown."""
    numbers = sorted({row["linearizations"] for row in rows if not _is_trained(row)})
    lines = []
    for loss, threshold, number in itertools.product(LOSSES, THRESHOLDS, numbers):
        found = compare(rows, loss, threshold, number)
        if scored := [c for c in found if c.steps >= LEAST_STEPS]:
            lines.append([LOSSES[loss], str(threshold), str(number), *_cells(scored)])
    heading = ("loss", "threshold", "linearised", "runs")
    heading += ("median error %", "all %", "within 20 %", "saving")
    parts = [tables.grid(heading, lines, labels=1)]
    if controls := list(_controls(rows)):
        parts.append("Controls, squared error, learning rate in units of the stable limit:")
        heading = ("start", "rate", "seed", "status", "steps to 0.2: predicted", "trained")
        parts.append(tables.grid(heading, controls, labels=1))
    return "\n\n".join(parts) + "\n"


def draw(rows: _Rows) -> Figure:
    """Predicted and trained curves of the first setting, and the errors of all runs."""
    figure = Figure(figsize=(10, 7.5), dpi=150, layout="constrained")
    curves, scatters = figure.subplots(2, 2)
    first = next(iter(rows))["setting"]
    for axes, loss in zip(curves, LOSSES, strict=True):
        for row in rows:
            if (row["start"], row["loss"], row["setting"]) == ("pretrained", loss, first):
                number = row.get("linearizations", 0)
                steps, losses = (np.array(values, float) for values in row["curve"])
                axes.plot(
                    steps, losses / losses[0], color=_color(number), label=_label(number), lw=1.2
                )
        for threshold in THRESHOLDS:
            axes.axhline(threshold, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.set(title=f"{LOSSES[loss]}, rate {first[0]} of the limit, batch {first[2]}")
        axes.set(xlabel="step", xscale="log", yscale="log", ylabel="loss / initial loss")
        axes.set(yticks=[0.1, 0.2, 0.3, 0.5, 1], yticklabels=["0.1", "0.2", "0.3", "0.5", "1"])
        axes.set(ylim=(0.08, 1.3), xlim=(1, None))
        axes.minorticks_off()
        _legend(axes, loc="lower left")
    for axes, loss in zip(scatters, LOSSES, strict=True):
        for number in sorted({row.get("linearizations", 0) for row in rows} - {0}):
            for threshold, marker in zip(THRESHOLDS, "osv", strict=True):
                found = compare(rows, loss, threshold, number)
                axes.plot(
                    [c.steps for c in found],
                    [100 * c.error for c in found],
                    marker,
                    color=_color(number),
                    markersize=5,
                    alpha=0.7,
                    label=f"to {threshold}, {_label(number)}",
                )
        axes.axhspan(-20, 20, color="#bbbbbb", alpha=0.3, linewidth=0)
        axes.axvline(LEAST_STEPS, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.set(xlabel="steps that training took", xscale="log", ylabel="error of the steps, %")
        _legend(axes, loc="best", fontsize=8)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _controls(rows: _Rows) -> Iterator[list[str]]:
    trained = {_case(row): row["steps"]["0.2"] for row in rows if _is_trained(row)}
    for row in rows:
        is_control = row["start"] == "random" or row["setting"][0] == UNSTABLE_PART
        if is_control and not _is_trained(row):
            counts = (row["steps"]["0.2"], trained.get(_case(row)))
            shown = ["never" if count is None else str(count) for count in counts]
            yield [row["start"], str(row["setting"][0]), str(row["seed"]), row["status"], *shown]


def _is_trained(row: Mapping[str, Any]) -> bool:
    return row["kind"] == "trained"


def _case(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["start"], row["loss"], row["seed"], *row["setting"]


def _cells(found: Sequence[Comparison]) -> list[str]:
    sizes = [100 * abs(c.error) for c in found]
    least, greatest = (100 * f(c.error for c in found) for f in (min, max))
    return [
        str(len(found)),
        f"{statistics.median(sizes):.1f}",
        f"{least:+.1f} to {greatest:+.1f}",
        str(sum(size <= 20 for size in sizes)),
        f"{statistics.median(c.saving for c in found):.1f}",
    ]


def _color(number: int) -> str:
    return _COLORS.get(number, "#009E73")


def _label(number: int) -> str:
    names = {0: "trained", 1: "linearised once", 2: "linearised twice"}
    return names.get(number, f"linearised {number} times")


def _legend(axes: Any, **options: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), frameon=False, **options)
