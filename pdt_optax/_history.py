"""The weight history: an anchor and the increments that led to it.

The newest snapshot is kept in full; older ones only as increments, whose inner
products stay accurate in float32 where those of the snapshots would cancel.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax._dmd import Gram
from pdt_optax._leaves import compute_dtype, float_tree, leaf_dtype


class History(NamedTuple):
    """The floating-point leaves of a weight history.

    Attributes:
      anchor: the newest snapshot, a list of leaves.
      increments: lists like `anchor`, oldest first.
    """

    anchor: list[jax.Array]
    increments: tuple[list[jax.Array], ...]

    def push(self, newest: list[jax.Array]) -> "History":
        """Appends a snapshot and drops the oldest."""
        differences = map(difference, newest, self.anchor)
        stored = zip(differences, self.increments[-1], strict=True)
        increment = [difference.astype(old.dtype) for difference, old in stored]
        return History(newest, (*self.increments[1:], increment))

    def replace_newest(self, newest: list[jax.Array]) -> "History":
        """Puts `newest` in the place of the newest snapshot."""
        changes = map(difference, newest, self.anchor)
        stored = zip(changes, self.increments[-1], strict=True)
        increment = [
            (old.astype(change.dtype) + change).astype(old.dtype) for change, old in stored
        ]
        return History(newest, (*self.increments[:-1], increment))

    def basis(self) -> list[list[jax.Array]]:
        """For each leaf the ``h`` arrays of the basis ``B``, in compute precision."""
        columns = zip(*self.increments, self.anchor, strict=True)
        return [[b.astype(compute_dtype(column[-1])) for b in column] for column in columns]


def anchor(params: Any) -> Any:
    """The parameters as the newest snapshot, in buffers of their own."""

    def copy(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jnp.zeros_like(leaf)
        return jnp.array(leaf, leaf_dtype(leaf), copy=True)

    return float_tree(copy, params)


def no_increment(params: Any, dtype: Any) -> Any:
    """An increment of zero, by default in the dtype of the parameters."""
    return float_tree(lambda leaf: jnp.zeros_like(leaf, dtype=dtype or leaf_dtype(leaf)), params)


def gram(columns: list[list[jax.Array]], groups: list[int], num_groups: int) -> Gram:
    """One Gram matrix for each group of leaves.

    Args:
      columns: the basis of each leaf, from :meth:`History.basis`.
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


def combine(coefficients: jax.Array, column: list[jax.Array]) -> jax.Array:
    """The sum of the ``h`` arrays of a leaf's basis with these coefficients, ``(h,)``."""
    terms: list[Any] = [c.astype(b.dtype) * b for c, b in zip(coefficients, column, strict=True)]
    return functools.reduce(operator.add, terms)


def difference(new: jax.Array, old: jax.Array) -> jax.Array:
    """``new - old`` in compute precision."""
    dtype = compute_dtype(new)
    return new.astype(dtype) - old.astype(dtype)
