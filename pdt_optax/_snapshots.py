"""Snapshots of a run: those that a PDT state holds, and those that a user kept."""

from collections.abc import Sequence
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pdt_optax import _basis, _leaves
from pdt_optax._diagnostics import find
from pdt_optax._dmd import Gram
from pdt_optax._layout import Layout, SmallLeaf


def snapshots(opt_state: Any, params: Any) -> list[Any]:
    """The weights that a PDT state holds.

    Args:
      opt_state: state of any optax transformation with one :func:`pdt_optax.pdt` in it; of
        concrete arrays, and of one run: not of several under :func:`jax.vmap`.
      params: the parameters, arrays or :class:`jax.ShapeDtypeStruct`; their shapes are read.

    Returns:
      The snapshots held so far, oldest first, at most `history`: trees like the parameters, in
      float32 or float64. Older ones are as exact as the stored increments are, and as the
      rounding of the newest. In the place of leaves that take no part stands an
      :class:`optax.MaskedNode`.

    Raises:
      ValueError: if `opt_state` holds no :class:`pdt_optax.PDTState`, or several, or one
        of a :class:`pdt_optax.Streaming` history, or `params` are not those it was made for.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, pdt_optax
      >>> tx = optax.chain(optax.sgd(0.5), pdt_optax.pdt(snapshot_every=1))
      >>> params = jnp.array([1., 2.])
      >>> state = tx.init(params)
      >>> update = jax.jit(tx.update)
      >>> for _ in range(2):
      ...   updates, state = update(params, state, params)  # The gradient of |w|^2 / 2.
      ...   params = optax.apply_updates(params, updates)
      >>> print(*pdt_optax.dynamics.snapshots(state, params))
      [1. 2.] [0.5 1. ] [0.25 0.5 ]
    """
    history = find(opt_state).history
    if history.stream is not None:
        raise ValueError(
            "`opt_state` must hold snapshots, got one of history=pdt_optax.Streaming(...), which "
            "keeps the newest alone: it is the `anchor` of the PDTState."
        )
    layout = _layout_of(history, params)
    columns = history.columns(layout)
    places, taken = len(history.rows.ring), int(history.snapshots_taken)
    held = [[column[-1] for column in columns]]
    for age in range(min(places, taken - 1)):
        place = (taken - 2 - age) % places
        held.append([new - column[place] for new, column in zip(held[-1], columns, strict=True)])
    like = [
        jax.ShapeDtypeStruct(np.shape(leaf), _leaves.compute_dtype(leaf))
        for leaf in layout.floats.select(jax.tree.leaves(params))
    ]
    return [layout.floats.tree(layout.leaves(blocks, like)) for blocks in reversed(held)]


def _layout_of(history: Any, params: Any) -> Layout:
    """How the leaves lie in the history of a state."""

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    def takes_no_part(node: Any) -> bool:
        return is_masked(node) and not isinstance(node, SmallLeaf)

    left_out = jax.tree.map(takes_no_part, history.anchor, is_leaf=is_masked)
    _leaves.check_structure("params", params, left_out, "those that `opt_state` was made for")
    joins = any(
        isinstance(node, SmallLeaf) for node in jax.tree.leaves(history.anchor, is_leaf=is_masked)
    )
    return Layout(params, left_out, joins=joins)


def check_snapshots(snapshots: Sequence[Any], least: int) -> None:
    """Raises ValueError unless there are `least` of them, all alike."""
    if len(snapshots) < least:
        raise ValueError(f"`snapshots` must be at least {least} here, got {len(snapshots)}.")
    newest = snapshots[-1]
    _leaves.check_real(newest)
    if not any(map(_leaves.is_float, jax.tree.leaves(newest))):
        raise ValueError("`snapshots` must have floating-point leaves, got none.")
    shapes = jax.tree.map(np.shape, newest)
    for number, snapshot in enumerate(snapshots):
        name = f"snapshots[{number}]"
        _leaves.check_structure(name, snapshot, newest, "the last one")
        if jax.tree.map(np.shape, snapshot) != shapes:
            raise ValueError(
                f"`{name}` must have the shapes of the last one, {shapes}; got "
                f"{jax.tree.map(np.shape, snapshot)}."
            )


def columns_of(snapshots: Sequence[Any]) -> list[list[jax.Array]]:
    """Of each leaf of checked snapshots the increments and the newest, in compute precision."""
    increments = itertools.starmap(displacement, itertools.pairwise(snapshots))
    newest = [
        jnp.asarray(leaf.astype(_leaves.compute_dtype(leaf))) for leaf in _floats_of(snapshots[-1])
    ]
    return [list(column) for column in zip(*increments, newest, strict=True)]


@functools.partial(jax.jit, static_argnames=("groups", "num_groups"))
def gram(columns: list[list[jax.Array]], groups: tuple[int, ...], num_groups: int) -> Gram:
    """As :func:`pdt_optax._basis.gram`; quick to compile however many arrays a leaf has."""
    dtype = _leaves.compute_dtype(*(column[-1] for column in columns))
    size = len(columns[0])
    matrix, sizes = jnp.zeros((num_groups, size, size), dtype), np.zeros(num_groups)
    for column, group in zip(columns, groups, strict=True):
        rows = jnp.stack([array.reshape(-1) for array in column])
        products = jnp.matmul(rows, rows.T, precision="highest")
        matrix = matrix.at[group].add(products.astype(dtype))
        sizes[group] += column[-1].size
    return Gram(matrix, jnp.asarray(sizes, dtype))


def displacement(old: Any, new: Any) -> list[jax.Array]:
    """``new - old`` of each floating-point leaf, for NumPy arrays taken in their precision."""
    differences = map(_basis.difference, _floats_of(new), _floats_of(old))
    return list(map(jnp.asarray, differences))


def _floats_of(params: Any) -> list[Any]:
    leaves = [leaf for leaf in jax.tree.leaves(params) if _leaves.is_float(leaf)]
    return [leaf if isinstance(leaf, jax.Array) else np.asarray(leaf) for leaf in leaves]
