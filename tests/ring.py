"""What a state holds of the weights, as trees like the parameters."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pdt_optax import _quantize
from pdt_optax._layout import SmallLeaf


def anchor(state: Any, params: Any) -> Any:
    """The newest snapshot."""
    return _whole(state.history.anchor, state.history.rows.newest, params)


def in_time(state: Any, params: Any) -> tuple[Any, ...]:
    """The increments, oldest first; those that are stored with scales multiplied with them."""
    history = state.history
    places = len(history.increments)
    oldest = (int(history.snapshots_taken) - 1) % places
    found = []
    for place in (*range(oldest, places), *range(oldest)):
        tree, rows = history.increments[place], history.rows.ring[place]
        if history.scales:
            tree = jax.tree.map(_decoded, tree, history.scales[place])
            rows = _decoded(rows, history.rows.ring_scales[place])
        found.append(_whole(tree, rows, params))
    return tuple(found)


@jax.jit
def _decoded(codes, scales):
    return _quantize.decode(codes, scales, jnp.float32)


def _whole(tree, rows, params):
    """Leaves that lie by themselves, and those that lie end to end, each from a new row on."""
    ends = iter(np.asarray(rows))

    def leaf(held, param):
        if not isinstance(held, SmallLeaf):
            return held
        size, shape = math.prod(np.shape(param)), np.shape(param)
        found = np.concatenate([[], *(next(ends) for _ in range(-(-size // 128)))])
        assert not found[size:].any()
        return found[:size].reshape(shape).astype(rows.dtype)

    found = jax.tree.map(leaf, tree, params, is_leaf=lambda n: isinstance(n, optax.MaskedNode))
    assert not any(row.any() for row in ends)
    return found
