"""One event: fit the history, merge predictions into the updates, pick a candidate."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pdt_optax import _history, _leaves
from pdt_optax._candidates import Candidates
from pdt_optax._criteria import Proposal
from pdt_optax._dmd import Gram


class Event(NamedTuple):
    """The history and the optimizer's move at the end of a snapshot period.

    Attributes:
      weights: the parameters, a list of leaves.
      updates: of the optimizer, like `weights`.
      columns: for each leaf the ``h`` arrays of the basis of the history.
      groups: group of each leaf.
      paths: coefficients of the candidates, ``(G, candidates, points, h)``.
      usable: ``(G, candidates)``, bool, whether the coefficients are finite.
      horizons: of the candidates, float32.
      number: int32, predictions made before.
      restorable: whether a jump must leave a way back, see :func:`merge`.
    """

    weights: list[jax.Array]
    updates: list[jax.Array]
    columns: list[list[jax.Array]]
    groups: list[int]
    paths: jax.Array
    usable: jax.Array
    horizons: jax.Array
    number: jax.Array
    restorable: bool


def fit(
    candidates: Candidates,
    reach: jax.Array,
    columns: list[list[jax.Array]],
    groups: list[int],
    num_groups: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Coefficients for each group of leaves.

    Args:
      candidates: what is fitted.
      reach: float32, the greatest horizon now.
      columns: the basis of each leaf.
      groups: group of each leaf.
      num_groups: how many groups there are.

    Returns:
      `paths` and `usable` of an :class:`Event`; the coefficients ``(G, h)`` of one
      step ahead; the DMD operators ``(G, h-1, h-1)``.
    """
    gram = _history.gram(columns, groups, num_groups)
    finite = jnp.isfinite(gram.matrix).all(axis=(1, 2))
    identity = jnp.eye(gram.matrix.shape[-1], dtype=gram.matrix.dtype)
    matrix = jnp.where(finite[:, None, None], gram.matrix, identity[None])
    grams = Gram(matrix, gram.size)
    paths, first, operators = jax.vmap(candidates.fit, in_axes=(0, None))(grams, reach)
    usable = finite[:, None] & jnp.isfinite(paths).all(axis=(2, 3))
    return paths, usable, first, jnp.where(jnp.isfinite(operators), operators, 0)


def merge(
    event: Event, candidates: Candidates, index: jax.Array | int
) -> tuple[list[jax.Array], jax.Array]:
    """Lets the accepted coordinates jump.

    A coordinate may return by an update later only if the place it jumps to is
    not so far that its digits are lost there. With `restorable` it jumps only if
    the loss is below a hundredth of the optimizer's move, or if it lands within
    four times its own size.

    Args:
      event: the event.
      candidates: the candidates.
      index: which of them jumps.

    Returns:
      The updates, and how many coordinates of each leaf jump, int32 ``(L,)``.
    """
    merged, accepted = [], []
    leaves = zip(event.weights, event.updates, event.columns, event.groups, strict=True)
    for leaf, (weight, update, column, group) in enumerate(leaves):
        path = tuple(_history.combine(row, column) for row in event.paths[group, index])
        move = _move(weight, update, column)
        proposal = Proposal(move, path, event.horizons[index], event.number, leaf)
        offset = column[-1] - weight.astype(column[-1].dtype)
        jump = (path[-1] + offset).astype(update.dtype)
        mask = candidates.criterion(proposal) & event.usable[group, index]
        landing = _leaves.apply_update(weight, jump)
        mask &= jnp.isfinite(landing)
        if event.restorable:
            rounding = jnp.finfo(landing.dtype).eps * jnp.abs(landing).astype(move.dtype)
            near = jnp.abs(landing) <= 4 * jnp.abs(_leaves.apply_update(weight, update))
            mask &= (rounding <= 0.01 * jnp.abs(move)) | near
        mask &= jnp.isfinite(move) & (move != 0)
        merged.append(jnp.where(mask, jump, update))
        accepted.append(jnp.sum(mask, dtype=jnp.int32))
    return merged, jnp.stack(accepted)


def verified_merge(
    event: Event,
    candidates: Candidates,
    value: Callable[[list[jax.Array]], jax.Array],
    gain_share: float,
) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """Merges the furthest of the candidates that gain on the optimizer's own result.

    Args:
      event: the event.
      candidates: the candidates.
      value: loss after the given updates.
      gain_share: least share of the best gain.

    Returns:
      As :func:`merge`, and the candidate taken, int32; -1 for none.
    """
    own = value(event.updates)
    losses = jax.lax.map(
        lambda index: value(merge(event, candidates, index)[0]), jnp.arange(len(candidates))
    )
    gains = jnp.where(jnp.isfinite(losses), own - losses, -jnp.inf)
    good = (gains > 0) & (gains >= gain_share * gains.max())
    furthest = jnp.where(good, event.horizons, 0).max()
    taken = jnp.argmax(jnp.where(good & (event.horizons == furthest), gains, -jnp.inf))
    taken = jnp.where(good.any(), taken, -1).astype(jnp.int32)
    merged, accepted = merge(event, candidates, jnp.maximum(taken, 0))
    merged = [jnp.where(taken < 0, u, m) for u, m in zip(event.updates, merged, strict=True)]
    return merged, jnp.where(taken < 0, 0, accepted), taken


def prediction_error(event: Event, first: jax.Array) -> jax.Array:
    """``||p_1 - w_opt|| / ||d||``, float32; 0 / 0 is 0."""
    errors, moves = [], []
    leaves = zip(event.weights, event.updates, event.columns, event.groups, strict=True)
    for weight, update, column, group in leaves:
        move = _move(weight, update, column)
        errors.append(
            jnp.sum((_history.combine(first[group], column) - move) ** 2).astype(first.dtype)
        )
        moves.append(jnp.sum(move**2).astype(first.dtype))
    error, size = jnp.stack(errors).sum(), jnp.stack(moves).sum()
    ratio = jnp.sqrt(error / jnp.where(size == 0, 1, size))
    return jnp.where((size == 0) & (error > 0), jnp.inf, ratio).astype(jnp.float32)


def _move(weight: jax.Array, update: jax.Array, column: list[jax.Array]) -> jax.Array:
    """The optimizer's own move over the snapshot period."""
    anchor = column[-1]
    return _leaves.apply_update(weight, update).astype(anchor.dtype) - anchor
