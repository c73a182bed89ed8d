"""Supervised training of the policy up to a middling reward."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments.post_training import policy
from experiments.post_training.sums import PROMPT, problems

_EVERY, _ROWS, _RATE = 5, 64, 3e-3
_KEPT = 100  # Snapshots, about.


@dataclasses.dataclass(frozen=True)
class Start:
    """What rewards begin with.

    Attributes:
      title: in the tables.
      wrong: share of the rows whose answer is that of another sum.
      middling: expected reward on train rows at which pretraining ends.
      most: steps, after which it ends anyway.
    """

    title: str
    wrong: float
    middling: float = 0.35
    most: int = 10_000


STARTS: Mapping[str, Start] = {
    "noisy": Start("half of the answers wrong", wrong=0.5),
    "early": Start("stopped early", wrong=0.0),
}


class Pretrained(NamedTuple):
    """A pretrained policy.

    Attributes:
      params: of the policy.
      snapshots: of the parameters along pretraining, the initial ones in front.
      steps: of pretraining.
    """

    params: Any
    snapshots: list[Any]
    steps: int


@functools.cache
def pretrained(start: Start, seed: int) -> Pretrained:
    """The policy of a seed, with AdamW at a constant rate."""
    rate = optax.warmup_constant_schedule(0.0, _RATE, 50)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.95, weight_decay=0.1))

    def loss(params: Any, rows: jax.Array) -> jax.Array:
        return -policy.log_probabilities(params, rows).mean()

    def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, rows), state, params)
        return (optax.apply_updates(params, updates), state), None

    stretch = jax.jit(lambda carry, rows: jax.lax.scan(step, carry, rows)[0])
    expected = jax.jit(policy.expected_reward)
    random, params = np.random.default_rng([seed, 0]), policy.init(seed)
    carry, snapshots = (params, tx.init(params)), [params]
    for _ in range(start.most // _EVERY):
        carry = stretch(carry, _batches(random, start.wrong))
        snapshots.append(carry[0])
        if expected(carry[0], problems().train[:1000]) >= start.middling:
            break
    thinned = snapshots[:: 1 + len(snapshots) // _KEPT]
    return Pretrained(carry[0], thinned, _EVERY * (len(snapshots) - 1))


def _batches(random: np.random.Generator, wrong: float) -> np.ndarray:
    """(steps, rows, LENGTH) solved sums, some with the answer of another."""
    train, shape = problems().train, (_EVERY, _ROWS)
    rows, others = (train[random.integers(0, len(train), shape)] for _ in range(2))
    is_wrong = random.random(shape) < wrong
    rows[is_wrong, PROMPT:] = others[is_wrong, PROMPT:]
    return rows
