"""How the leaves lie in a history: large ones by themselves, small ones end to end.

A program is compiled array by array, and every array costs time at each call. So the
small leaves of one dtype are one array, of which each begins a new row.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import optax

from pdt_optax._leaves import FloatLeaves, leaf_dtype

ROW = 128
LARGEST_SMALL = 2**12  # Numbers in a leaf.

Ids = int | np.ndarray
"""What a block belongs to: one number, or one for each row of small leaves, ``(rows,)``."""


class SmallLeaf(optax.MaskedNode):
    """Takes the place of a small leaf in a tree of large ones."""


class Layout:
    """The leaves that take part as blocks: the rows of small leaves, if any, then large leaves.

    Attributes:
      floats: the leaves that take part.
      sizes: numbers in each of them; on one device, inside :func:`jax.shard_map`.
      small: those that lie in the rows, as positions among the leaves that take part: of one
        to 4,096 numbers, and of the dtype that most of these have.
      large: the others.
      dtype: of the rows.
      num_rows: at least one, so that a state always has rows.
    """

    def __init__(self, params: Any, left_out: Any = False, *, joins: bool = True):
        self.floats = FloatLeaves(params, left_out)
        leaves = self.floats.select(jax.tree.leaves(params))
        self.sizes = [math.prod(np.shape(leaf)) for leaf in leaves]
        dtypes = list(map(leaf_dtype, leaves))
        fit = [n for n, size in enumerate(self.sizes) if joins and 0 < size <= LARGEST_SMALL]
        most = collections.Counter(dtypes[n] for n in fit).most_common(1)
        self.dtype = most[0][0] if most else np.dtype(np.float32)
        self.small = [n for n in fit if dtypes[n] == self.dtype]
        self.large = [n for n in range(len(leaves)) if n not in set(self.small)]
        self.num_rows = max(1, sum(self._rows_of(leaf) for leaf in self.small))

    def __len__(self) -> int:
        return len(self.sizes)

    def ids(self, of_leaves: Sequence[int]) -> list[Ids]:
        """For each block a number for all of it, or one for each row."""
        of_large: list[Ids] = [of_leaves[leaf] for leaf in self.large]
        if not self.small:
            return of_large
        of_small = [of_leaves[leaf] for leaf in self.small]
        if len(set(of_small)) == 1:
            return [of_small[0], *of_large]
        return [np.repeat(of_small, [self._rows_of(leaf) for leaf in self.small]), *of_large]

    def blocks(self, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        """The leaves that take part as blocks."""
        large = [leaves[leaf] for leaf in self.large]
        return [self.rows(leaves), *large] if self.small else large

    def rows(self, leaves: Sequence[jax.Array] | Mapping[int, jax.Array]) -> jax.Array:
        """The small leaves end to end, ``(num_rows, ROW)``; of the widest dtype among them."""
        dtype = jnp.result_type(*(leaves[leaf] for leaf in self.small))
        parts = []
        for leaf in self.small:
            parts.append(_flat(leaves[leaf]).astype(dtype))
            parts.append(np.zeros(-self.sizes[leaf] % ROW, dtype))
        return _whole(jnp.concatenate([part for part in parts if part.size]).reshape(-1, ROW))

    def narrowest(self, leaves: Sequence[jax.Array]) -> list[Any]:
        """For each block the narrowest dtype in it."""
        large = [leaves[leaf].dtype for leaf in self.large]
        small = [leaves[leaf].dtype for leaf in self.small]
        return [min(small, key=lambda dtype: jnp.finfo(dtype).bits), *large] if small else large

    def leaves(self, blocks: Sequence[jax.Array], like: Sequence[Any]) -> list[jax.Array]:
        """The leaves that lie in the blocks; shapes, dtypes, typed shardings as of `like`."""
        found = dict(zip(self.large, blocks[len(blocks) - len(self.large) :], strict=True))
        if self.small:
            rows, first = _whole(blocks[0]), 0
            for leaf in self.small:
                last = first + self._rows_of(leaf)
                found[leaf] = _from_rows(rows[first:last], like[leaf])
                first = last
        return [found[leaf] for leaf in range(len(self))]

    def large_tree(self, make: Callable[[Any], Any], params: Any) -> Any:
        """`make` of each large leaf of `params`, in a tree like it."""
        leaves = self.floats.select(jax.tree.leaves(params))
        is_large = set(self.large)
        return self.floats.tree(
            make(leaf) if n in is_large else SmallLeaf() for n, leaf in enumerate(leaves)
        )

    def _rows_of(self, leaf: int) -> int:
        return -(-self.sizes[leaf] // ROW)


def _flat(leaf: jax.Array) -> jax.Array:
    return _whole(leaf).reshape(-1)


def _whole(array: jax.Array) -> jax.Array:
    """The array, replicated over its mesh if it has one."""
    mesh = jax.typeof(array).sharding.mesh
    whole = NamedSharding(mesh, PartitionSpec())
    if _is_explicit(array):
        return jax.sharding.reshard(array, whole)
    is_auto = AxisType.Auto in getattr(mesh, "axis_types", ())
    return jax.lax.with_sharding_constraint(array, whole) if is_auto else array


def _from_rows(rows: jax.Array, like: jax.Array) -> jax.Array:
    leaf = rows.reshape(-1)[: like.size].reshape(like.shape).astype(like.dtype)
    if _is_explicit(like):
        return jax.sharding.reshard(leaf, jax.typeof(like).sharding)
    return _whole(leaf)


def _is_explicit(leaf: jax.Array) -> bool:
    return any(part is not None for part in jax.typeof(leaf).sharding.spec)
