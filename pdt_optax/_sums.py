"""Sums over the coordinates of all leaves of a group."""

from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp

from pdt_optax._layout import Ids, Layout
from pdt_optax._leaves import compute_dtype

AxisName = str | tuple[str, ...] | None


def of_block(arrays: Sequence[jax.Array], group: Ids) -> jax.Array:
    """Sums over the coordinates of a block, or of each of its rows; booleans are counted.

    Args:
      arrays: what is summed, alike in shape.
      group: what the block belongs to.

    Returns:
      Shape ``(arrays,)``, or ``(rows, arrays)`` where each row has a group.
    """
    if isinstance(group, int):
        return jnp.stack([_sum(array) for array in arrays])
    return jnp.stack([_sum(array, axis=-1) for array in arrays], axis=-1)


def by_group(
    sums: Sequence[jax.Array], ids: Sequence[Ids], num_groups: int, axis_name: AxisName = None
) -> jax.Array:
    """Adds the sums of the blocks of each group.

    Args:
      sums: as :func:`of_block` gives them.
      ids: group of each block, or of each of its rows.
      num_groups: how many groups there are.
      axis_name: axes of an enclosing :func:`jax.shard_map` that divide the blocks.

    Returns:
      The sums, shape ``(num_groups, arrays)``.
    """
    whole = _whole_axes(sums, axis_names(axis_name))
    names = tuple(name for name in axis_names(axis_name) if name not in whole)
    dtype = compute_dtype(*sums)
    zero = jnp.zeros(sums[0].shape[-1], dtype)
    of_groups, of_rows = [zero] * num_groups, None
    for part, group in zip(sums, ids, strict=True):
        part = part.astype(dtype) / math.prod(map(jax.lax.axis_size, _whole_axes([part], names)))
        if isinstance(group, int):
            of_groups[group] = part if of_groups[group] is zero else of_groups[group] + part
        else:
            member = jnp.asarray(group)[None] == jnp.arange(num_groups)[:, None]
            of_rows = jnp.where(member[:, :, None], part[None], 0).sum(axis=1)
    total = jnp.stack(of_groups)
    total = total if of_rows is None else total + of_rows
    return jax.lax.psum(total, names) if names else total


def by_leaf(
    layout: Layout, blocks: Sequence[Sequence[jax.Array]], axis_name: AxisName
) -> jax.Array:
    """Sums over the coordinates of each leaf; booleans are counted.

    Args:
      layout: how the leaves lie in blocks.
      blocks: of each block what is summed, arrays like the block.
      axis_name: axes of an enclosing :func:`jax.shard_map` that divide the blocks.

    Returns:
      The sums, shape ``(leaves, arrays)``.
    """
    leaves = list(range(len(layout)))
    ids = layout.ids(leaves)
    sums = [of_block(arrays, leaf) for arrays, leaf in zip(blocks, ids, strict=True)]
    return by_group(sums, ids, len(leaves), axis_name)


def _sum(array: jax.Array, axis: int | None = None) -> jax.Array:
    return jnp.sum(array, axis=axis, dtype=jnp.float32 if array.dtype == bool else None)


def leaf_sizes(layout: Layout, blocks: Sequence[jax.Array], axis_name: AxisName) -> list[int]:
    """Numbers of coordinates of the leaves, on all devices together."""
    if axis_name is None:
        return layout.sizes
    names = axis_names(axis_name)  # Where they are given, each leaf is a block.

    def parts(block: jax.Array) -> int:
        return math.prod(map(jax.lax.axis_size, set(names) - set(_whole_axes([block], names))))

    return [size * parts(block) for size, block in zip(layout.sizes, blocks, strict=True)]


def check_axis_name(name: str, axis_name: Any) -> None:
    """Raises ValueError unless it is None, a string, or a tuple of some."""
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    if axis_name is not None and not (names and all(isinstance(n, str) for n in names)):
        raise ValueError(
            f"`{name}` must be None, the name of a mesh axis or a tuple of names, "
            f"got {axis_name!r}."
        )


def check_same(
    name: str, value: jax.Array, leaves: Sequence[jax.Array], axis_name: AxisName
) -> None:
    """Raises ValueError if devices that hold one model are known to have different values."""
    if differs := sorted(_varying(value) - _models(leaves, axis_name)):
        raise ValueError(
            f"`{name}` must be the same on all devices that hold one model, got one that differs "
            f"along {differs}: pass jax.lax.pmean(..., {differs})."
        )


def over_copies(
    sums: jax.Array, values: Sequence[jax.Array], leaves: Sequence[jax.Array], axis_name: AxisName
) -> jax.Array:
    """Adds sums over values that devices with the same model are known to share among them."""
    names = sorted(_varying(*values) - _models(leaves, axis_name))
    return jax.lax.psum(sums, tuple(names)) if names else sums


def _models(leaves: Sequence[jax.Array], axis_name: AxisName) -> frozenset[str]:
    """Axes along which lie different models."""
    return _varying(*leaves) - set(axis_names(axis_name))


def unrecorded_axes() -> list[str]:
    """Axes of an enclosing `shard_map` or `pmap` that keeps no record of what varies along them."""
    names = jax.sharding.get_abstract_mesh().manual_axes
    return sorted(name for name in names if name not in _varying(jax.lax.axis_index(name)))


def axis_names(axis_name: AxisName) -> tuple[str, ...]:
    """A tuple of names."""
    if axis_name is None:
        return ()
    return axis_name if isinstance(axis_name, tuple) else (axis_name,)


def _whole_axes(arrays: Sequence[jax.Array], names: tuple[str, ...]) -> list[str]:
    """Axes along which each device holds the same; none if `shard_map` keeps no record."""
    recorded = _varying(*(jax.lax.axis_index(name) for name in names))
    return [name for name in names if name in recorded - _varying(*arrays)]


def _varying(*arrays: jax.Array) -> frozenset[str]:
    """Axes along which some of the arrays are known to vary."""
    avals: list[Any] = list(map(jax.typeof, arrays))
    return frozenset[str]().union(
        *(aval.mat.varying if hasattr(aval, "mat") else aval.vma for aval in avals)
    )  # `vma` before jax 0.10.
