"""Snapshots of a run: those that a PDT state holds, and those that a user kept."""

from collections.abc import Sequence
import itertools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax import _history, _leaves
from pdt_optax._diagnostics import find
from pdt_optax._history import History


def snapshots(opt_state: Any) -> list[Any]:
    """The weights that a PDT state holds.

    Args:
      opt_state: state of any optax transformation with one :func:`pdt_optax.pdt` in it; of
        concrete arrays, and of one run: not of several under :func:`jax.vmap`.

    Returns:
      The snapshots held so far, oldest first, at most `history`: trees like the parameters, in
      float32 or float64. Older ones are as exact as the stored increments are, and as the
      rounding of the newest. Leaves that are not floating-point are False of their shape,
      excluded ones a single False.

    Raises:
      ValueError: if `opt_state` holds no :class:`pdt_optax.PDTState`, or several, or one
        of a :class:`pdt_optax.Streaming` history.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, pdt_optax
      >>> tx = optax.chain(optax.sgd(0.5), pdt_optax.pdt(snapshot_every=1))
      >>> params = jnp.array([1., 2.])
      >>> state = tx.init(params)
      >>> update = jax.jit(tx.update)
      >>> for _ in range(2):
      ...   updates, state = update(params, state, params)  # The gradient of |w|^2 / 2.
      ...   params = optax.apply_updates(params, updates)
      >>> print(*pdt_optax.snapshots(state))
      [1. 2.] [0.5 1. ] [0.25 0.5 ]
    """
    state = find(opt_state)
    if state.stream is not None:
        raise ValueError(
            "`opt_state` must hold snapshots, got one of history=pdt_optax.Streaming(...), which "
            "keeps the newest alone: it is the `anchor` of the PDTState."
        )
    floats = _leaves.FloatLeaves(state.anchor)
    newest = [leaf.astype(_leaves.compute_dtype(leaf)) for leaf in floats.of(state.anchor)]
    history = History(
        newest, tuple(map(floats.of, state.increments)), tuple(map(floats.of, state.scales))
    )
    places, taken = len(history.increments), int(state.snapshots_taken)
    held = [newest]
    for age in range(min(places, taken - 1)):
        increment = history.increment((taken - 2 - age) % places)
        held.append(list(map(operator.sub, held[-1], increment)))
    return [floats.replace(state.anchor, leaves) for leaves in reversed(held)]


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


def history_of(snapshots: Sequence[Any]) -> History:
    """Anchor and increments of checked snapshots."""
    increments = itertools.starmap(displacement, itertools.pairwise(snapshots))
    return History(list(map(jnp.asarray, _floats_of(snapshots[-1]))), tuple(increments))


def displacement(old: Any, new: Any) -> list[jax.Array]:
    """``new - old`` of each floating-point leaf, for NumPy arrays taken in their precision."""
    differences = map(_history.difference, _floats_of(new), _floats_of(old))
    return list(map(jnp.asarray, differences))


def _floats_of(params: Any) -> list[Any]:
    leaves = [leaf for leaf in jax.tree.leaves(params) if _leaves.is_float(leaf)]
    return [leaf if isinstance(leaf, jax.Array) else np.asarray(leaf) for leaf in leaves]
