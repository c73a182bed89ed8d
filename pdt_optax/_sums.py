"""Sums over the coordinates of all leaves, in one collective whatever their shardings."""

from collections.abc import Callable, Iterable, Iterator
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
LARGE = 2**16  # Coordinates of a leaf that are worth a loop compiled for them.
# A row is summed one number after the other: the shorter the more accurate.
_LONG_ROW, _SHORT_ROW, _COUNTED_ROW, _LANES = 512, 32, 4096, 4


def over_groups(
    terms: _Terms,
    columns: _Columns,
    groups: list[int],
    num_groups: int,
    axis_name: AxisName = None,
) -> jax.Array:
    """Sums over the coordinates of the leaves of each group, wherever they lie.

    XLA would reduce each sharded leaf by itself. Here each device sums what it
    holds of all leaves, and one all-reduce adds these small sums.

    Args:
      terms: what is summed, element by element: from the arrays of a leaf to arrays
        of its shape; a boolean one, which must be the only one, is counted.
      columns: the arrays of each leaf.
      groups: group of each leaf.
      num_groups: how many groups there are, none of them empty.
      axis_name: axes of an enclosing :func:`jax.shard_map` that divide the leaves.

    Returns:
      The sums for each group, shape ``(num_groups, terms)``.
    """

    def total(parts: list[jax.Array], of_parts: list[int]) -> jax.Array:
        members = [[] for _ in range(num_groups)]
        for part, group in zip(parts, of_parts, strict=True):
            members[group].append(part)
        return jnp.stack([jnp.stack(some).sum(axis=0) for some in members])

    def plain(column: list[jax.Array]) -> jax.Array:
        return jnp.stack([jnp.sum(term, dtype=_sum_dtype(term)) for term in terms(column)])

    def whole(columns: _Columns) -> jax.Array:
        return total([plain(column) for column in columns], groups)

    def local(columns: _Columns, whole_axes: list[list[str]]) -> jax.Array:
        """Of what a device holds; along its whole axes it holds of a leaf what the others hold."""
        shapes = jax.eval_shape(terms, columns[0])
        num_terms, counts = len(shapes), shapes[0].dtype == bool
        one_pass = functools.partial(_in_one_pass, terms, counts)
        parts, of_parts = [], []
        for group, axes, column in _joined(columns, groups, whole_axes):
            is_worth_it = num_terms > 1 or column[0].size >= LARGE
            on_cpu = one_pass if is_worth_it else plain
            sums = jax.lax.platform_dependent(column, cpu=on_cpu, default=plain)
            parts.append(_once(sums, axes))
            of_parts.append(group)
        return total(parts, of_parts)

    if axis_name is not None:
        names = axis_names(axis_name)
        return jax.lax.psum(local(columns, [_whole_axes(c, names) for c in columns]), names)
    if jax.sharding.get_abstract_mesh().manual_axes:
        return whole(columns)

    def anywhere(columns: _Columns) -> jax.Array:
        """The TPU's compiler knows no custom partitioning; it joins the reductions by itself."""
        return jax.lax.platform_dependent(columns, tpu=whole, default=_partitioned(local, whole))

    return _transformable(whole, anywhere)(columns)


def _joined(
    columns: _Columns, groups: list[int], whole_axes: list[list[str]]
) -> Iterator[tuple[int, tuple[str, ...], list[jax.Array]]]:
    """Small leaves that are summed together, end to end: programs of hundreds compile slowly."""
    buckets: dict[Any, list[list[jax.Array]]] = {}
    for leaf, (column, group, axes) in enumerate(zip(columns, groups, whole_axes, strict=True)):
        is_small = column[0].size < LARGE
        kind = tuple(array.dtype for array in column) if is_small else leaf
        buckets.setdefault((group, tuple(axes), kind), []).append(column)
    for (group, axes, _), some in buckets.items():
        if len(some) > 1:
            flat = [[array.reshape(-1) for array in column] for column in some]
            ends = [jnp.concatenate(arrays) for arrays in zip(*flat, strict=True)]
            some = [jax.lax.optimization_barrier(ends)]  # Or XLA would search for each element.
        yield group, axes, some[0]


def _in_one_pass(terms: _Terms, counts: bool, column: list[jax.Array]) -> jax.Array:
    """All sums from one reading of the arrays.

    XLA's CPU compiler writes out what it sums, and reads the arrays for each sum
    anew, unless the sums are one reduction of several operands.
    """
    flat = [array.reshape(-1) for array in column]
    size = flat[0].size
    if counts:
        row = max(d for d in range(1, _COUNTED_ROW + 1) if size % d == 0)
    else:
        row = _LONG_ROW if size >= LARGE else _SHORT_ROW
    whole = size - size % row
    sums = []
    if whole:
        sums.append(_of_rows(terms, [array[:whole].reshape(-1, row) for array in flat]))
    if whole < size or not size:
        sums.append(_of_rows(terms, [array[whole:][None] for array in flat]))
    return functools.reduce(operator.add, sums)


def _of_rows(terms: _Terms, rows: list[jax.Array]) -> jax.Array:
    """Lanes wait less for each other's sums; small leaves are not worth compiling them."""
    summands = terms(rows)
    num_terms, dtype = len(summands), _sum_dtype(summands[0])
    if summands[0].dtype == bool:
        summands = [summands[0].astype(jnp.int32)]
    elif rows[0].size >= LARGE:
        lanes = [terms([row[:, lane::_LANES] for row in rows]) for lane in range(_LANES)]
        summands = [functools.reduce(operator.add, lane) for lane in zip(*lanes, strict=True)]
    operators = [operator.add] * num_terms
    if num_terms == 1:
        summands, operators = summands * 2, [operator.add, jnp.maximum]

    def combine(some, others):
        return [op(a, b) for op, a, b in zip(operators, some, others, strict=True)]

    zeros = [np.zeros((), summand.dtype) for summand in summands]
    reduced = jax.lax.reduce(summands, zeros, combine, (1,))
    of_rows = jax.lax.optimization_barrier(reduced)  # Or the one without a use would be dropped.
    return jnp.sum(jnp.stack(of_rows[:num_terms]), axis=1, dtype=dtype)


def _sum_dtype(term: jax.Array) -> Any:
    """Integers would overflow."""
    return jnp.float32 if term.dtype == bool else term.dtype


def check_axis_name(name: str, axis_name: Any) -> None:
    """Raises ValueError unless it is None, a string, or a tuple of some."""
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    if axis_name is not None and not (names and all(isinstance(n, str) for n in names)):
        raise ValueError(
            f"`{name}` must be None, the name of a mesh axis or a tuple of names, "
            f"got {axis_name!r}."
        )


def check_same(name: str, value: jax.Array, leaves: list[jax.Array], axis_name: AxisName) -> None:
    """Raises ValueError if devices that hold one model are known to have different values."""
    models = frozenset[str]().union(*map(_varying, leaves)) - set(axis_names(axis_name))
    if differs := sorted(_varying(value) - models):
        raise ValueError(
            f"`{name}` must be the same on all devices that hold one model, got one that differs "
            f"along {differs}: pass jax.lax.pmean(..., {differs})."
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


def _once(sums: jax.Array, whole_axes: Iterable[str]) -> jax.Array:
    """The sums on one device along these axes, zero on the others."""
    for name in whole_axes:
        sums = jnp.where(jax.lax.axis_index(name) == 0, sums, jnp.zeros_like(sums))
    return sums


def _partitioned(local: Callable[..., jax.Array], whole: Callable[..., jax.Array]) -> Any:
    """`local`, on each device's parts once the compiler knows the shardings.

    `whole` where explicitly sharded types keep `local` from reshaping them before.
    """

    @custom_partitioning
    def partitioned(columns):
        if jax.sharding.get_abstract_mesh().explicit_axes:
            return whole(columns)
        return local(columns, [[]] * len(columns))

    def partition(mesh, columns, _):
        shardings = [[_even(column[-1], mesh)] * len(column) for column in columns[0]]
        used = [_axes(column[0].spec) for column in shardings]
        dividing = tuple(n for n in mesh.axis_names if any(n in axes for axes in used))

        def sums(columns):
            # The mesh of the program may be the context here, but a part knows no mesh.
            with jax.sharding.use_abstract_mesh(AbstractMesh((), ())):
                whole_axes = [[n for n in dividing if n not in axes] for axes in used]
                sums = local(columns, whole_axes)
                return jax.lax.psum(sums, dividing) if dividing else sums

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
