"""The picture of a run: train loss and validation accuracy over epochs and seconds, mask ratio."""

from collections.abc import Iterable, Mapping, Sequence
import itertools
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    MultipleLocator,
    NullFormatter,
    PercentFormatter,
)
import numpy as np

from experiments.reports.time_to_target import BASE, Score, by_arm, score, spread
from experiments.runs.records import EpochRecord, Record

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
_LABEL_HEIGHT = 13.0  # Points.
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
        figure.draw_without_rendering()
        for axes in figure.axes:
            _label_ends(axes)
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


def _label_ends(axes: Axes) -> None:
    """Names each line at the right edge, at the height of its end or as near as there is room."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    ends = {line: _last_point(line) for line in named if np.isfinite(line.get_ydata()).any()}
    if not ends:
        return
    points = 72 / figure.dpi
    floor, ceiling = points * axes.bbox.y0, points * axes.bbox.y1
    heights = points * axes.transData.transform(list(ends.values()))[:, 1]
    places = _apart(np.clip(heights, floor, ceiling), _LABEL_HEIGHT, ceiling)
    for line, place in zip(ends, places, strict=True):
        axes.annotate(
            str(line.get_label()),
            (1, (place - floor) / (ceiling - floor)),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=line.get_color(),
            weight="bold",
        )


def _last_point(line: Line2D) -> np.ndarray:
    points = np.asarray(line.get_xydata())
    return points[np.isfinite(points).all(axis=1)][-1]


def _apart(heights: np.ndarray, distance: float, ceiling: float) -> np.ndarray:
    """Moves heights as little as it takes to keep neighbours the distance apart, below the ceiling.

    In order and less their rank times the distance, the heights must not fall: isotonic regression,
    which pools neighbours that do and centres each pool on its mean.
    """
    order = np.argsort(heights)
    steps = distance * np.arange(len(heights))
    pools: list[list[float]] = []
    for height in heights[order] - steps:
        pools.append([height])
        while len(pools) > 1 and np.mean(pools[-2]) >= np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    pooled = np.concatenate([np.full(len(pool), np.mean(pool)) for pool in pools])
    return (np.minimum(pooled, ceiling - steps[-1]) + steps)[np.argsort(order)]
