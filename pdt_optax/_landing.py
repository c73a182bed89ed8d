"""What a way of jumping may do, and what it decides."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

NO_LOSS = -2
"""The candidate where the loss of the optimizer's own result is not finite."""


class Limits(NamedTuple):
    """What a scheduler allows a way of jumping now.

    Attributes:
      horizon: float32, greatest number of snapshots ahead.
      interval: int32, least number of periods without a prediction between two.
      max_error: float, greatest error one snapshot ahead.
      may_land: from where a coordinate would land, where the optimizer takes it, and the
        optimizer's move to whether it may; None if it always may.
    """

    horizon: jax.Array
    interval: jax.Array
    max_error: float
    may_land: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None


class Trust(NamedTuple):
    """How far the model of :class:`pdt_optax.Solve` is trusted.

    Attributes:
      damping: float32, of the next event; zero with another way of jumping.
      radius: float32, of the next event, in units of the argument.
    """

    damping: Any = 0.0
    radius: Any = 1.0


class Landing(NamedTuple):
    """What a way of jumping decides.

    Attributes:
      updates: the updates that lead to where it lands, a leaf each; where nothing jumps the
        optimizer's bit for bit.
      accepted: how many coordinates of each leaf jump, float32 ``(L,)``.
      operators: a DMD operator of each group, ``(G, h-1, h-1)``; None if none is fitted.
      error: float32, ``||p_1 - w_opt|| / ||d||``.
      candidate: int32, which of its candidates it takes; -1 for none, `NO_LOSS` if
        what they are compared with is no number.
      calls: int32, calls of a loss.
      trust: of the next event.
    """

    updates: list[jax.Array]
    accepted: jax.Array
    operators: jax.Array | None
    error: jax.Array
    candidate: jax.Array | int
    calls: jax.Array | int
    trust: Trust = Trust()
