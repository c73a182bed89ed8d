"""The state of the transform."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pdt_optax import _history, _leaves, _storage
from pdt_optax._ring import Ring
from pdt_optax._schedule import Pace
from pdt_optax._streaming import Streaming


class PredictionReport(NamedTuple):
    """What the last prediction was like; zeros, `jump_candidate` -1, before the first.

    ``G`` is the number of groups of leaves (`scope`), ``L`` that of the leaves
    that take part, ``h`` the history, `rank` + 1 if it is streaming.

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
    not floating-point they hold False of its shape, in that of an excluded one a
    single False.

    Attributes:
      pdt_count: int32, update calls since the last snapshot.
      snapshots_taken: int32, snapshots so far; the initial parameters are one.
      predictions: int32, predictions made so far.
      last_prediction: int32, snapshot period of the last prediction; 0 if none.
      anchor: the newest snapshot, a tree like the parameters.
      increments: ``h - 1`` trees like the parameters, a ring: the increment to the n-th
        snapshot after the initial parameters, from 0, is at place ``n % (h - 1)``. With
        :class:`pdt_optax.Streaming` in their place the `rank` directions, of mean square 1
        and orthogonal, or zero.
      scales: with an eight-bit `history_dtype` ``h - 1`` trees like the parameters, of
        bfloat16 scales for blocks of the increments' last axis; otherwise empty.
      fallback: with `rollback` the optimizer's result of before the last jump, a
        tree like the parameters; otherwise None.
      stream: with :class:`pdt_optax.Streaming` what was seen, in coordinates of the
        directions; otherwise None.
      pace: how far and how often is predicted now.
      report: of the last prediction; read by :func:`pdt_optax.metrics`.
    """

    pdt_count: jax.Array
    snapshots_taken: jax.Array
    predictions: jax.Array
    last_prediction: jax.Array
    anchor: Any
    increments: tuple[Any, ...]
    scales: tuple[Any, ...]
    fallback: Any
    stream: Any
    pace: Pace
    report: PredictionReport


def init(
    params: Any,
    *,
    history: Ring | Streaming,
    dtype: Any,
    scope: Any,
    exclude: Any,
    rollback: bool,
    pace: Pace,
) -> PDTState:
    """The state before the first step.

    Args:
      params: the parameters, arrays or :class:`jax.ShapeDtypeStruct`.
      history: what kind it is.
      dtype: of the increments; None for that of the parameters.
      scope: leaves that share coefficients.
      exclude: leaves that are left out.
      rollback: whether there is a `fallback`.
      pace: the greatest horizon and the least interval.

    Returns:
      A state in which no two fields share a buffer.
    """
    _leaves.check_real(params)
    left_out = _leaves.booleans("exclude", exclude, params)
    floats = _leaves.FloatLeaves(params, left_out)
    compute_dtype = _leaves.compute_dtype(*floats.select(jax.tree.leaves(params)))
    num_groups = _leaves.groups(scope, params, floats)[1]

    def like_params(make):
        return _leaves.float_tree(make, params, left_out)

    def per_increment(make):
        return tuple(like_params(make) for _ in range(history.places))

    return PDTState(
        pdt_count=jnp.zeros([], jnp.int32),
        snapshots_taken=jnp.ones([], jnp.int32),
        predictions=jnp.zeros([], jnp.int32),
        last_prediction=jnp.zeros([], jnp.int32),
        anchor=like_params(_history.snapshot),
        increments=per_increment(lambda leaf: _history.no_increment(leaf, dtype)),
        scales=per_increment(_history.no_scales) if _storage.is_scaled(dtype) else (),
        fallback=like_params(_history.snapshot) if rollback else None,
        stream=history.nothing_seen(num_groups, compute_dtype),
        pace=pace,
        report=PredictionReport(
            operators=jnp.zeros((num_groups, history.places, history.places), compute_dtype),
            leaf_mask_ratio=jnp.zeros(len(floats), jnp.float32),
            mask_ratio=jnp.zeros([], jnp.float32),
            prediction_error=jnp.zeros([], jnp.float32),
            jump_candidate=jnp.full([], -1, jnp.int32),
            value_calls=jnp.zeros([], jnp.int32),
        ),
    )
