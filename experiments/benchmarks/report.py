"""Table and picture of `experiments.benchmarks.events`."""

from collections.abc import Iterable, Mapping, Sequence
import statistics
from typing import Any

import matplotlib
from matplotlib.figure import Figure
import numpy as np

from experiments.reports import tables
from experiments.reports.figures import STYLE

PICTURE = "bench.png"
EVENT = "event, h = 5"
SNAPSHOT = "snapshot, h = 5"
# `copy` moves 12 arrays; an event at h = 5 moves 2h + 3.
COPY_SCALE = 13 / 12
_COLORS = {
    EVENT: "#0072B2",
    "event, h = 10": "#56B4E9",
    "copy": "#4d4d4d",
    "copy in place": "#999999",
    "textbook, JAX": "#E69F00",
    "textbook, torch": "#D55E00",
    "textbook, PyDMD": "#CC79A7",
}


def medians(row: Mapping[str, Any]) -> dict[str, float]:
    """Median seconds of each program of a comparison.

    Of an event what it adds to the step that takes a snapshot, in the rounds that timed both; of a
    copy those of 13 arrays.
    """
    seconds = row["seconds"]
    found = {}
    for name, rounds in seconds.items():
        if name.startswith("event"):
            rounds = [a - b for a, b in zip(rounds, seconds[SNAPSHOT], strict=False)]
        found[name] = statistics.median(rounds) * (COPY_SCALE if name.startswith("copy") else 1)
    return found


def ratio(row: Mapping[str, Any], name: str, to: str) -> float:
    """Of an event the ratio of medians; of steps and epochs the median over rounds of ratios."""
    if row["kind"] == "event":
        return medians(row)[name] / medians(row)[to]
    pairs = zip(row["seconds"][name], row["seconds"][to], strict=False)
    return statistics.median(a / b for a, b in pairs)


def exponent(rows: Iterable[Mapping[str, Any]], least: int = 10**6) -> float:
    """Slope of log seconds over log N of the event at h = 5."""
    points = [(row["of"], medians(row)[EVENT]) for row in _events(rows) if row["of"] >= least]
    sizes, seconds = np.log(np.array(points)).T
    return float(np.polyfit(sizes, seconds, 1)[0])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """That of the events and, if steps were timed, that of the steps, as Markdown."""
    steps, epochs = ({r["of"]: r for r in rows if r["kind"] == kind} for kind in ("step", "epoch"))
    return "\n\n".join([_event_table(rows), *([_step_table(steps, epochs)] if steps else [])])


def _event_table(rows: Sequence[Mapping[str, Any]]) -> str:
    heading = ("N", "event, ms", "h = 10 / h = 5", "step with a snapshot, ms", "event / copy")
    heading += ("event / copy in place", "textbook / event: torch", "JAX", "PyDMD")
    lines = []
    for row in _events(rows):
        cells = [
            f"{row['of']:.2g}".replace("e+0", "e"),
            f"{1000 * medians(row)[EVENT]:.1f}",
            f"{ratio(row, 'event, h = 10', EVENT):.2f}",
            f"{1000 * medians(row)[SNAPSHOT]:.1f}",
            f"{ratio(row, EVENT, 'copy'):.2f}",
            f"{ratio(row, EVENT, 'copy in place'):.1f}",
        ]
        for name in ("torch", "JAX", "PyDMD"):
            known = f"textbook, {name}" in row["seconds"]
            cells.append(f"{ratio(row, f'textbook, {name}', EVENT):.0f}" if known else "-")
        lines.append(cells)
    return tables.grid(heading, lines, labels=0)


def _step_table(
    steps: Mapping[str, Mapping[str, Any]], epochs: Mapping[str, Mapping[str, Any]]
) -> str:
    heading = ("model", "ordinary step without PDT, ms", "with / without")
    heading += ("two epochs, s", "with / without", "verified / without")
    lines = []
    for model, step in steps.items():
        cells = [
            model,
            f"{200 * medians(step)['without']:.2f}",
            f"{ratio(step, 'with PDT', 'without'):.3f}",
        ]
        if epoch := epochs.get(model):
            cells += [
                f"{medians(epoch)['without']:.2f}",
                f"{ratio(epoch, 'with PDT', 'without'):.3f}",
                f"{ratio(epoch, 'verified', 'without'):.2f}",
            ]
        lines.append(cells + ["-"] * (6 - len(cells)))
    return tables.grid(heading, lines, labels=1)


@matplotlib.rc_context(STYLE)
def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Seconds of an event and of what it is compared with, over the number of coordinates."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, color in _COLORS.items():
        points = [(r["of"], medians(r)[name]) for r in _events(rows) if name in r["seconds"]]
        if points:
            axes.loglog(*zip(*points, strict=True), "o-", color=color, label=name, markersize=4)
    axes.legend(frameon=False)
    axes.set(xlabel="coordinates N", ylabel="seconds", title="one event, float32, 2 CPU cores")
    return figure


def _events(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted((row for row in rows if row["kind"] == "event"), key=lambda row: row["of"])
