"""Time of a step with IRE over that of AdamW alone, on the language model at any batch size.

The two are timed in turn, an interval of `update_interval` steps each, so that every reading holds
one estimate; the median ratio is printed.

  python -m experiments.ire.bench --batch_size=64
"""

from collections.abc import Callable
import statistics
import time

import jax
import numpy as np

from experiments import cli
from experiments.ire import language
from experiments.runs.step import start
from experiments.settings import Config, setting

INTERVAL = 10


class Settings(Config):
    """What is timed."""

    batch_size: int = setting(64, "Rows of a step.", least=1)
    rounds: int = setting(15, "Readings.", least=1)
    num_chunks: tuple[int, ...] = setting((1, 16), "Chunks of the estimator.", least=1)


def main(config: Settings) -> None:
    """Runs the program."""
    masks = {"AdamW": language.Mask()}
    for chunks in config.num_chunks:
        masks[f"IRE, {chunks} chunks"] = language.Mask("flat", 4.0, num_chunks=chunks)
    programs = {name: _program(mask, config.batch_size) for name, mask in masks.items()}
    readings: dict[str, list[float]] = {name: [] for name in masks}
    for _ in range(config.rounds):
        for name, program in programs.items():
            begin = time.perf_counter()
            program()
            readings[name].append(time.perf_counter() - begin)
    for name, seconds in readings.items():
        ratios = [s / base for s, base in zip(seconds, readings["AdamW"], strict=True)]
        step = 1000 * statistics.median(seconds) / INTERVAL
        print(
            f"{name:16} {step:7.2f} ms a step, {statistics.median(ratios):.3f} of AdamW "
            f"[{min(ratios):.3f}, {max(ratios):.3f}]"
        )


def _program(mask: language.Mask, batch_size: int) -> Callable[[], None]:
    """A function that takes `INTERVAL` steps."""
    task = language.cpu()
    tx = task.optimizer(mask, 1e-3, 10_000)
    rows = np.resize(task.text.train, (batch_size, task.recipe.context + 1))
    step = jax.jit(task.step(tx), donate_argnums=0)
    carry = [start(task.init(0), tx)]

    def interval():
        for _ in range(INTERVAL):
            carry[0] = step(carry[0], language.next_tokens(rows))
        jax.block_until_ready(carry)

    for _ in range(-(-task.recipe.warmup_steps // INTERVAL)):
        interval()
    return interval


if __name__ == "__main__":
    cli.run(main, Settings)
