"""Does the linearised network tell, before training, when DMD predicts the weights well?

A snapshot of the weights is taken after every epoch of fine-tuning, and DMD of the last five
predicts the fifth one ahead. The same is done with the outputs of the linearised network, which
are known without training; its batches are drawn independently. Compared are the errors of the two,
over the epochs. Ends with a table and a picture, computed from `records.jsonl`.

  python -m experiments.training_time.dmd --run_dir=runs/predict_dmd
"""

from collections.abc import Mapping, Sequence
import functools
import itertools
from typing import Any

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
import numpy as np
import optax
from scipy.stats import spearmanr

from experiments import cli
from experiments.data import Examples
from experiments.reports import tables
from experiments.runs.step import TrainState, start, stateless, train_step
from experiments.settings import Config, setting
from experiments.training_time.task import (
    GRID,
    LOSSES,
    FineTuning,
    apply,
    fine_tuning,
    mean_loss,
    of_numbers,
)
import pdt_optax

HISTORY, HORIZON = 5, 5
_COLORS: Mapping[str, str] = {"trained": "#4d4d4d", "predicted": "#D55E00"}


class Settings(Config):
    """What is trained, and where the records go."""

    seeds: tuple[int, ...] = setting((0, 1, 2), "Of network, data and batches.", least=0)
    samples: int = setting(1000, "Digits to fine-tune on.", least=256, most=1797)
    epochs: int = setting(60, "Of each run.", least=20)
    run_dir: str = setting("runs/predict_dmd", "Folder of records and picture.")


def main(config: Settings) -> None:
    """Runs the program."""
    given = {"seeds": config.seeds, "samples": config.samples, "epochs": config.epochs}
    done = cli.rows(config.run_dir, given)
    for seed, loss in itertools.product(config.seeds, LOSSES):
        if not done.has({"seed": seed, "loss": loss}):
            task = fine_tuning("pretrained", seed, config.samples)
            made = _trained(task, loss, seed, config.epochs)
            done.append(
                {"seed": seed, "loss": loss, **made, **_predicted(task, loss, seed, config.epochs)}
            )
    text = summary(done.rows)
    (done.run_dir / "summary.md").write_text(text)
    draw(done.rows).savefig(done.run_dir / "summary.png")
    print(text)


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Median errors, and rank correlations of that of the weights over epochs, in Markdown.

    Correlated with it are the error on the linearised outputs, and how far the predicted loss falls
    until the predicted epoch.
    """
    heading = (
        "loss",
        "seed",
        "error: weights",
        "linearised outputs",
        "correlation: outputs",
        "loss",
    )
    lines = []
    for row in rows:
        weights, outputs = row["error_weights"], row["error_outputs"]
        losses = np.log(row["loss_predicted"])
        fall = (losses[:-HORIZON] - losses[HORIZON:])[HISTORY - 1 :]
        errors = [f"{np.median(found):.2f}" for found in (weights, outputs)]
        ranks = [f"{spearmanr(weights, found)[0]:+.2f}" for found in (outputs, fall)]
        lines.append([LOSSES[row["loss"]], str(row["seed"]), *errors, *ranks])
    return tables.grid(heading, lines, labels=1) + "\n"


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
        losses.set(title=LOSSES[loss], yscale="log", ylabel="loss / initial loss")
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


def _batches(key: jax.Array, samples: int, batch_size: int, epochs: int) -> np.ndarray:
    """Indices of the examples, (epochs, steps, batch size)."""
    steps = samples // batch_size
    found = pdt_optax.training_time.sample_batches(
        key, samples, batch_size, steps * epochs, "reshuffle"
    )
    return found.reshape(epochs, steps, batch_size)


def _errors(snapshots: Sequence[np.ndarray]) -> list[float]:
    found = pdt_optax.dynamics.prediction_errors(snapshots, history=HISTORY, horizon=HORIZON)
    return [float(f"{error:.4g}") for error in found[: 1 - HORIZON or None, -1]]


def _trained(task: FineTuning, loss: str, seed: int, epochs: int) -> dict[str, Any]:
    how = GRID[0]
    tx = optax.sgd(how.part * task.limit)
    examples = Examples(*map(jnp.asarray, (task.images, task.targets)))
    mean = functools.partial(mean_loss, loss)
    train = train_step(stateless(mean), tx)

    def kept(state: TrainState) -> tuple[jax.Array, jax.Array]:
        return ravel_pytree(state.params)[0], mean(state.params, examples)

    def step(state: TrainState, numbers: jax.Array) -> tuple[TrainState, None]:
        return train(state, of_numbers(examples, numbers)), None

    def epoch(state: TrainState, numbers: jax.Array) -> tuple[TrainState, Any]:
        state = jax.lax.scan(step, state, numbers)[0]
        return state, kept(state)

    numbers = _batches(jax.random.key(seed), len(task.images), how.batch_size, epochs)
    batches = jnp.asarray(numbers)
    first = start(task.params, tx)
    weights, losses = jax.jit(lambda state: jax.lax.scan(epoch, state, batches)[1])(first)
    weight, value = kept(first)
    return {
        "loss_trained": np.round([float(value), *losses.tolist()], 6).tolist(),
        "error_weights": _errors([np.asarray(weight), *np.asarray(weights)]),
    }


def _predicted(task: FineTuning, loss: str, seed: int, epochs: int) -> dict[str, Any]:
    how = GRID[0]
    batches = _batches(jax.random.key(seed + 100), len(task.images), how.batch_size, epochs)
    snapshots = [np.asarray(apply(task.params, jnp.asarray(task.images)), np.float64)]
    losses: list[float] = []
    for epoch in batches:
        path = pdt_optax.training_time.function_space_sgd(
            task.kernel,
            snapshots[-1],
            task.targets,
            loss=loss,
            learning_rate=how.part * task.limit,
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
    cli.run(main, Settings)
