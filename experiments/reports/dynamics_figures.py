"""Pictures of training dynamics, drawn from what the functions of `pdt_optax` return."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
import numpy as np

from experiments.reports.figures import COLORS, STYLE

_styled = matplotlib.rc_context(STYLE)
_TIME_MAP = matplotlib.colormaps["viridis"]
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4d4d4d", "#7B3FA0")


def by_leaf(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree by their paths, such as 'hidden/kernel'."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


@_styled
def eigenvalues(spectra: Mapping[float, np.ndarray], time: str = "epoch") -> Figure:
    """Eigenvalues in the complex plane, whole and near one, coloured by time.

    Args:
      spectra: time -> eigenvalues.
      time: what the times are.
    """
    figure = _figure(9, 4.6)
    whole, near = figure.subplots(1, 2)
    norm = Normalize(min(spectra), max(spectra))
    angles = np.linspace(0, 2 * np.pi, 400)
    for axes in (whole, near):
        axes.plot(np.cos(angles), np.sin(angles), color=COLORS["base"], linewidth=0.8)
        axes.axhline(0, color=COLORS["base"], linewidth=0.4)
        for when, values in spectra.items():
            color = _TIME_MAP(norm(when))
            axes.scatter(
                np.real(values), np.imag(values), s=22, color=color, alpha=0.85, linewidth=0
            )
        axes.set(aspect="equal", xlabel="real part", ylabel="imaginary part")
    everything = np.concatenate(list(spectra.values()))
    reach = max(1.1, 1.05 * np.abs(everything).max())
    whole.set(title="eigenvalues", xlim=(-reach, reach), ylim=(-reach, reach))
    near.set(title="near one", xlim=(0.75, 1.1), ylim=(-0.175, 0.175))
    _colorbar(figure, [whole, near], _TIME_MAP, norm, time)
    return figure


@_styled
def paths(
    actual: Mapping[float, np.ndarray],
    predicted: Mapping[float, Mapping[float, np.ndarray]],
    names: Sequence[str],
    time: str = "epoch",
) -> Figure:
    """Actual paths of some weights, and those predicted from some points on.

    Args:
      actual: time -> weights, ``(n,)``.
      predicted: time of the newest known snapshot -> (time -> predicted weights).
      names: of the weights.
      time: what the times are.
    """
    figure = _figure(10, 1.0 + 2.1 * -(-len(names) // 3))
    grid = figure.subplots(-(-len(names) // 3), 3, squeeze=False, sharex=True).flat
    for number, axes in enumerate(grid):
        if number >= len(names):
            axes.set_axis_off()
            continue
        values = np.array([weights[number] for weights in actual.values()])
        axes.plot(list(actual), values, color=COLORS["base"], label="actual")
        for color, (start, path) in zip(_LINES, predicted.items(), strict=False):
            guess = [actual[start][number], *(weights[number] for weights in path.values())]
            axes.plot([start, *path], guess, color=color, linestyle=(0, (4, 2)), linewidth=1.6)
            axes.plot(start, guess[0], "o", color=color, markersize=4)
        spread = np.ptp(values) or 1.0
        axes.set(title=names[number], ylim=(values.min() - spread / 3, values.max() + spread / 3))
        if number + 3 >= len(names):
            axes.set_xlabel(time)
    note = "Grey: trained. Dashed: predicted from the snapshots up to the dot."
    figure.supxlabel(note, x=0.01, ha="left", size=9)
    return figure


@_styled
def errors_by_horizon(errors: Mapping[str, np.ndarray], title: str = "prediction error") -> Figure:
    """Median prediction error against the horizon, a line for each leaf; drawn up to 3.

    Args:
      errors: leaf -> errors, ``(starts, horizon)``, nan where unknown.
      title: what is shown.
    """
    figure = _figure(8, 4.2)
    axes = figure.subplots()
    for color, (leaf, values) in zip(_LINES, errors.items(), strict=False):
        horizons = np.arange(1, values.shape[1] + 1)
        known = np.isfinite(values).any(axis=0)
        median = np.nanmedian(values[:, known], axis=0)
        axes.plot(horizons[known], median, color=color, label=leaf, marker="o", markersize=3)
    axes.axhline(1, color=COLORS["base"], linestyle=(0, (4, 3)), linewidth=1)
    axes.set(title=title, xlabel="snapshots ahead", ylim=(0, min(3, axes.get_ylim()[1])))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    note = "Median over starting points, in units of the true displacement. Dashed: no move at all."
    figure.supxlabel(note, x=0.01, ha="left", size=9)
    return figure


@_styled
def heatmap(
    rows: Mapping[str, np.ndarray],
    columns: Sequence[float],
    title: str,
    *,
    xlabel: str = "epoch",
    limits: tuple[float, float] | None = None,
    log: bool = False,
    percent: bool = False,
) -> Figure:
    """One row of colours for each leaf.

    Args:
      rows: leaf -> values, one a column.
      columns: what the columns are.
      title: what is shown.
      xlabel: what the columns are, in a word.
      limits: of the colours; by default those of the values.
      log: whether the colours are logarithmic.
      percent: whether the values are shares.
    """
    values = np.stack(list(rows.values()))
    figure = _figure(10, 1.3 + 0.32 * len(rows))
    axes = figure.subplots()
    least, most = limits or (np.nanmin(values), np.nanmax(values))
    norm = LogNorm(least, most) if log else Normalize(least, most)
    edges = np.arange(len(columns) + 1)
    axes.pcolormesh(edges, np.arange(len(rows) + 1), values, cmap="magma_r", norm=norm)
    every = -(-len(columns) // 15)
    axes.set_xticks(edges[:-1:every] + 0.5, [f"{column:g}" for column in columns[::every]])
    axes.set_yticks(np.arange(len(rows)) + 0.5, list(rows))
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set(title=title, xlabel=xlabel)
    bar = _colorbar(figure, [axes], matplotlib.colormaps["magma_r"], norm, "")
    if percent:
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return figure


@_styled
def distances(matrix: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Distances between runs, ``(n, n)``, with their values."""
    figure = _figure(1.6 + 0.62 * len(names), 1.3 + 0.55 * len(names))
    axes = figure.subplots()
    shades = axes.imshow(matrix, cmap="magma_r", vmin=0)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=45, ha="right")
    axes.set_yticks(ticks, names)
    axes.grid(visible=False)
    axes.set_title(title)
    for (row, column), value in np.ndenumerate(matrix):
        color = "white" if value > matrix.max() / 2 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, size=8)
    figure.colorbar(shades, ax=axes, shrink=0.8)
    return figure


@_styled
def curves(
    lines: Mapping[str, np.ndarray], title: str, *, time: str = "epoch", log: bool = True
) -> Figure:
    """A line for each run, such as its loss at the end of each epoch.

    Args:
      lines: run -> values, from time 1 on; the first is drawn in grey.
      title: what is shown.
      time: what the times are.
      log: whether the axis is logarithmic.
    """
    figure = _figure(8, 4.2)
    axes = figure.subplots()
    colors = (COLORS["base"], *_LINES[:6], _LINES[7])
    for color, (name, values) in zip(colors, lines.items(), strict=False):
        axes.plot(np.arange(1, len(values) + 1), values, color=color, label=name, linewidth=1.8)
    axes.set(title=title, xlabel=time)
    if log:
        axes.set_yscale("log")
    if len(lines) > 1:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _colorbar(
    figure: Figure, axes: Sequence[Axes], colors: Colormap, norm: Normalize, label: str
) -> Any:
    mappable = ScalarMappable(norm, colors)
    bar = figure.colorbar(mappable, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return bar
