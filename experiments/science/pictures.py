"""Pictures: loss against seconds, and solutions beside the reference at equal time."""

from collections.abc import Mapping, Sequence
import math

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
import numpy as np

from experiments.science import rivals, summary
from experiments.science.runs import Run
from experiments.science.tasks import Field

COLORS: Mapping[str, str] = {
    "adam": "#0072B2",
    "lbfgs": "#E69F00",
    "adam_lbfgs": "#8C6D00",
    "muon": "#56B4E9",
    "shampoo": "#CC79A7",
    "kron": "#7B5EA7",
    "lm": "#009E73",
    "extrapolate": "#999999",
    "verify": "#444444",
    "solve": "#D55E00",
    "muon_solve": "#8B1A1A",
}
"""Of each rival, told apart with any colour vision."""
COLUMNS = 3


def draw_losses(recorded: Sequence[Run]) -> Figure:
    """The least loss so far against seconds: median of the seeds, and their range as a band."""
    names = summary.problems(recorded)
    rows = math.ceil(len(names) / COLUMNS)
    columns = min(COLUMNS, len(names))
    figure = Figure(
        figsize=(max(3.2 * columns, 6), 2.5 * rows + 0.8), dpi=150, layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        of_problem = [run for run in recorded if run.setting.problem == name]
        for method in summary.methods(of_problem):
            _draw_method(axes, [run for run in of_problem if run.setting.method == method])
        axes.set_title(name, size=10)
        _set_decades(axes)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("seconds of training", size=10)
    figure.supylabel("least loss so far", size=10)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles, loc="outside upper center", ncols=min(4, len(handles)),
        frameon=False,
    )  # fmt: skip
    return figure


def _set_decades(axes: Axes) -> None:
    """A logarithmic axis of losses from a power of ten to a power of ten."""
    lines = np.concatenate([np.asarray(line.get_ydata()) for line in axes.lines])
    low, high = (float(end) for end in (np.nanmin(lines), np.nanmax(lines)))
    axes.set_yscale("log")
    if 0 < low <= high:
        axes.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high) + 1e-9))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_method(axes: Axes, seeds: Sequence[Run]) -> None:
    method = seeds[0].setting.method
    times = np.linspace(0, seeds[0].setting.seconds, 200)
    curves = np.stack([_least_so_far(run, times) for run in seeds])
    color = COLORS[method]
    width = 2.2 if method.endswith("solve") else 1.3
    label = rivals.ALL[method].label
    axes.plot(times, np.median(curves, 0), color=color, linewidth=width, label=label)
    axes.fill_between(times, curves.min(0), curves.max(0), color=color, alpha=0.15, linewidth=0)


def _least_so_far(run: Run, times: np.ndarray) -> np.ndarray:
    """The least loss at or before each time."""
    least = np.fmin.accumulate(np.asarray(run.loss))
    at = np.searchsorted(np.asarray(run.seconds), times, side="right") - 1
    return least[np.maximum(at, 0)]


def draw_field(
    field: Field, predicted: Mapping[str, np.ndarray], errors: Mapping[str, str], title: str
) -> Figure:
    """The reference, then each solution with its error below, logarithmic; a scale for each row.

    Args:
      field: what was to be found.
      predicted: label of the method to its (rows, columns) solution.
      errors: label to the words below it.
      title: of the picture.
    """
    columns = 1 + len(predicted)
    figure = Figure(figsize=(2.1 * columns + 0.7, 4.6), dpi=150, layout="constrained")
    panels = figure.subplots(2, columns, sharex=True, sharey=True, squeeze=False)
    reference = field.reference
    limit = {"vmin": reference.min(), "vmax": reference.max()}
    misses = {label: np.abs(values - reference) for label, values in predicted.items()}
    worst = max((float(np.quantile(miss, 0.995)) for miss in misses.values()), default=1.0) or 1.0
    decades = LogNorm(worst / 1000, worst, clip=True)
    colors = {"cmap": "gray" if field.is_photograph else "viridis", **limit}
    shown = {"origin": "lower", "extent": field.extent, "aspect": "auto"}
    top = panels[0, 0].imshow(reference, **shown, **colors)
    panels[0, 0].set_title("reference", size=10)
    panels[1, 0].set_axis_off()
    for column, (label, values) in enumerate(predicted.items(), 1):
        panels[0, column].imshow(values, **shown, **colors)
        panels[0, column].set_title(label, size=10)
        bottom = panels[1, column].imshow(misses[label], **shown, cmap="magma", norm=decades)
        panels[1, column].set_title(errors[label], size=9)
    if field.is_photograph:
        for axes in panels.ravel():
            axes.set(xticks=[], yticks=[])
    else:
        panels[0, 0].set_ylabel(field.labels[1])
        panels[1, 1].set_ylabel(field.labels[1])
        panels[1, 1].tick_params(labelleft=True)
        for axes in panels[1, 1:]:
            axes.set_xlabel(field.labels[0])
            axes.xaxis.set_major_locator(MaxNLocator(5, prune="upper"))
    label = "brightness" if field.is_photograph else "solution"
    figure.colorbar(top, ax=panels[0], label=label, aspect=18, pad=0.01)
    figure.colorbar(bottom, ax=panels[1], label="absolute error", aspect=18, pad=0.01)
    figure.suptitle(title, size=11)
    return figure
