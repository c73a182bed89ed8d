"""Solutions that a study has kept, beside the reference."""

from collections.abc import Sequence
import math
import pathlib

from matplotlib.figure import Figure
import numpy as np

from experiments.science import pictures, rivals, runs, tasks


def draw(folder: pathlib.Path, shown: Sequence[runs.Run]) -> Figure:
    """Solutions of one task and seed beside the reference."""
    setting = shown[0].setting
    field = tasks.make(setting.task).field
    assert field is not None
    labels = [rivals.ALL[run.setting.method].label for run in shown]
    predicted = [np.load(runs.field_path(folder, run.setting)) for run in shown]
    words = [merit(setting.task, run.final_error) for run in shown]
    return pictures.draw_field(
        field,
        dict(zip(labels, predicted, strict=True)),
        dict(zip(labels, words, strict=True)),
        f"{setting.problem.replace('_', ' ').capitalize()}, seed {setting.seed}, after "
        f"{setting.seconds:g} seconds of training",
    )


def merit(task: str, error: float) -> str:
    """An error in words: decibels for the image, percent otherwise."""
    if task == "image":
        return f"held-out PSNR {-20 * math.log10(error):.1f} dB"
    return f"relative error {percent(error)}"


def percent(error: float) -> str:
    """Two digits, and all before the point."""
    return f"{100 * error:.0f} %" if error >= 0.095 else f"{100 * error:.2g} %"
