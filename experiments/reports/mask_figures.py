"""Pictures of the mask by layer: its ratio over time, and as a heatmap of layer and epoch."""

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
import numpy as np

from experiments.reports.figures import STYLE
from experiments.runs.records import EndRecord, EpochRecord, Record


def arms(records: Sequence[Record]) -> list[str]:
    """The arms whose mask is known by layer."""
    found = [row.arm for row in records if isinstance(row, EpochRecord) and row.layer_mask_ratios]
    ended = {row.arm for row in records if isinstance(row, EndRecord) and row.layers}
    return [arm for arm in dict.fromkeys(found) if arm in ended]


def ratios(records: Sequence[Record], arm: str) -> tuple[list[str], np.ndarray, np.ndarray]:
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


def draw(records: Sequence[Record], arm: str) -> Figure:
    """Draws the lines of the weight matrices above the heatmap of all layers."""
    layers, epochs, means = ratios(records, arm)
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
