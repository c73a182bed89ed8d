"""The weight history: an anchor and the increments that led to it.

The newest snapshot is kept in full; older ones only as increments, whose inner
products stay accurate in float32 where those of the snapshots would cancel.
Trees hold the floating-point leaves of the parameters alone: others are
replaced by :class:`optax.MaskedNode`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax._dmd import Gram
from pdt_optax._leaves import compute_dtype, float_tree, leaf_dtype


def init(params: Any, history: int, dtype: Any) -> tuple[Any, tuple[Any, ...]]:
    """Anchor at the parameters, and ``history - 1`` increments of zero."""

    def copy(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jnp.zeros_like(leaf)
        return jnp.array(leaf, leaf_dtype(leaf), copy=True)

    def zeros(leaf):
        return jnp.zeros_like(leaf, dtype=dtype or leaf_dtype(leaf))

    return float_tree(copy, params), tuple(float_tree(zeros, params) for _ in range(history - 1))


def push(anchor: Any, increments: tuple[Any, ...], newest: list[jax.Array]) -> tuple[Any, Any]:
    """Appends a snapshot and drops the oldest.

    Args:
      anchor: the newest snapshot so far.
      increments: oldest first.
      newest: leaves of the snapshot to append, like those of `anchor`.

    Returns:
      The new anchor and increments.
    """
    new_anchor = jax.tree.unflatten(jax.tree.structure(anchor), newest)

    def increment_of(new, old, stored):
        return _difference(new, old).astype(stored.dtype)

    increment = jax.tree.map(increment_of, new_anchor, anchor, increments[-1])
    return new_anchor, (*increments[1:], increment)


def replace_newest(
    anchor: Any, increments: tuple[Any, ...], newest: list[jax.Array]
) -> tuple[Any, Any]:
    """Puts `newest` in the place of the newest snapshot; arguments as of :func:`push`."""
    new_anchor = jax.tree.unflatten(jax.tree.structure(anchor), newest)

    def corrected(new, old, stored):
        change = _difference(new, old)
        return (stored.astype(change.dtype) + change).astype(stored.dtype)

    increment = jax.tree.map(corrected, new_anchor, anchor, increments[-1])
    return new_anchor, (*increments[:-1], increment)


def basis(anchor: Any, increments: tuple[Any, ...]) -> list[list[jax.Array]]:
    """For each leaf the ``h`` arrays of the basis ``B``, in compute precision."""
    columns = zip(*map(jax.tree.leaves, (*increments, anchor)), strict=True)
    return [[b.astype(compute_dtype(column[-1])) for b in column] for column in columns]


def gram(columns: list[list[jax.Array]], groups: list[int], num_groups: int) -> Gram:
    """One Gram matrix for each group of leaves.

    Args:
      columns: the basis of each leaf, from :func:`basis`.
      groups: group of each leaf.
      num_groups: how many groups there are.

    Returns:
      Gram matrices of shape ``(num_groups, h, h)`` and sizes ``(num_groups,)``.
    """
    dtype = compute_dtype(*(column[-1] for column in columns))
    history = len(columns[0])
    row, col = np.tril_indices(history)
    sums = jnp.zeros((num_groups, row.size), dtype)
    sizes = np.zeros(num_groups)
    for column, group in zip(columns, groups, strict=True):
        products = [jnp.sum(column[i] * column[j]) for i, j in zip(row, col, strict=True)]
        sums = sums.at[group].add(jnp.stack(products).astype(dtype))
        sizes[group] += column[-1].size
    matrix = jnp.zeros((num_groups, history, history), dtype)
    matrix = matrix.at[:, row, col].set(sums).at[:, col, row].set(sums)
    return Gram(matrix, jnp.asarray(sizes, dtype))


def _difference(new: jax.Array, old: jax.Array) -> jax.Array:
    dtype = compute_dtype(new)
    return new.astype(dtype) - old.astype(dtype)
