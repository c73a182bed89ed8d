"""The state of the transform."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pdt_optax import _history, _leaves
from pdt_optax._schedule import Pace


class PredictionReport(NamedTuple):
    """What the last prediction was like; zeros, `jump_candidate` -1, before the first.

    ``G`` is the number of groups of leaves (`scope`), ``L`` that of floating-point
    leaves, ``h`` the history.

    Attributes:
      operators: shape ``(G, h-1, h-1)``, the DMD operators.
      leaf_mask_ratio: float32, shape ``(L,)``, accepted share of each leaf.
      mask_ratio: float32, accepted share of all coordinates.
      prediction_error: float32, ``||p_1 - w_opt|| / ||d||``.
      jump_candidate: int32, the candidate that was taken; -1 for the optimizer's own
        result.
      value_calls: int32, calls of ``value_fn`` so far.
    """

    operators: jax.Array
    leaf_mask_ratio: jax.Array
    mask_ratio: jax.Array
    prediction_error: jax.Array
    jump_candidate: jax.Array
    value_calls: jax.Array


class PDTState(NamedTuple):
    """State of :func:`pdt_optax.pdt`.

    The trees have the structure of the parameters; in the place of a leaf that is
    not floating-point they hold False of its shape.

    Attributes:
      pdt_count: int32, update calls since the last snapshot.
      snapshots_taken: int32, snapshots so far; the initial parameters are one.
      predictions: int32, predictions made so far.
      last_prediction: int32, snapshot period of the last prediction; 0 if none.
      anchor: the newest snapshot, a tree like the parameters.
      increments: ``h - 1`` trees like the parameters, oldest first.
      fallback: with `rollback` the optimizer's result of before the last jump, a
        tree like the parameters; otherwise None.
      pace: how far and how often is predicted now.
      report: of the last prediction; read by :func:`pdt_optax.metrics`.
    """

    pdt_count: jax.Array
    snapshots_taken: jax.Array
    predictions: jax.Array
    last_prediction: jax.Array
    anchor: Any
    increments: tuple[Any, ...]
    fallback: Any
    pace: Pace
    report: PredictionReport


def init(
    params: Any, *, history: int, dtype: Any, scope: Any, rollback: bool, pace: Pace
) -> PDTState:
    """The state before the first step.

    Args:
      params: the parameters, arrays or :class:`jax.ShapeDtypeStruct`.
      history: snapshots kept.
      dtype: of the increments; None for that of the parameters.
      scope: leaves that share coefficients.
      rollback: whether there is a `fallback`.
      pace: the greatest horizon and the least interval.

    Returns:
      A state in which no two fields share a buffer.
    """
    _leaves.check_real(params)
    compute_dtype = _leaves.compute_dtype(*jax.tree.leaves(params))
    num_groups = _leaves.groups(scope, params)[1]
    return PDTState(
        pdt_count=jnp.zeros([], jnp.int32),
        snapshots_taken=jnp.ones([], jnp.int32),
        predictions=jnp.zeros([], jnp.int32),
        last_prediction=jnp.zeros([], jnp.int32),
        anchor=_history.anchor(params),
        increments=tuple(_history.no_increment(params, dtype) for _ in range(history - 1)),
        fallback=_history.anchor(params) if rollback else None,
        pace=pace,
        report=PredictionReport(
            operators=jnp.zeros((num_groups, history - 1, history - 1), compute_dtype),
            leaf_mask_ratio=jnp.zeros(len(_leaves.FloatLeaves(params)), jnp.float32),
            mask_ratio=jnp.zeros([], jnp.float32),
            prediction_error=jnp.zeros([], jnp.float32),
            jump_candidate=jnp.full([], -1, jnp.int32),
            value_calls=jnp.zeros([], jnp.int32),
        ),
    )
