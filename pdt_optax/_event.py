"""One event: fit the history, merge predictions into the updates, pick a candidate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pdt_optax import _history, _leaves, _sums
from pdt_optax._candidates import Candidates
from pdt_optax._criteria import Proposal
from pdt_optax._dmd import Gram
from pdt_optax._streaming import Stream, StreamGram
from pdt_optax._sums import AxisName


class Event(NamedTuple):
    """The history and the optimizer's move at the end of a snapshot period.

    Attributes:
      weights: the parameters, a list of leaves.
      updates: of the optimizer, like `weights`.
      columns: for each leaf the ``h`` arrays of the basis of the history.
      moves: of the optimizer over the period, like `weights`.
      groups: group of each leaf.
      paths: coefficients of the candidates, ``(G, candidates, points, h)``.
      usable: ``(G, candidates)``, bool, whether the coefficients are finite.
      horizons: of the candidates, float32.
      number: int32, predictions made before.
      restorable: whether a jump must leave a way back, see :func:`merge`.
      axis_name: axes that divide the leaves.
    """

    weights: list[jax.Array]
    updates: list[jax.Array]
    columns: list[list[jax.Array]]
    moves: list[jax.Array]
    groups: list[int]
    paths: jax.Array
    usable: jax.Array
    horizons: jax.Array
    number: jax.Array
    restorable: bool
    axis_name: AxisName


def fit(
    candidates: Candidates,
    reach: jax.Array,
    columns: list[list[jax.Array]],
    moves: list[jax.Array],
    oldest: jax.Array,
    groups: list[int],
    num_groups: int,
    axis_name: AxisName,
    stream: Stream | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Coefficients for each group of leaves, all from one sum over the coordinates.

    Args:
      candidates: what is fitted.
      reach: float32, the greatest horizon now.
      columns: the basis of each leaf.
      moves: the optimizer's own, of each leaf.
      oldest: int32, place of the oldest increment in the columns.
      groups: group of each leaf.
      num_groups: how many groups there are.
      axis_name: axes that divide the leaves.
      stream: of a streaming history, what it has seen.

    Returns:
      `paths` and `usable` of an :class:`Event`; the error of the prediction one
      snapshot ahead, ``||p_1 - w_opt|| / ||d||``, float32, where 0 / 0 is 0; the DMD
      operators ``(G, h-1, h-1)``.
    """
    extended = [[*column, move] for column, move in zip(columns, moves, strict=True)]
    products, sizes = _history.gram(extended, groups, num_groups, axis_name)
    steps = products.shape[-1] - 2
    in_time, in_ring = ((jnp.arange(steps) + sign * oldest) % steps for sign in (1, -1))
    in_time = jnp.append(in_time, jnp.array([steps, steps + 1]))
    products = products[:, in_time][:, :, in_time]
    gram = products[:, :-1, :-1]
    finite = jnp.isfinite(gram).all(axis=(1, 2))
    identity = jnp.eye(gram.shape[-1], dtype=gram.dtype)
    grams: Any = Gram(jnp.where(finite[:, None, None], gram, identity[None]), sizes)
    if stream is not None:
        grams = StreamGram(grams.matrix, sizes, stream)
    paths, first, operators = jax.vmap(candidates.fit, in_axes=(0, None))(grams, reach)
    usable = finite[:, None] & jnp.isfinite(paths).all(axis=(2, 3))
    error = _relative_error(products, first)
    paths = paths[..., jnp.append(in_ring, steps)]
    return paths, usable, error, jnp.where(jnp.isfinite(operators), operators, 0)


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
    merged, masks = [], []
    leaves = zip(
        event.weights, event.updates, event.columns, event.moves, event.groups, strict=True
    )
    for leaf, (weight, update, column, move, group) in enumerate(leaves):
        path = tuple(_history.combine(row, column) for row in event.paths[group, index])
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
        masks.append([mask])
    accepted = _sums.over_leaves(
        lambda column: jnp.sum(column[0], dtype=jnp.int32), masks, event.axis_name
    )
    return merged, accepted


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


def are_finite(leaves: list[jax.Array], axis_name: AxisName) -> jax.Array:
    """Whether every coordinate is; from one sum."""
    counts = _sums.over_leaves(
        lambda column: jnp.sum(~jnp.isfinite(column[0]), dtype=jnp.int32),
        [[leaf] for leaf in leaves],
        axis_name,
    )
    return (counts == 0).all()


def moves(
    weights: list[jax.Array], updates: list[jax.Array], columns: list[list[jax.Array]]
) -> list[jax.Array]:
    """The optimizer's own moves over the snapshot period."""
    return [
        _leaves.apply_update(weight, update).astype(column[-1].dtype) - column[-1]
        for weight, update, column in zip(weights, updates, columns, strict=True)
    ]


def _relative_error(products: jax.Array, first: jax.Array) -> jax.Array:
    """``||p_1 - w_opt|| / ||d||`` from the inner products of basis and move of each group."""
    difference = jnp.concatenate([first, -jnp.ones_like(first[:, :1])], axis=1)
    with jax.default_matmul_precision("highest"):
        error = jnp.einsum("gi,gij,gj->", difference, products, difference)
    error, size = jnp.maximum(error, 0), products[:, -1, -1].sum()
    ratio = jnp.sqrt(error / jnp.where(size == 0, 1, size))
    return jnp.where((size == 0) & (error > 0), jnp.inf, ratio).astype(jnp.float32)
