"""The weight history: an anchor and the increments that led to it.

The newest snapshot is kept in full; older ones only as increments, whose inner
products stay accurate in float32 where those of the snapshots would cancel.
"""

from collections.abc import Sequence
import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pdt_optax import _quantize
from pdt_optax._basis import Column, difference
from pdt_optax._layout import ROW, Layout
from pdt_optax._leaves import compute_dtype, leaf_dtype


class Stored(NamedTuple):
    """What a history holds of one block.

    Attributes:
      newest: the newest snapshot.
      ring: the increments: a list of arrays like the newest snapshot, or of rows one array.
      ring_scales: of the increments, if their dtype needs them; otherwise None.
    """

    newest: jax.Array
    ring: Any
    ring_scales: Any

    def column(self) -> "Column":
        """The increments, in the order of the ring, and the anchor; in compute precision."""
        dtype = compute_dtype(self.newest)
        newest = self.newest.astype(dtype)
        if isinstance(self.ring, jax.Array):
            return jnp.stack([*_quantize.decode(self.ring, self.ring_scales, dtype), newest])
        scales = [None] * len(self.ring) if self.ring_scales is None else self.ring_scales
        decode = functools.partial(_quantize.decode, dtype=dtype)
        return [*map(decode, self.ring, scales), newest]

    def with_newest(self, newest: jax.Array) -> "Stored":
        """The same with another newest snapshot."""
        return self._replace(newest=newest.astype(self.newest.dtype))

    def write(self, slot: jax.Array | int, increment: jax.Array) -> "Stored":
        """Stores an increment at a place of the ring."""
        codes, scales = _quantize.encode(increment, self.ring[0].dtype)
        return self._replace(
            ring=_written(self.ring, slot, codes),
            ring_scales=None if scales is None else _written(self.ring_scales, slot, scales),
        )


class History(NamedTuple):
    """The weight history in the state of :func:`pdt_optax.pdt`.

    The trees hold the large leaves; small ones are laid end to end in `rows`. In the place of
    a small leaf, and of one that takes no part, stands an :class:`optax.MaskedNode`.

    Attributes:
      snapshots_taken: int32, snapshots so far; the initial parameters are one.
      anchor: the newest snapshot, a tree like the parameters.
      increments: ``h - 1`` trees like the parameters, a ring: the increment to the n-th
        snapshot after the initial parameters, from 0, is at place ``n % (h - 1)``. With
        :class:`pdt_optax.Streaming` in their place the `rank` directions, of mean square 1
        and orthogonal, or zero.
      scales: with int8 ``h - 1`` trees like the parameters, of bfloat16 scales for blocks of
        the increments' last axis; otherwise empty.
      rows: of the small leaves the newest snapshot ``(R, 128)``, the increments
        ``(h - 1, R, 128)``, and with int8 their scales ``(h - 1, R, 2)``. Replicated where the
        leaves are sharded.
      stream: with :class:`pdt_optax.Streaming` what was seen, in coordinates of the
        directions; otherwise None.
    """

    snapshots_taken: jax.Array
    anchor: Any
    increments: tuple[Any, ...]
    scales: tuple[Any, ...]
    rows: Stored
    stream: Any = None

    def stored(self, layout: Layout) -> list[Stored]:
        """Of each block what is held."""
        anchors, increments, scales = (
            [jax.tree.leaves(tree) for tree in trees]
            for trees in ((self.anchor,), self.increments, self.scales)
        )
        large = [
            Stored(anchors[0][n], [i[n] for i in increments], [s[n] for s in scales] or None)
            for n in range(len(layout.large))
        ]
        return [self.rows, *large] if layout.small else large

    def with_stored(self, layout: Layout, stored: Sequence[Stored]) -> "History":
        """The same with other contents."""
        rows, large = (stored[0], stored[1:]) if layout.small else (self.rows, stored)

        def tree(like: Any, leaves: list[jax.Array]) -> Any:
            return jax.tree.unflatten(jax.tree.structure(like), leaves)

        def trees(likes: tuple[Any, ...], rings: list[Any]) -> tuple[Any, ...]:
            return tuple(tree(like, [ring[k] for ring in rings]) for k, like in enumerate(likes))

        return self._replace(
            anchor=tree(self.anchor, [part.newest for part in large]),
            increments=trees(self.increments, [part.ring for part in large]),
            scales=trees(self.scales, [part.ring_scales for part in large]),
            rows=rows,
        )

    def columns(self, layout: Layout) -> list[Column]:
        """Of each block the ``h`` arrays of the basis, in the order of the ring."""
        return [part.column() for part in self.stored(layout)]


def init(layout: Layout, params: Any, places: int, dtype: Any, stream: Any = None) -> History:
    """The history that holds the initial parameters.

    Args:
      layout: of the parameters.
      params: arrays or :class:`jax.ShapeDtypeStruct`.
      places: increments, or directions, that are kept.
      dtype: of the increments; None for that of the parameters.
      stream: with :class:`pdt_optax.Streaming` what was seen.
    """
    is_scaled = _quantize.is_scaled(dtype)

    def trees(make: Any) -> tuple[Any, ...]:
        return tuple(layout.large_tree(make, params) for _ in range(places))

    leaves = layout.floats.select(jax.tree.leaves(params))
    small = {leaf: snapshot(leaves[leaf]) for leaf in layout.small}
    shape = (layout.num_rows, ROW)
    newest = jax.jit(layout.rows)(small) if small else jnp.zeros(shape, layout.dtype)
    rows = Stored(
        newest=newest,
        ring=jnp.zeros((places, *shape), dtype or layout.dtype),
        ring_scales=jnp.stack([_quantize.no_scales(newest)] * places) if is_scaled else None,
    )
    return History(
        snapshots_taken=jnp.ones([], jnp.int32),
        anchor=layout.large_tree(snapshot, params),
        increments=trees(lambda leaf: jnp.zeros_like(leaf, dtype=dtype or leaf_dtype(leaf))),
        scales=trees(_quantize.no_scales) if is_scaled else (),
        rows=rows,
        stream=stream,
    )


def push(history: History, layout: Layout, newest: Sequence[jax.Array], slot: jax.Array) -> History:
    """Appends a snapshot, in blocks; its increment takes the place at `slot`."""
    return _changed(history, layout, newest, slot, adds=False)._replace(
        snapshots_taken=optax.safe_increment(history.snapshots_taken)
    )


def replace_newest(
    history: History, layout: Layout, newest: Sequence[jax.Array], slot: jax.Array
) -> History:
    """Replaces the newest snapshot, whose increment is at `slot`, by `newest`."""
    return _changed(history, layout, newest, slot, adds=True)


def _changed(
    history: History, layout: Layout, newest: Sequence[jax.Array], slot: jax.Array, *, adds: bool
) -> History:
    stored = []
    for part, new in zip(history.stored(layout), newest, strict=True):
        increment = difference(new, part.newest)
        if adds:
            column = part.column()[:-1]
            increment += functools.reduce(
                operator.add, (jnp.where(slot == k, old, 0) for k, old in enumerate(column))
            )
        stored.append(part.write(slot, increment).with_newest(new))
    return history.with_stored(layout, stored)


def _written(ring: Any, slot: jax.Array | int, new: jax.Array) -> Any:
    if isinstance(ring, list):
        return [jnp.where(slot == k, new, old) for k, old in enumerate(ring)]
    return jax.lax.dynamic_update_index_in_dim(ring, new, slot, 0)


def snapshot(leaf: Any) -> jax.Array:
    """A leaf of the parameters in a buffer of its own."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.zeros_like(leaf)
    return jnp.array(leaf, leaf_dtype(leaf), copy=True)
