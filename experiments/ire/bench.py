"""Time of a step with IRE over that of AdamW alone, on the language model at any batch size.

The two are timed in turn, an interval of `update_interval` steps each, so that every reading holds
one estimate; the median ratio is printed.

Example:
  python -m experiments.ire.bench --batch_size=64
"""

import functools
import statistics
import time

from absl import flags
import jax
import numpy as np
import optax

from experiments import cli
from experiments.ire import language

_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Rows per step.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Readings.", lower_bound=1)
_CHUNKS = flags.DEFINE_list("num_chunks", ["1", "16"], "Chunks of the estimator.")
INTERVAL = 10


def main() -> None:
    """Runs the program."""
    arms = {"AdamW": language.Arm()}
    for chunks in map(int, _CHUNKS.value):
        arms[f"IRE, {chunks} chunks"] = language.Arm("flat", 4.0, num_chunks=chunks)
    programs = {name: _program(arm) for name, arm in arms.items()}
    readings: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(_ROUNDS.value):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            readings[name].append(time.perf_counter() - start)
    for name, seconds in readings.items():
        ratios = [s / base for s, base in zip(seconds, readings["AdamW"], strict=True)]
        step = 1000 * statistics.median(seconds) / INTERVAL
        print(
            f"{name:16} {step:7.2f} ms a step, {statistics.median(ratios):.3f} of AdamW "
            f"[{min(ratios):.3f}, {max(ratios):.3f}]"
        )


def _program(arm: language.Arm):
    """A function that takes `INTERVAL` steps."""
    task = language.cpu()
    tx = task.optimizer(arm, 1e-3, 10_000)
    rows = np.resize(task.text.train, (_BATCH_SIZE.value, task.recipe.context + 1))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        grads = jax.grad(task.loss)(params, rows)
        updates, state = tx.update(grads, state, params, inputs=rows[:, :-1])
        return optax.apply_updates(params, updates), state

    params = task.init(0)
    carry = [params, tx.init(params)]

    def interval():
        for _ in range(INTERVAL):
            carry[:] = step(*carry)
        jax.block_until_ready(carry)

    for _ in range(-(-task.recipe.warmup_steps // INTERVAL)):
        interval()
    return interval


if __name__ == "__main__":
    cli.run(main)
