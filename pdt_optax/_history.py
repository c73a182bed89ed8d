"""The weight history: an anchor and the increments that led to it.

The newest snapshot is kept in full; older ones only as increments, whose inner
products stay accurate in float32 where those of the snapshots would cancel.
"""

from collections.abc import Callable
import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax import _storage, _sums
from pdt_optax._dmd import Gram
from pdt_optax._leaves import compute_dtype, leaf_dtype
from pdt_optax._once import at_most_once, once_if

_Leaves = list[jax.Array]


class History(NamedTuple):
    """The leaves of a weight history that take part.

    Attributes:
      anchor: the newest snapshot, a list of leaves.
      increments: a ring of lists like `anchor`, see :func:`slot`.
      scales: lists like `anchor`, of the increments, if their dtype needs them.
      stream: with :class:`pdt_optax.Streaming` what was seen, in coordinates of the
        directions that stand in the place of increments.
    """

    anchor: _Leaves
    increments: tuple[_Leaves, ...]
    scales: tuple[_Leaves, ...] = ()
    stream: Any = None

    def push(self, newest: _Leaves, slot: jax.Array) -> "History":
        """Appends a snapshot; its increment takes the place of the oldest, at `slot`."""
        return self._write(newest, slot, lambda _, new, old: difference(new, old))

    def replace_newest(self, newest: _Leaves, slot: jax.Array) -> "History":
        """Puts `newest` in the place of the newest snapshot, whose increment is at `slot`."""
        return self._write(
            newest, slot, lambda increment, new, old: increment + difference(new, old)
        )

    def basis(self) -> list[_Leaves]:
        """For each leaf the increments, in the order of the ring, and the anchor.

        In compute precision.
        """
        increments = [self.increment(k) for k in range(len(self.increments))]
        anchor = [leaf.astype(compute_dtype(leaf)) for leaf in self.anchor]
        return [list(column) for column in zip(*increments, anchor, strict=True)]

    def increment(self, k: int) -> _Leaves:
        """That at place `k` of the ring, in compute precision."""
        dtypes = map(compute_dtype, self.anchor)
        scales = self.scales[k] if self.scales else [None] * len(self.anchor)
        stored = map(_on_device, self.increments[k])
        return list(map(_storage.decode, stored, scales, dtypes))

    def with_increment(self, k: int, increment: _Leaves) -> "History":
        """Stores that at place `k`."""
        dtypes = [stored.dtype for stored in self.increments[k]]
        stored, scales = zip(*map(_storage.encode, increment, dtypes), strict=True)
        stored = list(map(_beside, stored, self.increments[k]))
        return self._replace(
            increments=_replaced(self.increments, k, stored),
            scales=_replaced(self.scales, k, list(scales)) if self.scales else (),
        )

    def _write(self, newest: _Leaves, slot: jax.Array, change: Callable[..., jax.Array]):
        """Writes nothing but one increment and the anchor."""

        def write(held: "History", k: int) -> "History":
            changed = map(change, held.increment(k), newest, held.anchor)
            return held.with_increment(k, list(changed))

        held, is_pending = self, jnp.zeros([], bool)
        for k in range(len(self.increments)):
            pending, held = at_most_once(slot == k, functools.partial(write, k=k), held)
            is_pending |= pending
        # XLA copies an anchor that is overwritten before the loops have read it; for a TPU it
        # copies more of eight bits if one loop waits for another.
        anchor = jax.lax.platform_dependent(
            tpu=lambda: newest,
            default=lambda: once_if(~is_pending, lambda _: newest, held.anchor),
        )
        return held._replace(anchor=anchor)


def slot(snapshots_taken: jax.Array, history: int) -> jax.Array:
    """Where in the ring the increment to the next snapshot goes: the place of the oldest."""
    return (snapshots_taken - 1) % (history - 1)


def _replaced(entries: tuple[_Leaves, ...], k: int, new: _Leaves) -> tuple[_Leaves, ...]:
    return (*entries[:k], new, *entries[k + 1 :])


def _on_device(stored: jax.Array) -> jax.Array:
    """The array, fetched if it lies in the host's memory."""
    is_there = jax.typeof(stored).memory_space != jax.memory.Space.Host
    return stored if is_there else jax.device_put(stored, jax.memory.Space.Device)


def _beside(new: jax.Array, old: jax.Array) -> jax.Array:
    """`new` in the memory where `old` lies."""
    is_there = jax.typeof(old).memory_space != jax.memory.Space.Host
    return new if is_there else jax.device_put(new, jax.memory.Space.Host)


def snapshot(leaf: Any) -> jax.Array:
    """A leaf of the parameters as the newest snapshot, in a buffer of its own."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.zeros_like(leaf)
    return jnp.array(leaf, leaf_dtype(leaf), copy=True)


def no_increment(leaf: Any, dtype: Any) -> jax.Array:
    """An increment of zero, by default in the dtype of the leaf, or in bfloat16 for eight bits."""
    own = leaf_dtype(leaf)
    return jnp.zeros_like(leaf, dtype=dtype or (own if own.itemsize > 1 else jnp.bfloat16))


def no_scales(leaf: Any) -> jax.Array:
    """The scales of an increment of zero."""
    return jnp.zeros(_storage.scales_shape(jnp.shape(leaf)), jnp.bfloat16)


def gram(
    columns: list[_Leaves],
    groups: list[int],
    num_groups: int,
    axis_name: _sums.AxisName = None,
    vectors: Callable[[_Leaves], _Leaves] = list,
) -> Gram:
    """One Gram matrix for each group of leaves.

    Args:
      columns: arrays of each leaf.
      groups: group of each leaf.
      num_groups: how many groups there are.
      axis_name: axes that divide the leaves.
      vectors: from the arrays of a leaf to those whose inner products are taken, element by
        element, in compute precision.

    Returns:
      Gram matrices of shape ``(num_groups, n, n)`` and sizes ``(num_groups,)``.
    """
    dtype = compute_dtype(*(column[-1] for column in columns))
    size = len(jax.eval_shape(vectors, columns[0]))
    row, col = np.tril_indices(size)

    def products(column: _Leaves) -> list[jax.Array]:
        of_leaf = vectors(column)
        return [of_leaf[i] * of_leaf[j] for i, j in zip(row, col, strict=True)]

    member = np.arange(num_groups)[:, None] == np.asarray(groups)
    sums = _sums.over_groups(products, columns, groups, num_groups, axis_name).astype(dtype)
    matrix = jnp.zeros((num_groups, size, size), dtype)
    matrix = matrix.at[:, row, col].set(sums).at[:, col, row].set(sums)
    sizes = member @ np.asarray(_sums.leaf_sizes([c[-1] for c in columns], axis_name), float)
    return Gram(matrix, jnp.asarray(sizes, dtype))


def gram_of_many(columns: list[_Leaves], groups: list[int], num_groups: int) -> Gram:
    """As :func:`gram`, slower to run but quick to compile however many arrays a leaf has."""
    dtype = compute_dtype(*(column[-1] for column in columns))
    size = len(columns[0])
    matrix, sizes = jnp.zeros((num_groups, size, size), dtype), np.zeros(num_groups)
    for column, group in zip(columns, groups, strict=True):
        rows = jnp.stack([array.reshape(-1) for array in column])
        products = jnp.matmul(rows, rows.T, precision="highest")
        matrix = matrix.at[group].add(products.astype(dtype))
        sizes[group] += column[-1].size
    return Gram(matrix, jnp.asarray(sizes, dtype))


def combine(coefficients: jax.Array, column: _Leaves) -> jax.Array:
    """The sum of the ``h`` arrays of a leaf's basis with these coefficients, ``(h,)``."""
    terms: list[Any] = [c.astype(b.dtype) * b for c, b in zip(coefficients, column, strict=True)]
    return functools.reduce(operator.add, terms)


def difference(new: jax.Array, old: jax.Array) -> jax.Array:
    """``new - old`` in compute precision."""
    dtype = compute_dtype(new)
    return new.astype(dtype) - old.astype(dtype)
