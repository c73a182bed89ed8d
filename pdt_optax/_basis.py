"""The basis of a history: inner products, and combinations with few coefficients.

The basis of a block are the ``h - 1`` increments and the newest snapshot.
"""

from collections.abc import Sequence
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax import _sums
from pdt_optax._layout import Ids, Layout
from pdt_optax._leaves import compute_dtype

Column = list[jax.Array] | jax.Array
"""The arrays of a block's basis: of a large leaf a list, of rows one array ``(h, rows, ROW)``."""


def gram(
    columns: Sequence[Column],
    ids: Sequence[Ids],
    num_groups: int,
    axis_name: _sums.AxisName = None,
) -> jax.Array:
    """Inner products of the ``n`` arrays of each block, summed over the blocks of a group.

    Args:
      columns: of each block the arrays, in compute precision.
      ids: group of each block, or of each of its rows.
      num_groups: how many groups there are.
      axis_name: axes of an enclosing :func:`jax.shard_map` that divide the blocks.

    Returns:
      Shape ``(num_groups, n, n)``.
    """
    size = len(columns[0])
    row, col = np.tril_indices(size)
    sums = []
    for column, group in zip(columns, ids, strict=True):
        if isinstance(column, jax.Array):
            flat = column.reshape(size, -1)
            of_rows = functools.partial(jnp.einsum, precision="highest")
            products = (
                of_rows("in,jn->ij", flat, flat)
                if isinstance(group, int)
                else of_rows("irk,jrk->rij", column, column)
            )
            sums.append(products[..., row, col])
        else:
            pairs = zip(row, col, strict=True)
            sums.append(_sums.of_block([column[i] * column[j] for i, j in pairs], group))
    place = np.zeros((size, size), int)
    place[row, col] = place[col, row] = np.arange(len(row))
    return _sums.by_group(sums, ids, num_groups, axis_name)[:, place]


def group_sizes(
    layout: Layout,
    groups: tuple[Sequence[int], int],
    blocks: Sequence[jax.Array],
    axis_name: _sums.AxisName,
) -> np.ndarray:
    """Numbers of coordinates of the groups of leaves."""
    sizes = np.zeros(groups[1])
    np.add.at(sizes, np.asarray(groups[0], int), _sums.leaf_sizes(layout, blocks, axis_name))
    return sizes


def of_group(values: jax.Array, group: Ids) -> jax.Array:
    """``values[group]``; for rows of several groups with axes ``(rows, 1)`` at the end."""
    if isinstance(group, int):
        return values[group]
    return jnp.moveaxis(values[group], 0, -1)[..., None]


def extended(column: Column, array: jax.Array) -> Column:
    """The column and one more array."""
    if isinstance(column, jax.Array):
        return jnp.concatenate([column, array[None]])
    return [*column, array]


def combinations(coefficients: jax.Array, column: Column, group: Ids) -> list[jax.Array]:
    """Sums of the ``h`` arrays of a block's basis.

    Args:
      coefficients: of each group and sum, ``(G, sums, h)``.
      column: the basis.
      group: of the block, or of each of its rows.
    """
    own = coefficients[group]
    if not isinstance(column, jax.Array):
        return [combine(row, column) for row in own]
    of = "ph,hrk->prk" if isinstance(group, int) else "rph,hrk->prk"
    return list(jnp.einsum(of, own.astype(column.dtype), column, precision="highest"))


def combine(coefficients: jax.Array, column: Sequence[jax.Array]) -> jax.Array:
    """The sum of the ``h`` arrays of a leaf's basis with these coefficients, ``(h,)``."""
    terms: list[Any] = [c.astype(b.dtype) * b for c, b in zip(coefficients, column, strict=True)]
    return functools.reduce(operator.add, terms)


def difference(new: jax.Array, old: jax.Array) -> jax.Array:
    """``new - old`` in compute precision."""
    dtype = compute_dtype(new)
    return new.astype(dtype) - old.astype(dtype)
