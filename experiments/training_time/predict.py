r"""Predicts how long fine-tuning takes without training, then trains and compares.

A network pretrained on MNIST at 8 x 8 is fine-tuned with SGD on the digits of scikit-learn: four
settings of learning rate, momentum and batch size, two losses, and each seed. Two controls follow
that must fail: a network that is not pretrained, and a learning rate above the stable limit. Ends
with a table and a picture, all computed from `records.jsonl`. What is recorded is not run again.

Example:
  python -m experiments.training_time.predict --run_dir=runs/predict_time
  python -m experiments.training_time.predict --seeds=0 --notrain --run_dir=runs/predicted_only
"""

from collections.abc import Iterator
import functools
import itertools
import pathlib
import sys
import time
from typing import Any, NamedTuple

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from experiments import cli
from experiments.runs import records
from experiments.training_time import fine_tuning, report, transfer
from experiments.training_time.fine_tuning import GRID, LOSSES, Setting
from experiments.training_time.report import THRESHOLDS
import pdt_optax

_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of network, data and batches.")
_SAMPLES = flags.DEFINE_integer("samples", 1000, "Digits to fine-tune on.", 256, 1797)
_MAX_STEPS = flags.DEFINE_integer("max_steps", 4000, "Steps predicted at most.", lower_bound=1)
_LOSSES = flags.DEFINE_multi_enum("loss", LOSSES, LOSSES, "Losses of the fine-tuning.")
_LINEARIZATIONS = flags.DEFINE_list("linearizations", ["1", "2"], "One prediction each.")
_COTANGENTS = flags.DEFINE_integer(
    "num_cotangents", 1, "Gradients an example from which a kernel is made.", lower_bound=1
)
_MAX_SAMPLES = flags.DEFINE_integer(
    "max_samples",
    None,
    "Digits from which is predicted, at least two batches; by default all.",
    lower_bound=2,
)
_TRAIN = flags.DEFINE_bool("train", True, "Also train, and show the error.")
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/predict_time", "Folder of records and picture.")
UNSTABLE = Setting(1.2, 0.0, 64)
_POINTS = 60
_STOP_AT = 0.15  # Part of the initial loss at which training stops.


class Case(NamedTuple):
    """One fine-tuning: `start` is 'pretrained' or 'random'."""

    start: str
    loss: str
    setting: Setting
    seed: int


def main() -> None:
    """Runs the program."""
    run_dir = pathlib.Path(_RUN_DIR.value)
    try:
        settings = _SAMPLES, _MAX_STEPS, _COTANGENTS, _MAX_SAMPLES
        records.resume(run_dir, {flag.name: flag.value for flag in settings})
    except (OSError, ValueError) as error:
        sys.exit(f"flag --run_dir: {error}")
    done = {_identity(row) for row in records.read_rows(run_dir)}
    todo = [(c, n) for c, n in _todo() if _identity({**_description(c), **_kind(n)}) not in done]
    for case, number in tqdm.tqdm(todo, unit="row"):
        row = _predict(case, number) if number else _train(case)
        records.append_row(run_dir, {**_description(case), **_kind(number), **row})
    rows = records.read_rows(run_dir)
    text = report.summary(rows)
    (run_dir / "summary.md").write_text(text)
    report.draw(rows).savefig(run_dir / "summary.png")
    print(text)


def _todo() -> Iterator[tuple[Case, int]]:
    """What makes a row: a case, and how often to linearise; 0 to train."""
    seeds = list(map(int, _SEEDS.value))
    numbers = [0] * _TRAIN.value + list(map(int, _LINEARIZATIONS.value))
    for seed, loss, setting in itertools.product(seeds, _LOSSES.value, GRID):
        for number in numbers:
            yield Case("pretrained", loss, setting, seed), number
    if "mse" not in _LOSSES.value:
        return
    controls = ("random", GRID[0]), ("pretrained", UNSTABLE)
    for seed, (start, setting) in itertools.product(seeds, controls):
        for number in numbers[: 1 + _TRAIN.value]:
            yield Case(start, "mse", setting, seed), number


def _description(case: Case) -> dict[str, Any]:
    return {**case._asdict(), "setting": list(case.setting)}


def _kind(number: int) -> dict[str, Any]:
    return {"kind": "predicted", "linearizations": number} if number else {"kind": "trained"}


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    names = (*Case._fields, "kind", "linearizations")
    return tuple(str(row.get(name)) for name in names)


def _predict(case: Case, linearizations: int) -> dict[str, Any]:
    task = fine_tuning.task(case.start, case.seed, _SAMPLES.value)
    setting = case.setting
    start = time.perf_counter()
    prediction = pdt_optax.training_time.predict_training_time(
        transfer.apply,
        task.params,
        (task.images, task.targets),
        loss=case.loss,
        learning_rate=setting.part * task.limit,
        momentum=setting.momentum,
        batch_size=setting.batch_size,
        max_steps=_MAX_STEPS.value,
        relative=min(THRESHOLDS),
        kernel="trace",
        num_cotangents=_COTANGENTS.value,
        max_samples=_MAX_SAMPLES.value and max(_MAX_SAMPLES.value, 2 * setting.batch_size),
        linearizations=linearizations,
        key=jax.random.key(case.seed + 100),
    )
    return {
        "status": prediction.status,
        "steps_to_least": prediction.steps,
        "stability": round(prediction.stability, 4),
        "sample_gradients": prediction.sample_gradients,
        "seconds": round(time.perf_counter() - start, 2),
        **_curve(prediction.loss),
    }


def _train(case: Case) -> dict[str, Any]:
    task = fine_tuning.task(case.start, case.seed, _SAMPLES.value)
    setting = case.setting
    batches = pdt_optax.training_time.sample_batches(
        jax.random.key(case.seed),
        len(task.images),
        setting.batch_size,
        _MAX_STEPS.value,
        "reshuffle",
    )
    rate = setting.part * task.limit
    losses, taken = _losses_of_training(
        task.params, task.images, task.targets, batches, rate, case.loss, setting.momentum
    )
    losses = np.asarray(losses, float)[: int(taken) + 1]
    return {"learning_rate": round(rate, 8), **_curve(losses)}


@functools.partial(jax.jit, static_argnames=("loss", "momentum"))
def _losses_of_training(params, images, targets, batches, rate, loss, momentum):
    """The loss over all examples after 0, 1, .. steps, and the number of steps taken."""
    tx = optax.sgd(rate, momentum or None)

    def mean(params, x, y):
        return fine_tuning.mean_loss(loss, params, x, y)

    def step(carry):
        count, params, state, losses = carry
        batch = batches[count]
        gradient = jax.grad(mean)(params, images[batch], targets[batch])
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return count + 1, params, state, losses.at[count + 1].set(mean(params, images, targets))

    def goes_on(carry):
        count, _, _, losses = carry
        return (count < len(batches)) & (losses[count] > _STOP_AT * losses[0])

    images, targets, batches = map(jnp.asarray, (images, targets, batches))
    losses = jnp.zeros(len(batches) + 1).at[0].set(mean(params, images, targets))
    carry = jax.lax.while_loop(goes_on, step, (0, params, tx.init(params), losses))
    return carry[3], carry[0]


def _curve(losses: np.ndarray) -> dict[str, Any]:
    """Steps to each threshold, and the curve at some steps; null where it is not finite."""
    shown = np.unique(np.geomspace(1, len(losses) - 1, _POINTS).astype(int))
    return {
        "steps": {
            str(part): pdt_optax.training_time.steps_to_threshold(
                losses, part * float(losses[0]), len(losses)
            )
            for part in THRESHOLDS
        },
        "curve": [
            [0, *shown.tolist()],
            [float(f"{x:.5g}") if np.isfinite(x) else None for x in losses[[0, *shown]]],
        ],
    }


if __name__ == "__main__":
    cli.run(main)
