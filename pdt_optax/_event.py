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

_Jump = tuple[jax.Array, jax.Array]


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
      restorable: whether a jump must leave a way back.
      axis_name: axes that divide the leaves.
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
    axis_name: AxisName


def fit(
    candidates: Candidates,
    reach: jax.Array,
    columns: list[list[jax.Array]],
    weights: list[jax.Array],
    updates: list[jax.Array],
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
      weights: the parameters.
      updates: of the optimizer.
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

    def basis_and_move(arrays: list[jax.Array]) -> list[jax.Array]:
        *column, update, weight = arrays
        return [*column, move(weight, update, column[-1])]

    arrays = [[*c, u, w] for c, u, w in zip(columns, updates, weights, strict=True)]
    products, sizes = _history.gram(arrays, groups, num_groups, axis_name, basis_and_move)
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
) -> tuple[list[jax.Array], list[jax.Array], jax.Array]:
    """Lets the accepted coordinates jump.

    Args:
      event: the event.
      candidates: the candidates.
      index: which of them jumps.

    Returns:
      The updates; which coordinates jump, like them; how many of each leaf, float32 ``(L,)``.
    """

    def count_and_merge(early: list[int]) -> tuple[list[jax.Array], jax.Array]:
        """Counts the jumps of these leaves before they are merged."""
        again = event._replace(paths=jax.lax.optimization_barrier(event.paths))
        jumps, leaves = _jumps(event, candidates, index), list(range(len(event.updates)))
        merged = _merged(event.updates, jumps)
        masks = list(map(_jumped, event.updates, merged))
        for leaf in early:
            masks[leaf], _ = _jump(again, candidates, index, leaf)
        columns = [[mask] for mask in masks]
        accepted = _sums.over_groups(list, columns, leaves, len(leaves), event.axis_name)[:, 0]
        for leaf in early:
            mask, jump = jumps[leaf]
            merged[leaf] = jnp.where(mask & (accepted[leaf] > 0), jump, event.updates[leaf])
        return merged, accepted

    # XLA's CPU compiler would copy updates that are read once more when they are merged.
    large = [leaf for leaf, own in enumerate(event.updates) if own.size >= _sums.LARGE]
    updates, accepted = jax.lax.platform_dependent(
        cpu=lambda: count_and_merge(early=large), default=lambda: count_and_merge(early=[])
    )
    return updates, list(map(_jumped, event.updates, updates)), accepted


def verified_merge(
    event: Event,
    candidates: Candidates,
    value: Callable[[list[jax.Array]], jax.Array],
    gain_share: float,
) -> tuple[list[jax.Array], list[jax.Array], jax.Array, jax.Array, jax.Array]:
    """Merges the furthest of the candidates that gain on the optimizer's own result.

    The horizons of a predictor are tried from the nearest up to the first that could
    not be taken; those that `reach` made equal, once.

    Args:
      event: the event.
      candidates: the candidates.
      value: loss after the given updates.
      gain_share: least share of the best gain.

    Returns:
      As :func:`merge`; the candidate taken, int32, -1 for none; calls of `value`, int32.
    """
    own = value(event.updates)

    def climb(
        carry: tuple[jax.Array, jax.Array], index: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        best, goes_on = carry
        is_nearest = index % len(candidates.horizons) == 0
        is_another = is_nearest | (event.horizons[index] > event.horizons[index - 1])
        goes_on |= is_nearest
        is_scored = goes_on & is_another
        loss = jax.lax.cond(
            is_scored,
            lambda: value(_merged(event.updates, _jumps(event, candidates, index))),
            lambda: jnp.full_like(own, jnp.inf),
        )
        gain = jnp.where(jnp.isfinite(loss), own - loss, -jnp.inf)
        best = jnp.maximum(best, gain)
        is_good = (gain > 0) & (gain >= gain_share * best)
        return (best, jnp.where(is_another, is_good, goes_on)), (gain, is_scored)

    first = jnp.full_like(own, -jnp.inf), jnp.zeros([], bool)
    _, (gains, scored) = jax.lax.scan(climb, first, jnp.arange(len(candidates)))
    good = (gains > 0) & (gains >= gain_share * gains.max())
    furthest = jnp.where(good, event.horizons, 0).max()
    taken = jnp.argmax(jnp.where(good & (event.horizons == furthest), gains, -jnp.inf))
    taken = jnp.where(good.any(), taken, -1).astype(jnp.int32)
    any_taken = event._replace(usable=event.usable & (taken >= 0))
    jumps = merge(any_taken, candidates, jnp.maximum(taken, 0))
    return *jumps, taken, 1 + scored.sum(dtype=jnp.int32)


def leaves_a_way_back(
    arrived: list[jax.Array], fallback: list[jax.Array], jumped: jax.Array, axis_name: AxisName
) -> jax.Array:
    """Whether every coordinate is finite, and after a jump an update leads to the fallback.

    What the rounding at `arrived` may cost must be below a hundredth of each leaf of
    the fallback, in the sum of magnitudes, unless the leaf is not four times as large.
    """

    def loss(column: list[jax.Array]) -> list[jax.Array]:
        eps = float(jnp.finfo(column[-1].dtype).eps)
        here, there = (jnp.abs(array.astype(_leaves.compute_dtype(array))) for array in column)
        lost = jnp.where((there == 0) & jnp.isfinite(here), 0, eps * here)
        return [(lost - max(0.01, 4 * eps) * there).astype(jnp.float32)]

    losses = _sums.over_groups(
        loss,
        list(map(list, zip(arrived, fallback, strict=True))),
        list(range(len(arrived))),
        len(arrived),
        axis_name,
    )
    return jnp.where(jumped, losses <= 0, jnp.isfinite(losses)).all()


def move(weight: jax.Array, update: jax.Array, anchor: jax.Array) -> jax.Array:
    """The optimizer's own over the snapshot period."""
    return _leaves.apply_update(weight, update).astype(anchor.dtype) - anchor


def _jumped(update: jax.Array, merged: jax.Array) -> jax.Array:
    """Where a coordinate left the optimizer's update; it never leaves one that is not finite.

    XLA would compute the mask of :func:`_jump` once for the updates and again for each other
    use, from all arrays.
    """
    return (merged != update) & ~jnp.isnan(merged)


def _merged(updates: list[jax.Array], jumps: list[_Jump]) -> list[jax.Array]:
    """The updates, where a coordinate jumps the one that takes it there."""
    return [jnp.where(*jump, own) for jump, own in zip(jumps, updates, strict=True)]


def _jumps(event: Event, candidates: Candidates, index: jax.Array | int) -> list[_Jump]:
    return [_jump(event, candidates, index, leaf) for leaf in range(len(event.updates))]


def _jump(event: Event, candidates: Candidates, index: jax.Array | int, leaf: int) -> _Jump:
    """Which coordinates of a leaf leave the optimizer's update, and the updates they take.

    A coordinate may return by an update later only if the place it jumps to is
    not so far that its digits are lost there. If restorable it jumps only if the
    loss is below a hundredth of the optimizer's move, or if it lands within four
    times its own size.
    """
    weight, update, column = event.weights[leaf], event.updates[leaf], event.columns[leaf]
    group = event.groups[leaf]
    own = move(weight, update, column[-1])
    path = tuple(_history.combine(row, column) for row in event.paths[group, index])
    proposal = Proposal(own, path, event.horizons[index], event.number, leaf)
    offset = column[-1] - weight.astype(column[-1].dtype)
    jump = (path[-1] + offset).astype(update.dtype)
    mask = candidates.criterion(proposal) & event.usable[group, index]
    landing = _leaves.apply_update(weight, jump)
    mask &= jnp.isfinite(landing)
    if event.restorable:
        rounding = jnp.finfo(landing.dtype).eps * jnp.abs(landing).astype(own.dtype)
        near = jnp.abs(landing) <= 4 * jnp.abs(_leaves.apply_update(weight, update))
        mask &= (rounding <= 0.01 * jnp.abs(own)) | near
    mask &= jnp.isfinite(own) & (own != 0) & (jump != update)
    return mask, jump


def _relative_error(products: jax.Array, first: jax.Array) -> jax.Array:
    """``||p_1 - w_opt|| / ||d||`` from the inner products of basis and move of each group."""
    difference = jnp.concatenate([first, -jnp.ones_like(first[:, :1])], axis=1)
    with jax.default_matmul_precision("highest"):
        error = jnp.einsum("gi,gij,gj->", difference, products, difference)
    error, size = jnp.maximum(error, 0), products[:, -1, -1].sum()
    ratio = jnp.sqrt(error / jnp.where(size == 0, 1, size))
    return jnp.where((size == 0) & (error > 0), jnp.inf, ratio).astype(jnp.float32)
