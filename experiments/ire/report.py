"""Tables and picture of the language model study, from its records alone."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from experiments.ire.language import Arm

COLORS: Mapping[str, str] = {
    "none": "#4d4d4d",
    "flat": "#0072B2",
    "random": "#D55E00",
    "sharp": "#CC79A7",
}
LABELS: Mapping[str, str] = {
    "none": "AdamW",
    "flat": "IRE (flat)",
    "random": "random mask",
    "sharp": "sharp mask",
}


def write(run_dir: pathlib.Path, rows: Sequence[dict[str, Any]]) -> str:
    """Writes tables and picture into the folder of a study and returns the tables."""
    text = summary(rows)
    (run_dir / "summary.md").write_text(text)
    draw(rows).savefig(run_dir / "summary.png")
    return text


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """The tables of a study in Markdown."""
    lines = [
        "| arm | learning rate | steps | seeds | final validation loss, mean | over seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    ends: dict[tuple[str, float, int], list[float]] = {}
    for row in rows:
        if row["stage"] in ("report", "longer", "best"):
            name = _name(row) if row["stage"] == "best" else LABELS[row["mask"]]
            key = (name, row["learning_rate"], row["steps"])
            ends.setdefault(key, []).append(row["validation_losses"][-1])
    for (name, rate, steps), losses in ends.items():
        lines.append(
            f"| {name} | {rate:g} | {steps} | {len(losses)} | "
            f"{np.mean(losses):.3f} | "
            f"{min(losses):.3f} to {max(losses):.3f} |"
        )
    for stage, title in (("tune", "The tuning seed"), ("trial", "Trials, on the tuning seed")):
        lines += ["", f"{title}:", ""]
        lines += ["| arm | learning rate | final validation loss |", "| --- | ---: | ---: |"]
        lines += [
            f"| {_name(row)} | {row['learning_rate']:g} | {row['validation_losses'][-1]:.3f} |"
            for row in rows
            if row["stage"] == stage
        ]
    lines += [
        "",
        "Hessian of the loss on a quarter of the validation rows, trace with standard error:",
        "",
    ]
    lines += ["| arm | seed | steps | validation loss | trace | largest eigenvalue |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {LABELS[r['mask']]} | {r['seed']} | {r['steps']} | {r['validation_loss']:.3f} | "
        f"{r['trace']:.0f} ± {r['trace_error']:.0f} | {r['top_eigenvalue']:.1f} |"
        for r in rows
        if r["stage"] == "flatness"
    ]
    return "\n".join(lines) + "\n"


def _name(row: dict[str, Any]) -> str:
    """The arm of a run, with what is not as usual."""
    usual = dataclasses.asdict(Arm())
    settings = {name: row[name] for name in usual if name in row and name != "mask"}
    shown = [f"{n} {v:g}" for n, v in settings.items() if n in ("kappa", "gamma")]
    shown += [
        f"{name} {value}"
        for name, value in settings.items()
        if name not in ("kappa", "gamma") and value != usual[name]
    ]
    return ", ".join([LABELS[row["mask"]], *(shown if row["mask"] != "none" else [])])


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draws the validation losses of the reported runs, and of the tuning runs over the rate."""
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    curves, tuning = figure.subplots(1, 2)
    for mask, label in LABELS.items():
        color = COLORS[mask]
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
