"""Trains the small language model: one compiled stretch of steps per arm."""

from collections.abc import Iterator
import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data.text import TEXTS
from experiments.ire import language
from experiments.language.arms import Arm
from experiments.models.llama import Size
from experiments.runs.step import count

BATCH, EVERY = 8, 50  # Rows a step, steps between evaluations.


class Progress(NamedTuple):
    """Where a run is.

    Attributes:
      loss: validation loss in nats.
      seconds: of training alone, so far.
      jumps: so far.
    """

    loss: float
    seconds: float
    jumps: int


@functools.cache
def task(name: str) -> language.Task:
    """Two layers of width 48 on rows of 32 characters of a text."""
    text = TEXTS[name]()
    size = Size(text.vocabulary, width=48, heads=4, layers=2, hidden=128)
    usual = language.cpu().recipe
    recipe = dataclasses.replace(usual, size=size, context=32, batch_size=BATCH)
    return language.Task(recipe, text)


class Trainer:
    """Trains one arm on a text, compiled once for all rates and seeds."""

    def __init__(self, arm: Arm, steps: int, text: str):
        self.arm, self.steps, self.task = arm, steps, task(text)
        self._stretch = jax.jit(self._train, donate_argnums=0)
        self._evaluate = jax.jit(self._validation_loss)

    def run(self, rate: float, seed: int) -> Iterator[Progress]:
        """Trains on the initialisation and the batches of a seed."""
        train, length = self.task.text.train, self.task.recipe.context + 1
        random = np.random.default_rng([seed, 1])
        starts = random.integers(0, len(train) - length, (self.steps, BATCH))
        scored = random.integers(0, len(train) - length, max(1, self.arm.scored_rows))
        starts, scored = (train[s[..., None] + np.arange(length)] for s in (starts, scored))
        params = self.task.init(seed)
        state = params, self._optimizer(rate).init(params)
        seconds = 0.0
        for begin in range(0, self.steps, EVERY):
            given = starts[begin : begin + EVERY], scored, rate
            if not begin:  # Compiles, and is not counted.
                jax.block_until_ready(self._stretch(jax.tree.map(jnp.copy, state), *given))
            start = time.perf_counter()
            state = jax.block_until_ready(self._stretch(state, *given))
            seconds += time.perf_counter() - start
            yield Progress(float(self._evaluate(*state)), seconds, count(state[1], "jumps"))

    def _optimizer(self, rate: Any) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(self.arm.make(rate, self.steps))

    def _train(self, state: Any, rows: Any, scored: Any, rate: Any) -> Any:
        optimizer, loss = self._optimizer(rate), self.task.loss
        examples = language.next_tokens(scored)

        def step(carry: Any, batch: Any) -> Any:
            params, opt_state = carry
            grads = jax.grad(loss)(params, language.next_tokens(batch))
            extra: dict[str, Any] = {}
            if self.arm.scored_rows:
                extra["value_fn"] = lambda params: loss(params, examples)
            updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, state, rows)[0]

    def _validation_loss(self, params: Any, opt_state: Any) -> jax.Array:
        evaluated = self.arm.evaluated(opt_state, params)

        def loss(row: jax.Array) -> jax.Array:
            return self.task.loss(evaluated, language.next_tokens(row[None]))

        return jax.lax.map(
            loss, jnp.asarray(self.task.validation_rows), batch_size=4 * BATCH
        ).mean()
