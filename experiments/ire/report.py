"""Tables and picture of the language model study, from its records alone."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from experiments.ire.language import Mask
from experiments.reports import tables

# Name and colour of each mask.
MASKS: Mapping[str, tuple[str, str]] = {
    "none": ("AdamW", "#4d4d4d"),
    "flat": ("IRE (flat)", "#0072B2"),
    "random": ("random mask", "#D55E00"),
    "sharp": ("sharp mask", "#CC79A7"),
}


def write(run_dir: pathlib.Path, rows: Sequence[dict[str, Any]]) -> str:
    """Writes tables and picture into the folder of a study and returns the tables."""
    text = summary(rows)
    (run_dir / "summary.md").write_text(text)
    draw(rows).savefig(run_dir / "summary.png")
    return text


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """The tables of a study in Markdown."""
    ends: dict[tuple[str, float, int], list[float]] = {}
    for row in rows:
        if row["stage"] in ("report", "longer", "best"):
            name = _name(row) if row["stage"] == "best" else MASKS[row["mask"]][0]
            key = (name, row["learning_rate"], row["steps"])
            ends.setdefault(key, []).append(row["validation_losses"][-1])
    heading = ["arm", "learning rate", "steps", "seeds"]
    heading += ["final validation loss, mean", "over seeds"]
    lines = []
    for (name, rate, steps), losses in ends.items():
        mean, between = f"{np.mean(losses):.3f}", f"{min(losses):.3f} to {max(losses):.3f}"
        lines.append([name, f"{rate:g}", str(steps), str(len(losses)), mean, between])
    parts = [tables.grid(heading, lines, labels=1)]
    for stage, title in (("tune", "The tuning seed"), ("trial", "Trials, on the tuning seed")):
        lines = [
            [_name(row), f"{row['learning_rate']:g}", f"{row['validation_losses'][-1]:.3f}"]
            for row in rows
            if row["stage"] == stage
        ]
        heading = ["arm", "learning rate", "final validation loss"]
        parts += [f"{title}:", tables.grid(heading, lines, labels=1)]
    lines = []
    for row in (row for row in rows if row["stage"] == "flatness"):
        names = [MASKS[row["mask"]][0], str(row["seed"]), str(row["steps"])]
        trace = f"{row['trace']:.0f} ± {row['trace_error']:.0f}"
        loss, top = f"{row['validation_loss']:.3f}", f"{row['top_eigenvalue']:.1f}"
        lines.append([*names, loss, trace, top])
    heading = ["arm", "seed", "steps", "validation loss", "trace", "largest eigenvalue"]
    title = "Hessian of the loss on a quarter of the validation rows, trace with standard error:"
    return "\n\n".join([*parts, title, tables.grid(heading, lines, labels=1)]) + "\n"


def _name(row: dict[str, Any]) -> str:
    """The arm of a run, with what is not as usual."""
    usual = dataclasses.asdict(Mask())
    settings = {name: row[name] for name in usual if name in row and name != "mask"}
    shown = [f"{n} {v:g}" for n, v in settings.items() if n in ("kappa", "gamma")]
    shown += [
        f"{name} {value}"
        for name, value in settings.items()
        if name not in ("kappa", "gamma") and value != usual[name]
    ]
    return ", ".join([MASKS[row["mask"]][0], *(shown if row["mask"] != "none" else [])])


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draws the validation losses of the reported runs, and of the tuning runs over the rate."""
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    curves, tuning = figure.subplots(1, 2)
    for mask, (label, color) in MASKS.items():
        runs = [r for r in rows if r["stage"] == "report" and r["mask"] == mask]
        losses = np.array([r["validation_losses"] for r in runs])
        if runs:
            steps = runs[0]["steps"] * (1 + np.arange(losses.shape[1])) / losses.shape[1]
            curves.plot(steps, losses.mean(0), color=color, label=label)
            curves.fill_between(
                steps, losses.min(0), losses.max(0), color=color, alpha=0.15, linewidth=0
            )
        tuned = [r for r in rows if r["stage"] == "tune" and r["mask"] == mask]
        tuning.plot(
            [r["learning_rate"] for r in tuned],
            [r["validation_losses"][-1] for r in tuned],
            "o-",
            color=color,
            label=label,
        )
    curves.set(title="learning rate tuned per arm", xlabel="step", ylabel="validation loss, nats")
    curves.legend(frameon=False)
    tuning.set(title="the tuning seed", xlabel="learning rate", xscale="log")
    tuning.set_xticks(
        [0.0007, 0.001, 0.002, 0.004, 0.006], ["0.0007", "0.001", "0.002", "0.004", "0.006"]
    )
    tuning.minorticks_off()
    tuning.set_ylabel("final validation loss, nats")
    for axes in (curves, tuning):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure
