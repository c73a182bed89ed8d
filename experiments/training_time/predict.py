r"""Predicts how long fine-tuning takes without training, then trains and compares.

A network pretrained on MNIST at 8 x 8 is fine-tuned with SGD on the digits of scikit-learn: four
settings of learning rate, momentum and batch size, two losses, and each seed. Two controls follow
that must fail: a network that is not pretrained, and a learning rate above the stable limit. Ends
with a table and a picture, all computed from `records.jsonl`. What is recorded is not run again.

  python -m experiments.training_time.predict --run_dir=runs/predict_time
  python -m experiments.training_time.predict --seeds=0 --notrain --run_dir=runs/predicted_only
"""

from collections.abc import Iterator
import functools
import itertools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from experiments import cli
from experiments.data import Examples
from experiments.runs.step import start, stateless, train_step
from experiments.settings import Config, setting
from experiments.training_time import report
from experiments.training_time.report import THRESHOLDS
from experiments.training_time.task import (
    GRID,
    LOSSES,
    Setting,
    apply,
    fine_tuning,
    mean_loss,
    of_numbers,
)
import pdt_optax

UNSTABLE = Setting(1.2, 0.0, 64)
_POINTS = 60
_STOP_AT = 0.15  # Part of the initial loss at which training stops.


class Settings(Config):
    """What is predicted, and where the records go."""

    seeds: tuple[int, ...] = setting((0, 1, 2), "Of network, data and batches.", least=0)
    samples: int = setting(1000, "Digits to fine-tune on.", least=256, most=1797)
    max_steps: int = setting(4000, "Steps predicted at most.", least=1)
    loss: tuple[str, ...] = setting(tuple(LOSSES), "Losses of the fine-tuning.", of=LOSSES)
    linearizations: tuple[int, ...] = setting((1, 2), "One prediction each.", least=1)
    num_cotangents: int = setting(1, "Gradients an example for a kernel.", least=1)
    max_samples: int | None = setting(
        None, "Digits from which is predicted, at least two batches; by default all.", least=2
    )
    train: bool = setting(True, "Also train, and show the error.")
    run_dir: str = setting("runs/predict_time", "Folder of records and picture.")


class Case(NamedTuple):
    """One fine-tuning: `start` is 'pretrained' or 'random'."""

    start: str
    loss: str
    setting: Setting
    seed: int

    def row(self, linearizations: int) -> dict[str, Any]:
        """What it is, in its row: predicted, or, with no linearisation, trained."""
        kind = {"kind": "predicted", "linearizations": linearizations}
        kind = kind if linearizations else {"kind": "trained"}
        return {**self._asdict(), "setting": list(self.setting), **kind}


def main(config: Settings) -> None:
    """Runs the program."""
    names = ("samples", "max_steps", "num_cotangents", "max_samples")
    done = cli.rows(config.run_dir, {name: getattr(config, name) for name in names})
    todo = [(case, number) for case, number in _cases(config) if not done.has(case.row(number))]
    for case, number in tqdm.tqdm(todo, unit="row"):
        found = _predict(config, case, number) if number else _train(config, case)
        done.append({**case.row(number), **found})
    text = report.summary(done.rows)
    (done.run_dir / "summary.md").write_text(text)
    report.draw(done.rows).savefig(done.run_dir / "summary.png")
    print(text)


def _cases(config: Settings) -> Iterator[tuple[Case, int]]:
    """What makes a row: a case, and how often to linearise; 0 to train."""
    numbers = [0] * config.train + list(config.linearizations)
    for seed, loss, how in itertools.product(config.seeds, config.loss, GRID):
        for number in numbers:
            yield Case("pretrained", loss, how, seed), number
    if "mse" not in config.loss:
        return
    controls = ("random", GRID[0]), ("pretrained", UNSTABLE)
    for seed, (origin, how) in itertools.product(config.seeds, controls):
        for number in numbers[: 1 + config.train]:
            yield Case(origin, "mse", how, seed), number


def _predict(config: Settings, case: Case, linearizations: int) -> dict[str, Any]:
    task, how = fine_tuning(case.start, case.seed, config.samples), case.setting
    most = config.max_samples
    begin = time.perf_counter()
    prediction = pdt_optax.training_time.predict_training_time(
        apply,
        task.params,
        (task.images, task.targets),
        loss=case.loss,
        learning_rate=how.part * task.limit,
        momentum=how.momentum,
        batch_size=how.batch_size,
        max_steps=config.max_steps,
        relative=min(THRESHOLDS),
        kernel="trace",
        num_cotangents=config.num_cotangents,
        max_samples=most and max(most, 2 * how.batch_size),
        linearizations=linearizations,
        key=jax.random.key(case.seed + 100),
    )
    return {
        "status": prediction.status,
        "steps_to_least": prediction.steps,
        "stability": round(prediction.stability, 4),
        "sample_gradients": prediction.sample_gradients,
        "seconds": round(time.perf_counter() - begin, 2),
        **_curve(prediction.loss),
    }


def _train(config: Settings, case: Case) -> dict[str, Any]:
    task, how = fine_tuning(case.start, case.seed, config.samples), case.setting
    key, number = jax.random.key(case.seed), len(task.images)
    batches = pdt_optax.training_time.sample_batches(
        key, number, how.batch_size, config.max_steps, "reshuffle"
    )
    examples = Examples(*map(jnp.asarray, (task.images, task.targets)))
    rate = how.part * task.limit
    losses, taken = _losses(
        task.params, examples, jnp.asarray(batches), rate, case.loss, how.momentum
    )
    losses = np.asarray(losses, float)[: int(taken) + 1]
    return {"learning_rate": round(rate, 8), **_curve(losses)}


@functools.partial(jax.jit, static_argnames=("loss", "momentum"))
def _losses(params, examples, batches, rate, loss, momentum):
    """The loss over all examples after 0, 1, .. steps, and the number of steps taken."""
    tx = optax.sgd(rate, momentum or None)
    mean = functools.partial(mean_loss, loss)
    train = train_step(stateless(mean), tx)

    def step(carry):
        count, state, losses = carry
        state = train(state, of_numbers(examples, batches[count]))
        return count + 1, state, losses.at[count + 1].set(mean(state.params, examples))

    def goes_on(carry):
        count, _, losses = carry
        return (count < len(batches)) & (losses[count] > _STOP_AT * losses[0])

    losses = jnp.zeros(len(batches) + 1).at[0].set(mean(params, examples))
    count, _, losses = jax.lax.while_loop(goes_on, step, (0, start(params, tx), losses))
    return losses, count


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
    cli.run(main, Settings)
