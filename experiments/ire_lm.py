"""Compares AdamW with IRE, and with random and sharp masks, on a character language model.

Tunes the learning rate of each arm on one seed, then trains each with its best on other seeds;
AdamW for more steps as well. Ends with a table and a picture, all computed from `records.jsonl`.

Example:
  python -m experiments.ire_lm --run_dir=runs/ire_lm
  python -m experiments.ire_lm --run_dir=experiments/results/ire_lm --report
"""

from collections.abc import Mapping, Sequence
import pathlib
import sys
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np

from experiments import cli, flatness, language, records
from experiments.language import EVALUATE_EVERY, Arm

_RUN_DIR = flags.DEFINE_string("run_dir", "runs/ire_lm", "Folder of records, table and picture.")
_REPORT = flags.DEFINE_bool("report", False, "Only write the report of a finished study.")
_STEPS = flags.DEFINE_integer(
    "steps", 400, f"Steps of a run, a multiple of {EVALUATE_EVERY}.", lower_bound=EVALUATE_EVERY
)
_KAPPA = flags.DEFINE_float("ire_kappa", 4.0, "How much larger masked steps are.", lower_bound=0.0)
_GAMMA = flags.DEFINE_float("ire_gamma", 0.6, "Part of the coordinates in a mask.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds that are reported.")
_TUNING_SEED = flags.DEFINE_integer("tuning_seed", 1000, "Seed on which arms are tuned.")

RATES: Mapping[str, Sequence[float]] = {
    "none": (2e-3, 3e-3, 4e-3, 6e-3),
    "flat": (1e-3, 1.5e-3, 2e-3, 3e-3),
    "random": (0.7e-3, 1e-3, 1.5e-3, 2e-3),
    "sharp": (0.7e-3, 1e-3, 1.5e-3, 2e-3),
}
# What was tried besides, on the tuning seed alone: (kappa, gamma, chunks, learning rate).
TRIALS = (
    (2.0, 0.6, 16, 2e-3),
    (8.0, 0.6, 16, 1e-3),
    (4.0, 0.8, 16, 1e-3),
    (4.0, 0.6, 4, 2e-3),
)
LONGER = (1.2, 1.4)
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


def main() -> None:
    """Runs the program."""
    run_dir = pathlib.Path(_RUN_DIR.value)
    if not _REPORT.value:
        _study(run_dir)
    try:
        rows = records.read_rows(run_dir)
    except OSError as error:
        sys.exit(f"flag --run_dir: {error}")
    print(_write(run_dir, rows))


def _study(run_dir: pathlib.Path) -> None:
    if _STEPS.value % EVALUATE_EVERY:
        sys.exit(f"flag --steps: must be a multiple of {EVALUATE_EVERY}.")
    try:
        records.start(
            run_dir, {f.name: f.value for f in (_STEPS, _KAPPA, _GAMMA, _SEEDS, _TUNING_SEED)}
        )
    except (OSError, ValueError) as error:
        sys.exit(f"flag --run_dir: {error}")
    steps, seeds = _STEPS.value, [int(seed) for seed in _SEEDS.value]
    arms = {mask: _arm(mask) for mask in language.MASKS}
    best = {}
    for mask, arm in arms.items():
        losses = {
            rate: _run(run_dir, "tune", arm, rate, steps, _TUNING_SEED.value)[0]
            for rate in RATES[mask]
        }
        best[mask] = min(RATES[mask], key=losses.__getitem__)
    pairs = []
    for seed in seeds:
        for mask, arm in arms.items():
            result = _run(run_dir, "report", arm, best[mask], steps, seed)[1]
            if seed == seeds[0] and mask in ("none", "flat"):
                pairs.append((mask, steps, result.params))
    for factor in LONGER:
        length = round(factor * steps / EVALUATE_EVERY) * EVALUATE_EVERY
        for seed in seeds:
            result = _run(run_dir, "longer", arms["none"], best["none"], length, seed)[1]
            if seed == seeds[0]:
                pairs.append(("none", length, result.params))
    for mask, length, params in pairs:
        records.append_row(
            run_dir, {"stage": "flatness", "mask": mask, "steps": length, **_flatness(params)}
        )
    for kappa, gamma, chunks, rate in TRIALS:
        _run(run_dir, "trial", Arm("flat", kappa, gamma, chunks), rate, steps, _TUNING_SEED.value)


def _arm(mask: str) -> Arm:
    return Arm() if mask == "none" else Arm(mask, _KAPPA.value, _GAMMA.value)


def _run(
    run_dir: pathlib.Path, stage: str, arm: Arm, rate: float, steps: int, seed: int
) -> tuple[float, language.Result]:
    start = time.perf_counter()
    result = jax.block_until_ready(language.run(arm, rate, steps, seed))
    losses = [round(float(loss), 5) for loss in result.losses]
    row = {
        "stage": stage,
        "mask": arm.mask,
        "kappa": arm.kappa,
        "gamma": arm.gamma,
        "num_chunks": arm.num_chunks,
        "learning_rate": rate,
        "steps": steps,
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 2),
        "validation_losses": losses,
    }
    records.append_row(run_dir, row)
    print(f"{stage:8} {arm.name:28} rate {rate:g}, {steps} steps, seed {seed}: {losses[-1]:.4f}")
    return losses[-1] if np.isfinite(losses[-1]) else np.inf, result


def _flatness(params: Any) -> dict[str, float]:
    rows = jnp.asarray(language.validation_rows())
    lm = language.model()

    def loss(params: Any) -> jax.Array:
        return lm.loss(params, rows)

    trace = flatness.trace(loss, params, jax.random.key(5), num_probes=32)
    return {
        "validation_loss": round(float(loss(params)), 5),
        "trace": round(trace.mean, 3),
        "trace_error": round(trace.error, 3),
        "top_eigenvalue": round(flatness.top_eigenvalue(loss, params, 1e-2), 3),
    }


def _write(run_dir: pathlib.Path, rows: Sequence[dict[str, Any]]) -> str:
    text = summary(rows)
    (run_dir / "summary.md").write_text(text)
    draw(rows).savefig(run_dir / "summary.png")
    return text


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """The tables of a study in Markdown."""
    lines = [
        "| arm | learning rate | steps | final validation loss, mean | over seeds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    ends: dict[tuple[str, float, int], list[float]] = {}
    for row in rows:
        if row["stage"] in ("report", "longer"):
            key = (row["mask"], row["learning_rate"], row["steps"])
            ends.setdefault(key, []).append(row["validation_losses"][-1])
    for (mask, rate, steps), losses in ends.items():
        lines.append(
            f"| {LABELS[mask]} | {rate:g} | {steps} | {np.mean(losses):.3f} | "
            f"{min(losses):.3f} to {max(losses):.3f} |"
        )
    lines += ["", "On the tuning seed:", "", "| arm | kappa | gamma | chunks | rate | loss |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {LABELS[r['mask']]} | {r['kappa']:g} | {r['gamma']:g} | {r['num_chunks']} | "
        f"{r['learning_rate']:g} | {r['validation_losses'][-1]:.3f} |"
        for r in rows
        if r["stage"] in ("tune", "trial")
    ]
    lines += ["", "Hessian of the validation loss after training, first seed:", ""]
    lines += ["| arm | steps | validation loss | trace | largest eigenvalue |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {LABELS[r['mask']]} | {r['steps']} | {r['validation_loss']:.3f} | "
        f"{r['trace']:.0f} ± {r['trace_error']:.0f} | {r['top_eigenvalue']:.1f} |"
        for r in rows
        if r["stage"] == "flatness"
    ]
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draws the validation losses of the reported runs, and of the tuning runs over the rate."""
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    curves, tuning = figure.subplots(1, 2)
    for mask, label in LABELS.items():
        color = COLORS[mask]
        runs = [r for r in rows if r["stage"] == "report" and r["mask"] == mask]
        losses = np.array([r["validation_losses"] for r in runs])
        if runs:
            steps = EVALUATE_EVERY * (1 + np.arange(losses.shape[1]))
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
    tuning.set_ylabel("final validation loss, nats")
    for axes in (curves, tuning):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure


if __name__ == "__main__":
    cli.run(main)
