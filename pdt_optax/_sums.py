"""Sums over the coordinates of all leaves, in one collective whatever their shardings."""

from collections.abc import Callable
import functools
import math
import operator
from typing import Any

import jax
from jax.experimental.custom_partitioning import (
    ArrayMapping,
    SdyShardingRule,
    custom_partitioning,
)
import jax.numpy as jnp
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec
import numpy as np

AxisName = str | tuple[str, ...] | None
_Columns = list[list[jax.Array]]
_Terms = Callable[[list[jax.Array]], list[jax.Array]]
# A row is summed one number after the other: the shorter the more accurate.
_LONG_ROW, _SHORT_ROW, _LARGE, _LANES = 512, 32, 2**16, 4


def over_leaves(terms: _Terms, columns: _Columns, axis_name: AxisName = None) -> jax.Array:
    """Sums of every leaf over its coordinates, wherever they lie.

    XLA would reduce each sharded leaf by itself. Here each device sums what it
    holds of all leaves, and one all-reduce adds these small sums.

    Args:
      terms: what is summed, element by element: from the arrays of a leaf to arrays
        of its shape.
      columns: the arrays of each leaf.
      axis_name: axes of an enclosing :func:`jax.shard_map` that divide the leaves.

    Returns:
      The sums for each leaf, shape ``(L, terms)``.
    """

    def plain(column: list[jax.Array]) -> jax.Array:
        return jnp.stack([jnp.sum(term) for term in terms(column)])

    def whole(columns: _Columns) -> jax.Array:
        return jnp.stack([plain(column) for column in columns])

    def local(column: list[jax.Array]) -> jax.Array:
        one_pass = functools.partial(_in_one_pass, terms)
        return jax.lax.platform_dependent(column, cpu=one_pass, default=plain)

    if axis_name is not None:
        names = axis_names(axis_name)
        parts = [_once(local(c), _whole_axes(c, names)) for c in columns]
        return jax.lax.psum(jnp.stack(parts), names)
    if jax.sharding.get_abstract_mesh().manual_axes:
        return whole(columns)

    def anywhere(columns: _Columns) -> jax.Array:
        """The TPU's compiler knows no custom partitioning; it joins the reductions by itself."""
        return jax.lax.platform_dependent(columns, tpu=whole, default=_partitioned(local, plain))

    return _transformable(whole, anywhere)(columns)


def _in_one_pass(terms: _Terms, column: list[jax.Array]) -> jax.Array:
    """All sums from one reading of the arrays.

    XLA's CPU compiler writes out what it sums, and reads the arrays for each sum
    anew, unless the sums are one reduction of several operands.
    """
    flat = [array.reshape(-1) for array in column]
    size = flat[0].size
    row = _LONG_ROW if size >= _LARGE else _SHORT_ROW
    whole = size - size % row
    sums = []
    if whole:
        sums.append(_of_rows(terms, [array[:whole].reshape(-1, row) for array in flat]))
    if whole < size or not size:
        sums.append(_of_rows(terms, [array[whole:][None] for array in flat]))
    return functools.reduce(operator.add, sums)


def _of_rows(terms: _Terms, rows: list[jax.Array]) -> jax.Array:
    """Lanes let the compiler use vector instructions; small leaves are not worth compiling them."""
    summands = terms(rows)
    num_terms = len(summands)
    if num_terms > 1 and rows[0].size >= _LARGE:
        lanes = [terms([row[:, lane::_LANES] for row in rows]) for lane in range(_LANES)]
        summands = [functools.reduce(operator.add, lane) for lane in zip(*lanes, strict=True)]
    if num_terms == 1:
        summands.append(rows[0])
    operators = [operator.add] * num_terms + [jnp.maximum] * (len(summands) - num_terms)

    def combine(some, others):
        return [op(a, b) for op, a, b in zip(operators, some, others, strict=True)]

    zeros = [np.zeros((), summand.dtype) for summand in summands]
    reduced = jax.lax.reduce(summands, zeros, combine, (1,))
    of_rows = jax.lax.optimization_barrier(reduced)  # Or the one without a use would be dropped.
    return jnp.sum(jnp.stack(of_rows[:num_terms]), axis=1)


def check_axis_name(name: str, axis_name: Any) -> None:
    """Raises ValueError unless it is None, a string, or a tuple of some."""
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    if axis_name is not None and not (names and all(isinstance(n, str) for n in names)):
        raise ValueError(
            f"`{name}` must be None, the name of a mesh axis or a tuple of names, "
            f"got {axis_name!r}."
        )


def axis_names(axis_name: AxisName) -> tuple[str, ...]:
    """A tuple of names."""
    if axis_name is None:
        return ()
    return axis_name if isinstance(axis_name, tuple) else (axis_name,)


def leaf_sizes(leaves: list[jax.Array], axis_name: AxisName = None) -> list[int]:
    """Numbers of coordinates of the leaves, on all devices together."""
    names = set(axis_names(axis_name))

    def parts(leaf: jax.Array) -> int:
        return math.prod(map(jax.lax.axis_size, names - set(_whole_axes([leaf], tuple(names)))))

    return [leaf.size * parts(leaf) for leaf in leaves]


def _whole_axes(column: list[jax.Array], names: tuple[str, ...]) -> list[str]:
    """Axes along which each device holds the same; none if `shard_map` keeps no record."""
    varying = set().union(*map(_varying, column))
    recorded = set().union(*(_varying(jax.lax.axis_index(name)) for name in names))
    return [name for name in names if name in recorded - varying]


def _varying(array: jax.Array) -> frozenset[str]:
    return jax.typeof(array).mat.varying


def _once(sums: jax.Array, whole_axes: list[str]) -> jax.Array:
    """The sums on one device along these axes, zero on the others."""
    for name in whole_axes:
        sums = jnp.where(jax.lax.axis_index(name) == 0, sums, jnp.zeros_like(sums))
    return sums


def _partitioned(local: Callable[..., jax.Array], plain: Callable[..., jax.Array]) -> Any:
    """`local` of every leaf, on each device's parts once the compiler knows the shardings.

    `plain` where explicitly sharded types keep `local` from reshaping them before.
    """

    @custom_partitioning
    def partitioned(columns):
        of_leaf = plain if jax.sharding.get_abstract_mesh().explicit_axes else local
        return jnp.stack([of_leaf(column) for column in columns])

    def partition(mesh, columns, _):
        shardings = [[_even(column[-1], mesh)] * len(column) for column in columns[0]]
        used = [_axes(column[0].spec) for column in shardings]
        dividing = tuple(n for n in mesh.axis_names if any(n in axes for axes in used))

        def sums(columns):
            # The mesh of the program may be the context here, but a part knows no mesh.
            with jax.sharding.use_abstract_mesh(AbstractMesh((), ())):
                parts = [
                    _once(local(column), [n for n in dividing if n not in axes])
                    for column, axes in zip(columns, used, strict=True)
                ]
                stacked = jnp.stack(parts)
                return jax.lax.psum(stacked, dividing) if dividing else stacked

        return mesh, sums, NamedSharding(mesh, PartitionSpec()), (shardings,)

    def sharding_rule(_, arrays, results):
        """Nothing is shared between the axes of one array and those of another."""
        factors = [
            ArrayMapping(*(f"f{i}d{axis}" for axis in range(len(array.shape))))
            for i, array in enumerate((*arrays, *results))
        ]
        return SdyShardingRule(tuple(factors[: len(arrays)]), tuple(factors[len(arrays) :]))

    partitioned.def_partition(partition=partition, sharding_rule=sharding_rule)
    return partitioned


def _even(array: Any, mesh: Any) -> NamedSharding:
    """The array's sharding if it divides it evenly, otherwise none."""
    spec = getattr(array.sharding, "spec", PartitionSpec())
    sharding = NamedSharding(mesh, spec)
    try:
        sharding.shard_shape(array.shape)
    except ValueError:
        return NamedSharding(mesh, PartitionSpec())
    return sharding


def _axes(spec: PartitionSpec) -> set[str]:
    parts = [part if isinstance(part, tuple) else (part,) for part in spec if part]
    return {name for names in parts for name in names}


def _transformable(plain: Callable[..., jax.Array], fast: Callable[..., jax.Array]) -> Any:
    """`fast`, which `vmap` and `jvp` know nothing of, or `plain` under these."""

    @jax.custom_batching.custom_vmap
    def batchable(columns):
        return fast(columns)

    @batchable.def_vmap
    def _(axis_size, in_batched, columns):
        del axis_size
        (batched,) = in_batched
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, batched)
        return jax.vmap(plain, in_axes=(axes,))(columns), True

    @jax.custom_jvp
    def differentiable(columns):
        return batchable(columns)

    differentiable.defjvp(functools.partial(jax.jvp, plain))
    return differentiable
