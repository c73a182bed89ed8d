"""Trains the policy on rewards: one compiled stretch of steps per arm."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.post_training import grpo, policy
from experiments.post_training.arms import Arm
from experiments.post_training.sums import exact_match, problems
from experiments.runs.step import count

EVERY = 5  # Steps between snapshots, and between evaluations.
VALUE_ROWS = 256  # Fixed train rows on whose reward jumps are judged.


class Progress(NamedTuple):
    """Where a run is.

    Attributes:
      params: of the policy.
      expected: reward of sampling on the held-out rows.
      greedy: reward of greedy decoding there.
      jumps: so far.
      value_calls: so far.
    """

    params: Any
    expected: float
    greedy: float
    jumps: int
    value_calls: int


@jax.jit
def rewards(params: Any) -> tuple[jax.Array, jax.Array]:
    """Of sampling and of greedy decoding on the held-out rows."""
    rows = jnp.asarray(problems().held_out)
    return policy.expected_reward(params, rows), policy.greedy_reward(params, rows)


class Trainer:
    """Trains one arm, compiled once for all rates and seeds."""

    def __init__(self, arm: Arm, steps: int):
        self.arm, self.steps = arm, steps
        self._stretch = jax.jit(self._train)

    def run(self, params: Any, rate: float, seed: int) -> Iterator[Progress]:
        """Trains a pretrained policy on the prompts and the draws of a seed."""
        train, random = problems().train, np.random.default_rng([seed, 1])
        prompts = train[random.integers(0, len(train), (self.steps, grpo.PROMPTS))]
        scored = train[random.integers(0, len(train), VALUE_ROWS)]
        keys = jax.random.split(jax.random.key(seed), self.steps)
        state = params, self._optimizer(rate).init(params)
        for begin in range(0, self.steps, EVERY):
            part = slice(begin, begin + EVERY)
            state = self._stretch(state, prompts[part], keys[part], scored, rate)
            expected, greedy = rewards(state[0])
            jumps, calls = (count(state[1], name) for name in ("jumps", "value_calls"))
            yield Progress(state[0], float(expected), float(greedy), jumps, calls)

    def _optimizer(self, rate: Any) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(self.arm.make(rate, self.steps))

    def _train(self, state: Any, prompts: Any, keys: Any, scored: Any, rate: Any) -> Any:
        optimizer = self._optimizer(rate)

        def value(params: Any) -> jax.Array:
            if self.arm.value == "sampled":
                drawn = policy.sample(params, scored, jax.random.key(0))
                return -exact_match(drawn, scored).mean()
            return -policy.expected_reward(params, scored)

        def step(carry: Any, drawn: Any) -> tuple[Any, None]:
            params, opt_state = carry
            grads = grpo.gradient(params, *drawn)
            updates, opt_state = optimizer.update(grads, opt_state, params, value_fn=value)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, state, (prompts, keys))[0]
