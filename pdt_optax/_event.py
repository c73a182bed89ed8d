"""One event: what a way of jumping is given, and how coordinates land."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax import _basis, _leaves, _sums
from pdt_optax._basis import Column
from pdt_optax._dmd import Gram
from pdt_optax._history import History, Stored
from pdt_optax._landing import Limits, Trust
from pdt_optax._layout import Ids, Layout
from pdt_optax._run_if import run_if
from pdt_optax._sums import AxisName
from pdt_optax.criteria import Criterion, Proposal


@dataclasses.dataclass(frozen=True)
class Event:
    """The fitted history and the optimizer's arrival at the end of a snapshot period.

    Blocks are those of `layout`; ``G`` is the number of groups of leaves.

    Attributes:
      layout: how the leaves lie in blocks.
      params: the leaves that take part.
      proposed: the optimizer's updates of them.
      weights: the parameters, in blocks.
      updates: the optimizer's, in blocks.
      narrowest: of each block the narrowest dtype of its leaves' updates.
      stored: of each block what the history holds.
      moves: the optimizer's own over the period, in blocks.
      ids: group of each block, or of its rows.
      num_groups: ``G``.
      sizes: of the groups.
      oldest: int32, place of the oldest increment in the ring.
      stream: what a streaming history has seen; otherwise None.
      number: int32, predictions made before.
      trust: what the landing before handed on.
      limits: of a scheduler.
      axis_name: axes that divide the leaves.
    """

    layout: Layout
    params: list[jax.Array]
    proposed: list[jax.Array]
    weights: list[jax.Array]
    updates: list[jax.Array]
    narrowest: list[Any]
    stored: list[Stored]
    moves: list[jax.Array]
    ids: list[Ids]
    num_groups: int
    sizes: np.ndarray
    oldest: jax.Array
    stream: Any
    number: jax.Array
    trust: Trust
    limits: Limits | None
    axis_name: AxisName

    def column(self, block: int) -> Column:
        """The basis of the history, ``h`` arrays in the order of the ring.

        Decoded anew at each use: what a loop is given is held in full beside it.
        """
        return self.stored[block].column()

    @functools.cached_property
    def products(self) -> jax.Array:
        """Those of basis and move, in the order of time, ``(G, h+1, h+1)``."""
        columns = map(self.column, range(len(self.stored)))
        vectors = list(map(_basis.extended, columns, self.moves))
        products = _basis.gram(vectors, self.ids, self.num_groups, self.axis_name)
        places = products.shape[-1] - 2
        in_time = _order(self.oldest, places, places + 2)
        return products[:, in_time][:, :, in_time]

    @functools.cached_property
    def finite(self) -> jax.Array:
        """``(G,)``, bool, whether the products of the basis are finite."""
        return jnp.isfinite(self.products[:, :-1, :-1]).all(axis=(1, 2))

    @functools.cached_property
    def gram(self) -> Any:
        """What a predictor is given.

        Gram matrices of the basis, ``(G, h, h)``, the identity where one is not finite, and
        sizes of the groups; with a streaming history also what was seen.
        """
        basis = self.products[:, :-1, :-1]
        identity = jnp.eye(basis.shape[-1], dtype=basis.dtype)[None]
        gram = Gram(
            jnp.where(self.finite[:, None, None], basis, identity),
            jnp.asarray(self.sizes, basis.dtype),
        )
        return gram if self.stream is None else self.stream.gram(gram)

    @property
    def _in_ring(self) -> jax.Array:
        """For each array of the columns its place in the order of time."""
        places = len(self.stored[0].ring)
        return _order(-self.oldest, places, places + 1)

    def merge(
        self, paths: jax.Array, usable: jax.Array, horizon: jax.Array, criterion: Criterion
    ) -> tuple[list[jax.Array], jax.Array]:
        """Lets the accepted coordinates jump to the ends of their paths.

        Args:
          paths: coefficients of the displacements at the points of a path, in the order of
            time, ``(G, points, h)``.
          usable: ``(G,)``, bool; where false nothing jumps.
          horizon: float32, of the path.
          criterion: which coordinates may jump.

        Returns:
          `updates` and `accepted` of a :class:`Landing`.
        """
        paths, blocks = paths[..., self._in_ring], range(len(self.weights))

        def mask(block: int) -> jax.Array:
            """One where a coordinate jumps, zero elsewhere: ready to be summed."""
            return self._mask(block, paths, usable, horizon, criterion).astype(jnp.float32)

        # In a loop, or XLA would compute the masks anew for each use.
        nowhere = [(jnp.isnan(u) & False).astype(jnp.float32) for u in self.updates]
        masks = run_if(usable.any(), lambda _: list(map(mask, blocks)), nowhere)
        merged = [
            jnp.where(masks[block] > 0, self._jump(block, paths[:, -1:])[1], self.updates[block])
            for block in blocks
        ]
        accepted = _sums.by_leaf(self.layout, [[mask] for mask in masks], self.axis_name)
        return self.layout.leaves(merged, self.proposed), accepted[:, 0]

    def jumped(self, updates: list[jax.Array]) -> jax.Array:
        """How many coordinates of each leaf do not take the optimizer's own update, ``(L,)``."""
        differs = [
            [(new != own) & jnp.isfinite(new)]
            for new, own in zip(self.layout.blocks(updates), self.updates, strict=True)
        ]
        return _sums.by_leaf(self.layout, differs, self.axis_name)[:, 0]

    def _mask(self, block, paths, usable, horizon, criterion) -> jax.Array:
        """A coordinate that the optimizer leaves in place, or that would not be finite, stays."""
        weight, update, own = self.weights[block], self.updates[block], self.moves[block]
        path, jump = self._jump(block, paths)
        mask = criterion(Proposal(own, path, horizon, self.number, block))
        mask &= _basis.of_group(usable, self.ids[block])
        landing = _leaves.apply_update(weight, jump)
        mask &= jnp.isfinite(landing) & jnp.isfinite(own) & (own != 0) & (jump != update)
        if self.limits is not None and self.limits.may_land is not None:
            mask &= self.limits.may_land(landing, _leaves.apply_update(weight, update), own)
        return mask

    def _jump(self, block, paths) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Displacements at the points of a path, and the update that leads to its end."""
        weight, update, column = self.weights[block], self.updates[block], self.column(block)
        path = tuple(_basis.combinations(paths, column, self.ids[block]))
        offset = column[-1] - weight.astype(column[-1].dtype)
        jump = (path[-1] + offset).astype(self.narrowest[block]).astype(update.dtype)
        return path, jump

    def relative_error(self, first: jax.Array, usable: jax.Array) -> jax.Array:
        """``||p_1 - w_opt|| / ||d||`` over the groups that are usable and finite; inf if none is.

        Args:
          first: coefficients of ``p_1 - w(t-1)``, ``(G, h)``.
          usable: ``(G,)``, bool.
        """
        usable &= jnp.isfinite(self.products).all(axis=(1, 2))
        products = jnp.where(usable[:, None, None], self.products, 0)
        first = jnp.where(usable[:, None], first, 0)
        difference = jnp.concatenate([first, -jnp.ones_like(first[:, :1])], axis=1)
        squares = products * difference[:, :, None] * difference[:, None, :]
        error, size = jnp.maximum(squares.sum(), 0), products[:, -1, -1].sum()
        ratio = jnp.sqrt(error / jnp.where(size == 0, 1, size))
        is_infinite = ((size == 0) & (error > 0)) | ~usable.any()
        infinite = jnp.where(is_infinite, jnp.finfo(ratio.dtype).max, 0)
        # The sum overflows: a literal inf would stop `jax_debug_infs`.
        return (ratio + infinite + infinite).astype(jnp.float32)


def fit(
    layout: Layout,
    history: History,
    oldest: jax.Array,
    params: list[jax.Array],
    proposed: list[jax.Array],
    groups: tuple[Sequence[int], int],
    *,
    number: jax.Array,
    trust: Trust,
    limits: Limits | None,
    axis_name: AxisName,
) -> Event:
    """The event at the end of a period.

    Args:
      layout: how the leaves lie in blocks.
      history: of the weights.
      oldest: int32, place of the oldest increment in the ring.
      params: the leaves that take part.
      proposed: the optimizer's updates of them.
      groups: group of each leaf, and how many there are.
      number: int32, predictions made before.
      trust: what the landing before handed on.
      limits: of a scheduler.
      axis_name: axes that divide the leaves.
    """
    weights, updates = layout.blocks(params), layout.blocks(proposed)
    stored = history.stored(layout)
    moves = [
        _basis.difference(_leaves.apply_update(weight, update), part.newest)
        for weight, update, part in zip(weights, updates, stored, strict=True)
    ]
    return Event(
        layout=layout,
        params=params,
        proposed=proposed,
        weights=weights,
        updates=updates,
        narrowest=layout.narrowest(proposed),
        stored=stored,
        moves=moves,
        ids=layout.ids(groups[0]),
        num_groups=groups[1],
        sizes=_basis.group_sizes(layout, groups, weights, axis_name),
        oldest=oldest,
        stream=history.stream,
        number=number,
        trust=trust,
        limits=limits,
        axis_name=axis_name,
    )


def _order(shift: jax.Array, places: int, count: int) -> jax.Array:
    """``0 .. count - 1``, the first `places` of it turned like the ring."""
    index = jnp.arange(count, dtype=shift.dtype)
    return jnp.where(index < places, (index + shift) % places, index)
