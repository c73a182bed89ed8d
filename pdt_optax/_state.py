"""The state of the transform."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pdt_optax._adaptive import Schedule
from pdt_optax._event import Event
from pdt_optax._history import History
from pdt_optax._landing import Landing, Trust
from pdt_optax._sums import leaf_sizes


class PredictionReport(NamedTuple):
    """What the last prediction was like.

    Before the first all is zero but for `jump_candidate`, -1, and `trust`.
    ``G`` is the number of groups of leaves (`scope`), ``L`` that of the leaves
    that take part, ``h`` the history, `rank` + 1 if it is streaming.

    Attributes:
      operators: shape ``(G, h-1, h-1)``, the DMD operators; None where no predictor is a DMD.
      leaf_mask_ratio: float32, shape ``(L,)``, accepted share of each leaf.
      mask_ratio: float32, accepted share of all coordinates.
      prediction_error: float32, ``||p_1 - w_opt|| / ||d||``; with
        :class:`pdt_optax.Solve` how far the gain was from that of the model, relative to it.
      jump_candidate: int32, the candidate that was taken; -1 for the optimizer's own
        result, -2 where the loss there is not finite, jump or not.
      value_calls: int32, calls of ``value_fn`` so far.
      trust: `damping` and `radius` of the next event of :class:`pdt_optax.Solve`.
    """

    operators: jax.Array | None
    leaf_mask_ratio: jax.Array
    mask_ratio: jax.Array
    prediction_error: jax.Array
    jump_candidate: jax.Array
    value_calls: jax.Array
    trust: Trust

    @classmethod
    def empty(cls, num_groups: int, size: int, num_leaves: int, dtype: Any, damping: float):
        """That of before the first prediction."""
        return cls(
            operators=jnp.zeros((num_groups, size, size), dtype) if size else None,
            leaf_mask_ratio=jnp.zeros(num_leaves, jnp.float32),
            mask_ratio=jnp.zeros([], jnp.float32),
            prediction_error=jnp.zeros([], jnp.float32),
            jump_candidate=jnp.full([], -1, jnp.int32),
            value_calls=jnp.zeros([], jnp.int32),
            trust=Trust(jnp.full([], damping, jnp.float32), jnp.ones([], jnp.float32)),
        )

    def after(self, event: Event, landing: Landing) -> "PredictionReport":
        """That of a landing."""
        sizes = leaf_sizes(event.layout, event.weights, event.axis_name)
        accepted = landing.accepted
        return PredictionReport(
            operators=landing.operators,
            leaf_mask_ratio=accepted / jnp.maximum(jnp.array(sizes, jnp.float32), 1),
            mask_ratio=accepted.sum() / float(max(sum(sizes), 1)),  # An int may exceed int32.
            prediction_error=landing.error,
            jump_candidate=jnp.asarray(landing.candidate, jnp.int32),
            value_calls=self.value_calls + jnp.asarray(landing.calls, jnp.int32),
            trust=Trust(*(jnp.asarray(number, jnp.float32) for number in landing.trust)),
        )


class PDTState(NamedTuple):
    """State of :func:`pdt_optax.pdt`.

    Attributes:
      pdt_count: int32, update calls since the last snapshot.
      predictions: int32, predictions made so far.
      last_prediction: int32, snapshot period of the last prediction; 0 if none.
      jumps: int32, predictions after which some coordinate jumped.
      steps_until_jump: int32, update calls up to the next that may jump, that one included; at
        most ``2**31 - 1``.
      foreign_changes: int32, snapshots after which the parameters came back as others.
      history: of the weights.
      schedule: with :class:`pdt_optax.Adaptive` how far and how often is predicted now;
        otherwise None.
      report: of the last prediction; read by :func:`pdt_optax.metrics`.
    """

    pdt_count: jax.Array
    predictions: jax.Array
    last_prediction: jax.Array
    jumps: jax.Array
    steps_until_jump: jax.Array
    foreign_changes: jax.Array
    history: History
    schedule: Schedule | None
    report: PredictionReport
