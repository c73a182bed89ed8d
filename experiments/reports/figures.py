"""The figures of a run: losses, accuracies, mask ratio; and the mask by layer."""

from collections.abc import Iterable, Mapping, Sequence
import itertools
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    MultipleLocator,
    NullFormatter,
    PercentFormatter,
)
import numpy as np

from experiments.reports.time_to_target import BASE, Score, by_arm, score, spread
from experiments.runs.records import EndRecord, EpochRecord, Record

# Okabe & Ito (2008), told apart under every common colour blindness.
COLORS: Mapping[str, str] = {
    "base": "#4d4d4d",
    "paper": "#0072B2",
    "bounded": "#D55E00",
    "reference": "#009E73",
    "accept_all": "#CC79A7",
    "verified": "#7B3FA0",
    "switching": "#56B4E9",
    "short": "#E69F00",
    "ire": "#8B6914",
    "random": "#A6761D",
    "schedule_free": "#C51B7D",
    "lookahead": "#1F9E9E",
    "latest_average": "#8C96C6",
    "predictor=linear": "#B2182B",
    "retuned": "#33A02C",
}
STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.dpi": 150,
    "font.size": 10,
    "grid.alpha": 0.25,
}
_TIMES = {"epochs": "epoch", "seconds": "training seconds"}  # Field of `_Runs` -> axis label.


class _Runs(NamedTuple):
    """An arm: its epochs, each (seeds, epochs), nan where there is no finite number; its color."""

    epochs: np.ndarray
    seconds: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    mask: np.ndarray
    color: str


_Arms = Mapping[str, _Runs]
_Scores = Mapping[str, Sequence[Score]]


def draw(records: Sequence[Record], title: str) -> Figure:
    """Draws a run; a dot marks when an arm reaches the base run's best.

    Args:
      records: of the run; with several seeds lines and dots are medians, and bands the range.
      title: what was run, in a line.
    """
    arms = _runs(records)
    scores = by_arm(score(records))
    with matplotlib.rc_context(STYLE):
        predicted = any(np.isfinite(arm.mask).any() for arm in arms.values())
        figure = Figure(figsize=(10, 9.5 if predicted else 7.3), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        grid = figure.add_gridspec(2 + predicted, 2, height_ratios=[3, 3, 2][: 2 + predicted])
        for column, time in enumerate(_TIMES):
            for row, draw_measure in enumerate((_draw_loss, _draw_accuracy)):
                axes = figure.add_subplot(grid[row, column])
                axes.set_xlabel(_TIMES[time])
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
                draw_measure(axes, arms, scores, time)
        if predicted:
            _draw_mask(figure.add_subplot(grid[2, :]), arms)
        if max(map(len, scores.values())) > 1:
            note = "Lines and dots: medians over seeds. Bands: range over seeds."
            figure.supxlabel(note, x=0.01, ha="left", size=9)
        names, lines = list(arms), figure.axes[0].lines
        figure.legend(lines[: len(names)], names, loc="outside right upper", frameon=False)
    return figure


def _runs(records: Sequence[Record]) -> dict[str, _Runs]:
    seeds: dict[str, dict[int, list[EpochRecord]]] = {}
    for record in records:
        if isinstance(record, EpochRecord):
            seeds.setdefault(record.arm, {}).setdefault(record.seed, []).append(record)
    colors = _colors(seeds)
    return {arm: _arrays(list(rows.values()), colors[arm]) for arm, rows in seeds.items()}


def _colors(arms: Iterable[str]) -> dict[str, str]:
    """Of arms without a color of their own, such as learning rates, those that are left over."""
    arms = list(arms)
    named = {arm: COLORS[arm] for arm in arms if arm in COLORS}
    left = [color for color in COLORS.values() if color not in named.values()]
    rest = itertools.cycle(left or COLORS.values())
    return {arm: named.get(arm) or next(rest) for arm in arms}


def _arrays(seeds: Sequence[Sequence[EpochRecord]], color: str) -> _Runs:
    shape = len(seeds), max(map(len, seeds))
    arrays = [np.full(shape, np.nan) for _ in _Runs._fields[:-1]]
    for row, records in enumerate(seeds):
        for column, r in enumerate(records):
            values = (r.epoch, r.seconds, r.train_loss, r.validation_accuracy, r.mask_ratio)
            for array, value in zip(arrays, values, strict=True):
                array[row, column] = np.nan if value is None else value
    return _Runs(*arrays, color=color)


def _draw_loss(axes: Axes, arms: _Arms, scores: _Scores, time: str) -> None:
    axes.set(title="train loss")
    for arm, runs in arms.items():
        _draw_line(axes, arm, getattr(runs, time), runs.loss, runs.color)
    if min(np.nanmin(runs.loss, initial=0) for runs in arms.values()) == 0:
        _set_log(axes, arms)
    if BASE in arms:
        best = np.nanmin(arms[BASE].loss, axis=1, initial=np.inf)
        _draw_target(axes, float(np.median(best)), scores, f"loss_{time}")


def _set_log(axes: Axes, arms: _Arms) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    first = max(np.nanmax(runs.loss[:, 0], initial=0) for runs in arms.values())
    positive = [np.where(runs.loss > 0, runs.loss, np.nan) for runs in arms.values()]
    least = min(np.nanmin(losses, initial=first) for losses in positive)
    few_decades = first < 1e4 * least
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if few_decades else LogLocator())
    if least > 0:
        axes.set_ylim(0.8 * least, 1.5 * first)


def _draw_accuracy(axes: Axes, arms: _Arms, scores: _Scores, time: str) -> None:
    axes.set(title="validation accuracy")
    axes.yaxis.set_major_locator(MultipleLocator(0.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    for arm, runs in arms.items():
        _draw_line(axes, arm, getattr(runs, time), runs.accuracy, runs.color)
    best = max(np.nanmax(runs.accuracy, initial=0) for runs in arms.values())
    axes.set_ylim(best - 0.2, best + 0.01)
    if BASE in arms:
        best = np.nanmax(arms[BASE].accuracy, axis=1, initial=0)
        _draw_target(axes, float(np.median(best)), scores, f"accuracy_{time}")


def _draw_mask(axes: Axes, arms: _Arms) -> None:
    axes.set(title="mask ratio: coordinates that took the prediction", xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    for arm, runs in arms.items():
        predicted = np.isfinite(runs.mask).any(axis=0)
        if predicted.any():
            epochs, mask = runs.epochs[:, predicted], runs.mask[:, predicted]
            _draw_line(axes, arm, epochs, mask, runs.color, marker="o", markersize=4, linewidth=0.8)
    axes.set(xlim=(0, None), ylim=(0, 1.05 * axes.get_ylim()[1]))


def _draw_line(
    axes: Axes, arm: str, x: np.ndarray, y: np.ndarray, color: str, **style: Any
) -> None:
    x = np.median(x, axis=0)
    axes.plot(x, np.median(y, axis=0), color=color, label=arm, **{"linewidth": 1.8, **style})
    if len(y) > 1:
        axes.fill_between(x, y.min(axis=0), y.max(axis=0), color=color, alpha=0.15, linewidth=0)


def _draw_target(axes: Axes, target: float, scores: _Scores, crossing: str) -> None:
    if not np.isfinite(target):
        return
    axes.axhline(target, color=COLORS[BASE], linestyle=(0, (4, 3)), linewidth=1)
    axes.annotate(
        "base's best",
        (0, target),
        xycoords=("axes fraction", "data"),
        xytext=(4, -3),
        textcoords="offset points",
        va="top",
        fontsize=9,
        color=COLORS[BASE],
    )
    colors = {line.get_label(): line.get_color() for line in axes.lines}
    for arm, seeds in scores.items():
        x = spread(getattr(seed, crossing) for seed in seeds).median
        if x is not None:
            axes.plot(x, target, "o", color=colors[arm], markeredgecolor="white", zorder=3)


def masked_arms(records: Sequence[Record]) -> list[str]:
    """The arms whose mask is known by layer."""
    found = [row.arm for row in records if isinstance(row, EpochRecord) and row.layer_mask_ratios]
    ended = {row.arm for row in records if isinstance(row, EndRecord) and row.layers}
    return [arm for arm in dict.fromkeys(found) if arm in ended]


def mask_ratios(records: Sequence[Record], arm: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Layers, epochs with a prediction, and (layers, epochs) means over seeds of the mask ratio."""
    layers = next(
        row.layers
        for row in records
        if isinstance(row, EndRecord) and row.arm == arm and row.layers
    )
    epochs: dict[int, list[list[float]]] = {}
    for row in records:
        if isinstance(row, EpochRecord) and row.arm == arm and row.layer_mask_ratios:
            epochs.setdefault(row.epoch, []).append(row.layer_mask_ratios)
    ordered = sorted(epochs)
    means = np.array([np.mean(epochs[epoch], axis=0) for epoch in ordered]).T
    return layers, np.array(ordered), means


def draw_mask(records: Sequence[Record], arm: str) -> Figure:
    """Draws the lines of the weight matrices above the heatmap of all layers."""
    layers, epochs, means = mask_ratios(records, arm)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.2 + 0.28 * len(layers)), layout="constrained")
        figure.suptitle(f"mask by layer, arm {arm}, mean over seeds", x=0.01, ha="left")
        above, below = figure.subplots(2, 1, height_ratios=[2.4, 0.4 + 0.28 * len(layers)])
        matrices = [i for i, name in enumerate(layers) if not name.endswith(("bias", "scale"))]
        colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(matrices)))
        for color, index in zip(colors, matrices, strict=True):
            above.plot(epochs, means[index], "o-", color=color, label=layers[index], markersize=3)
        above.set(title="coordinates that took the prediction", ylim=(0, None))
        above.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        if len(matrices) <= 12:
            above.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
        image = below.imshow(
            means, aspect="auto", cmap="magma", vmin=0, vmax=max(means.max(), 1e-6)
        )
        below.grid(visible=False)
        below.set_yticks(range(len(layers)), layers, fontsize=8)
        shown = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 12)).astype(int))
        below.set_xticks(shown, epochs[shown])
        below.set_xlabel("epoch")
        below.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=below, pad=0.01)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        above.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
