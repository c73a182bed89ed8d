"""Does the linearised network tell, before training, when DMD predicts the weights well?

A snapshot of the weights is taken after every epoch of fine-tuning, and DMD of the last five
predicts the fifth one ahead. The same is done with the outputs of the linearised network, which
are known without training; its batches are drawn independently. Compared are the errors of the two,
over the epochs. Ends with a table and a picture, computed from `records.jsonl`.

Example:
  python -m experiments.training_time.dmd --run_dir=runs/predict_dmd
"""

from collections.abc import Mapping, Sequence
import pathlib
import sys
from typing import Any

from absl import flags
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
import numpy as np
import optax

from experiments import cli
from experiments.runs import records
from experiments.training_time import fine_tuning, transfer
from experiments.training_time.fine_tuning import GRID, LOSSES, Task
import pdt_optax

_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of network, data and batches.")
_SAMPLES = flags.DEFINE_integer("samples", 1000, "Digits to fine-tune on.", 256, 1797)
_EPOCHS = flags.DEFINE_integer("epochs", 60, "Epochs of each run.", lower_bound=20)
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/predict_dmd", "Folder of records and picture.")
HISTORY, HORIZON = 5, 5
_COLORS: Mapping[str, str] = {"trained": "#4d4d4d", "predicted": "#D55E00"}
_NAMES: Mapping[str, str] = {"mse": "squared error", "softmax_cross_entropy": "cross-entropy"}


def main() -> None:
    """Runs the program."""
    run_dir = pathlib.Path(_RUN_DIR.value)
    try:
        records.start(run_dir, {f.name: f.value for f in (_SEEDS, _SAMPLES, _EPOCHS)})
    except (OSError, ValueError) as error:
        sys.exit(f"flag --run_dir: {error}")
    for seed in map(int, _SEEDS.value):
        task = fine_tuning.task("pretrained", seed, _SAMPLES.value)
        for loss in LOSSES:
            row = {"seed": seed, "loss": loss, **_trained(task, loss, seed)}
            records.append_row(run_dir, {**row, **_predicted(task, loss, seed)})
    rows = records.read_rows(run_dir)
    text = summary(rows)
    (run_dir / "summary.md").write_text(text)
    draw(rows).savefig(run_dir / "summary.png")
    print(text)


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Median errors, and rank correlations of that of the weights over epochs, in Markdown.

    Correlated with it are the error on the linearised outputs, and how far the predicted loss falls
    until the predicted epoch.
    """
    lines = [
        "| loss | seed | error: weights | linearised outputs | correlation: outputs | loss |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        weights, outputs = row["error_weights"], row["error_outputs"]
        losses = np.log(row["loss_predicted"])
        fall = (losses[:-HORIZON] - losses[HORIZON:])[HISTORY - 1 :]
        lines.append(
            f"| {_NAMES[row['loss']]} | {row['seed']} | {np.median(weights):.2f} | "
            f"{np.median(outputs):.2f} | {_correlation(weights, outputs):+.2f} | "
            f"{_correlation(weights, fall):+.2f} |"
        )
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses, and the errors of DMD on weights and on linearised outputs, over epochs."""
    figure = Figure(figsize=(10, 6.5), dpi=150, layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    for column, loss in enumerate(LOSSES):
        losses, errors = panels[:, column]
        for row in rows:
            if row["loss"] != loss:
                continue
            for kind, name in (
                ("trained", "weights, trained"),
                ("predicted", "outputs, predicted"),
            ):
                label = "_" if row["seed"] != rows[0]["seed"] else None
                style = {"color": _COLORS[kind], "linewidth": 1.2, "alpha": 0.8}
                values = np.array(row[f"loss_{kind}"])
                losses.plot(values / values[0], label=label or kind, **style)
                found = row["error_weights" if kind == "trained" else "error_outputs"]
                epochs = HISTORY - 1 + np.arange(len(found))
                errors.plot(epochs, found, label=label or name, **style)
        losses.set(title=_NAMES[loss], yscale="log", ylabel="loss / initial loss")
        errors.axhline(1, color="#bbbbbb", linewidth=0.8, zorder=0)
        errors.set(xlabel="epoch of the prediction", yscale="log")
        errors.set(ylabel=f"error of DMD, {HORIZON} epochs ahead")
        for axes in (losses, errors):
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        losses.legend(frameon=False)
        top = 2 * max(max(row["error_weights"] + row["error_outputs"]) for row in rows)
        errors.set_ylim(None, top)
        errors.legend(frameon=False, loc="upper left", ncols=2)
        for axes in (losses, errors):
            axes.spines[["top", "right"]].set_visible(False)
    return figure


def _correlation(a: Any, b: Any) -> float:
    """Spearman's, the correlation of the ranks."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def _batches(key: jax.Array, samples: int, batch_size: int) -> np.ndarray:
    """Indices of the examples, (epochs, steps, batch size)."""
    per_epoch = samples // batch_size
    steps = per_epoch * _EPOCHS.value
    found = pdt_optax.training_time.sample_batches(key, samples, batch_size, steps, "reshuffle")
    return found.reshape(_EPOCHS.value, per_epoch, batch_size)


def _errors(snapshots: Sequence[np.ndarray]) -> list[float]:
    found = pdt_optax.dynamics.prediction_errors(snapshots, history=HISTORY, horizon=HORIZON)
    return [float(f"{error:.4g}") for error in found[: 1 - HORIZON or None, -1]]


def _trained(task: Task, loss: str, seed: int) -> dict[str, Any]:
    setting = GRID[0]
    tx = optax.sgd(setting.part * task.limit)
    images, targets = jnp.asarray(task.images), jnp.asarray(task.targets)

    def step(params, batch):
        def mean(params):
            return fine_tuning.mean_loss(loss, params, images[batch], targets[batch])

        updates, _ = tx.update(jax.grad(mean)(params), tx.init(params))
        return optax.apply_updates(params, updates), None

    def epoch(params, batches):
        params = jax.lax.scan(step, params, batches)[0]
        return params, (
            ravel_pytree(params)[0],
            fine_tuning.mean_loss(loss, params, images, targets),
        )

    batches = _batches(jax.random.key(seed), len(images), setting.batch_size)
    weights, losses = jax.jit(lambda p: jax.lax.scan(epoch, p, batches)[1])(task.params)
    start = ravel_pytree(task.params)[0], fine_tuning.mean_loss(loss, task.params, images, targets)
    snapshots = [np.asarray(start[0]), *np.asarray(weights)]
    return {
        "loss_trained": np.round([float(start[1]), *losses.tolist()], 6).tolist(),
        "error_weights": _errors(snapshots),
    }


def _predicted(task: Task, loss: str, seed: int) -> dict[str, Any]:
    setting = GRID[0]
    batches = _batches(jax.random.key(seed + 100), len(task.images), setting.batch_size)
    outputs = np.asarray(transfer.apply(task.params, jnp.asarray(task.images)), np.float64)
    snapshots, losses = [outputs], []
    for epoch in batches:
        path = pdt_optax.training_time.function_space_sgd(
            task.kernel,
            snapshots[-1],
            task.targets,
            loss=loss,
            learning_rate=setting.part * task.limit,
            steps=len(epoch),
            batches=epoch,
        )
        snapshots.append(path.outputs)
        losses += path.loss[:: len(epoch)].tolist() if not losses else [path.loss[-1]]
    return {
        "loss_predicted": np.round(losses, 6).tolist(),
        "error_outputs": _errors([snapshot.astype(np.float32) for snapshot in snapshots]),
    }


if __name__ == "__main__":
    cli.run(main)
