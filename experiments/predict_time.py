r"""Predicts how long fine-tuning takes without training, then trains and compares.

A network pretrained on MNIST at 8 x 8 is fine-tuned on the digits of scikit-learn with SGD. The
learning rate is given in units of the greatest stable one of gradient descent on the squared error.

Example:
  python -m experiments.predict_time --seeds=0,1,2 --train --run_dir=runs/predict_time
"""

from collections.abc import Iterator, Mapping
import json
import pathlib
import statistics
import sys
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np
import optax

from experiments import cli, records, transfer
import pdt_optax

# Learning rate in units of the stable limit, momentum, batch size.
GRID = ((0.3, 0.0, 64), (0.05, 0.9, 64), (0.05, 0.9, 16), (0.1, 0.9, 256))
LOSSES = ("mse", "softmax_cross_entropy")
THRESHOLDS = (0.5, 0.3, 0.2)
COLORS = {"trained": "#4d4d4d", 1: "#D55E00", 6: "#0072B2"}

_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of network, data and batches.")
_SAMPLES = flags.DEFINE_integer("samples", 1000, "Digits to fine-tune on.", lower_bound=256)
_MAX_STEPS = flags.DEFINE_integer("max_steps", 4000, "Steps predicted at most.", lower_bound=1)
_LINEARIZATIONS = flags.DEFINE_list("linearizations", ["1", "6"], "One prediction each.")
_TRAIN = flags.DEFINE_bool("train", False, "Also train, and show the error.")
_PRETRAINED = flags.DEFINE_bool(
    "pretrained", True, "Whether to start pretrained; the random start is a control."
)
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/predict_time", "Folder of records and picture.")


def main() -> None:
    """Runs the program."""
    run_dir = pathlib.Path(_RUN_DIR.value)
    own = cli.flags_beside(_SEEDS)
    configuration = {name: flag.value for name, flag in own.items() if name != _RUN_DIR.name}
    try:
        records.start(run_dir, configuration)
    except (OSError, ValueError) as error:
        sys.exit(f"flag --run_dir: {error}")
    with (run_dir / records.RECORDS).open("w") as file:
        for row in _run():
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(" ".join(f"{k}={v}" for k, v in row.items() if not k.startswith("curve")))
    rows = read(run_dir)
    for line in table(rows):
        print(line)
    draw(rows).savefig(run_dir / "summary.png")


def read(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a run."""
    return [json.loads(line) for line in (run_dir / records.RECORDS).read_text().splitlines()]


def errors(rows: list[dict[str, Any]], loss: str, threshold: float, linearizations: int) -> Any:
    """Trained steps, relative error and saving of each run; a miss counts as infinite."""
    found = []
    for row in rows:
        if (row["loss"], row["linearizations"]) != (loss, linearizations):
            continue
        trained, steps = (row[name].get(str(threshold)) for name in ("trained", "predicted"))
        if trained:
            error = np.inf if steps is None else steps / trained - 1
            saving = trained * row["batch_size"] / row["sample_gradients"]
            found.append((trained, error, saving))
    return found


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Median and worst error of the steps, in Markdown."""
    yield "| loss | threshold | linearizations | runs | median error % | worst % | saving |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for loss in LOSSES:
        for threshold in THRESHOLDS:
            for number in sorted({row["linearizations"] for row in rows}):
                found = [f for f in errors(rows, loss, threshold, number) if f[0] >= 25]
                if found:
                    sizes = [100 * abs(error) for _, error, _ in found]
                    saving = statistics.median(s for *_, s in found)
                    yield (
                        f"| {loss} | {threshold} | {number} | {len(found)} | "
                        f"{statistics.median(sizes):.1f} | {max(sizes):.1f} | {saving:.0f} |"
                    )


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Predicted and trained curves of the first setting of the grid, of every seed."""
    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    for axes, loss in zip(figure.subplots(1, 2), LOSSES, strict=True):
        for row in rows:
            if row["loss"] == loss and row["setting"] == 0:
                number = row["linearizations"]
                label = f"predicted, linearised {number} x" if number > 1 else "predicted"
                axes.plot(*row["curve"], color=COLORS.get(number), label=label, linewidth=1)
                if row["curve_trained"]:
                    axes.plot(
                        *row["curve_trained"], color=COLORS["trained"], label="trained", linewidth=1
                    )
        axes.set(title=loss, xlabel="step", ylabel="loss, all examples", yscale="log", xscale="log")
        axes.grid(alpha=0.25)
        handles, labels = axes.get_legend_handles_labels()
        unique: Mapping[str, Any] = dict(zip(labels, handles, strict=True))
        axes.legend(unique.values(), unique.keys(), frameon=False)
    return figure


def _run() -> Iterator[dict[str, Any]]:
    for seed in map(int, _SEEDS.value):
        params = transfer.pretrain(seed) if _PRETRAINED.value else transfer.init(seed)
        images, labels = transfer.digits(seed, _SAMPLES.value)
        targets = np.eye(10, dtype=np.float32)[labels]
        kernel = pdt_optax.empirical_kernel(transfer.apply, params, images, kernel="trace")
        limit = 2 * len(images) / float(kernel.eigenvalues().max())
        for loss in LOSSES:
            for setting, (part, momentum, batch_size) in enumerate(GRID):
                options = {"learning_rate": part * limit, "momentum": momentum}
                trained = None
                if _TRAIN.value:
                    trained = _train(seed, params, images, targets, loss, options, batch_size)
                for number in map(int, _LINEARIZATIONS.value):
                    row = _predict(
                        seed, params, images, targets, loss, options, batch_size, number, trained
                    )
                    yield {"seed": seed, "setting": setting, **row}


def _predict(seed, params, images, targets, loss, options, batch_size, number, trained):
    start = time.perf_counter()
    prediction = pdt_optax.predict_training_time(
        transfer.apply,
        params,
        (images, targets),
        loss=loss,
        batch_size=batch_size,
        max_steps=_MAX_STEPS.value,
        relative=min(THRESHOLDS),
        kernel="trace",
        linearizations=number,
        key=jax.random.key(seed + 100),
        **options,
    )
    predicted = _crossings(prediction.loss)
    shown = np.unique(np.geomspace(1, _MAX_STEPS.value, 80).astype(int))
    return {
        "loss": loss,
        "batch_size": batch_size,
        "linearizations": number,
        **{name: round(value, 8) for name, value in options.items()},
        "status": prediction.status,
        "stability": round(prediction.stability, 4),
        "seconds": round(time.perf_counter() - start, 2),
        "predicted": predicted,
        "sample_gradients": prediction.sample_gradients,
        "trained": {} if trained is None else _crossings(trained),
        "curve": [shown.tolist(), np.round(prediction.loss[shown], 5).tolist()],
        "curve_trained": trained is not None
        and [shown.tolist(), np.round(np.asarray(trained, float)[shown], 5).tolist()],
    }


def _crossings(losses: np.ndarray) -> dict[str, int | None]:
    return {
        str(part): pdt_optax.steps_to_threshold(losses, part * float(losses[0]), len(losses))
        for part in THRESHOLDS
    }


def _train(seed, params, images, targets, loss, options, batch_size) -> np.ndarray:
    tx = optax.sgd(options["learning_rate"], options["momentum"] or None)
    batches = pdt_optax.sample_batches(
        jax.random.key(seed), len(images), batch_size, _MAX_STEPS.value, "reshuffle"
    )
    x, y = jnp.asarray(images), jnp.asarray(targets)

    def mean(params, x, y):
        outputs = transfer.apply(params, x)
        if loss == "mse":
            return jnp.sum((outputs - y) ** 2) / (2 * len(y))
        return optax.softmax_cross_entropy(outputs, y).mean()

    def step(carry, batch):
        params, state = carry
        updates, state = tx.update(jax.grad(mean)(params, x[batch], y[batch]), state, params)
        return (optax.apply_updates(params, updates), state), mean(params, x, y)

    (end, _), losses = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), batches))(params)
    return np.append(losses, mean(end, x, y))


if __name__ == "__main__":
    cli.run(main)
