"""Streaming DMD: a history of a few directions, however many snapshots were seen.

In place of the increments the state holds orthonormal directions that span the
most of them. What was seen is kept in their coordinates, as pairs of successive
increments, compressed to as many as there are directions.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pdt_optax import _history, predictors as _predictors
from pdt_optax._checks import as_int, is_number
from pdt_optax._dmd import Gram
from pdt_optax._history import History
from pdt_optax._layout import Layout
from pdt_optax._sums import AxisName
from pdt_optax._svd import svd
from pdt_optax.predictors import DMD, Predictor


@dataclasses.dataclass(frozen=True)
class Streaming:
    r"""A history of `rank` directions that has seen all snapshots.

    Dynamic Mode Decomposition one snapshot at a time. With the increments
    :math:`\delta_j = s_{j+1} - s_j` of the snapshots it fits the linear map
    :math:`\delta_{j+1} = K \delta_j` by least squares to all increments so far,
    those of :math:`a` periods ago with weight :math:`f^a`, within the `rank`
    directions of most energy :math:`\sum_j f^{t-j} \|q^\top \delta_j\|^2`:

    .. math::
      K = Y X^+, \qquad D_k = \sum_{i=1}^k K^i \delta_{last}.

    This is the DMD of the increments (:func:`pdt_optax.predictors.affine_dmd`) without a limit
    to what is fitted: the same numbers if `forgetting` is 1 and the increments span
    at most `rank` directions. It is used as the `history` of :class:`pdt_optax.Extrapolate`,
    holds ``rank + 1`` arrays for each parameter, and makes predictions from three
    snapshots on. Predictors are ``'dmd'`` or :func:`pdt_optax.predictors.dmd`, ``'linear'``
    (along the mean increment, with the same weights) and ``'last_increment'``.

    Attributes:
      rank: directions kept, at least 1.
      forgetting: the weight :math:`f` in (0, 1]; 1 forgets nothing.

    Raises:
      ValueError: for an argument out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import pdt_optax
      >>> loss = lambda params: jnp.sum(jnp.array([1., 10.]) * params**2)
      >>> history = pdt_optax.Streaming(rank=2)
      >>> link = pdt_optax.pdt(1, pdt_optax.Extrapolate(history=history))
      >>> tx = optax.chain(optax.sgd(0.01), link)
      >>> params = jnp.array([1., 1.])
      >>> state = tx.init(params)
      >>> @jax.jit
      ... def step(params, state):
      ...   updates, state = tx.update(jax.grad(loss)(params), state, params)
      ...   return optax.apply_updates(params, updates), state
      >>> for _ in range(5):
      ...   params, state = step(params, state)
      >>> print(pdt_optax.metrics(state).eigenvalues.real.round(3))  # 1 - 0.02, 1 - 0.2.
      [[0.98 0.8 ]]

    References:
      Hemati, Williams, Rowley, `Dynamic mode decomposition for large and streaming
      datasets <https://arxiv.org/abs/1406.7187>`_, 2014

      Zhang et al., `Online dynamic mode decomposition for time-varying systems
      <https://arxiv.org/abs/1707.02876>`_, 2019
    """

    rank: int = 2
    forgetting: float = 0.8

    def __post_init__(self):
        object.__setattr__(self, "rank", as_int("rank", self.rank, 1))
        if not is_number(self.forgetting) or not 0 < self.forgetting <= 1:
            raise ValueError(f"`forgetting` must be in (0, 1], got {self.forgetting!r}.")
        object.__setattr__(self, "forgetting", float(self.forgetting))

    @property
    def least_snapshots(self) -> int:
        """How many have to be seen for a prediction: a pair of increments."""
        return 3

    @property
    def places(self) -> int:
        """Arrays for each parameter beside the newest snapshot."""
        return self.rank

    def resolve(self, predictor: str | Predictor, svd_rank: int | float) -> Predictor:
        """The predictor of that name on a :class:`StreamGram`; rank 0 stands for no truncation."""
        if predictor == "linear":
            return _linear
        if predictor == "last_increment":
            return _last_increment
        if predictor == "dmd":
            return _StreamingDMD(svd_rank or -1, exact=True, affine=True)
        if isinstance(predictor, DMD) and not predictor.affine and predictor.svd_rank != 0:
            return _StreamingDMD(predictor.svd_rank, predictor.exact, affine=True)
        raise ValueError(
            "`predictor` must be 'dmd', 'linear', 'last_increment', or what pdt_optax.predictors.dmd(...) "
            "returns for a rank other than 0, where `history` is a pdt_optax.Streaming; "
            f"got {predictor!r}."
        )

    def nothing_seen(self, num_groups: int, dtype: Any) -> "Stream":
        """What the state holds beside the directions, for so many groups of leaves."""
        r = self.rank
        shapes = (r, r), (r, r), (r,), (r,), ()
        return Stream(*(jnp.zeros((num_groups, *shape), dtype) for shape in shapes))

    def oldest(self, history: History) -> jax.Array:
        """The directions are in no order of time."""
        return jnp.zeros_like(history.snapshots_taken)

    def push(
        self,
        history: History,
        layout: Layout,
        newest: list[jax.Array],
        groups: tuple[list[int], int],
        axis_name: AxisName,
    ) -> History:
        """Takes in a snapshot, in blocks.

        The increment to it joins the directions. Of the ``r + 1`` the ``r`` with the most
        energy are kept, made orthogonal by their own inner products, which are measured
        anew each time. In a group where something is not finite all stays as it is, but
        that the next increment does not follow the last one.
        """
        held, ids = history.stored(layout), layout.ids(groups[0])
        columns = [
            _history.extended(part.column()[:-1], _history.difference(new, part.anchor))
            for part, new in zip(held, newest, strict=True)
        ]
        products = _history.gram(columns, ids, groups[1], axis_name)
        sizes = _history.group_sizes(layout, groups, newest, axis_name)
        gram = Gram(products, jnp.asarray(sizes, products.dtype))
        with jax.default_matmul_precision("highest"):
            advance = functools.partial(_advance, forgetting=self.forgetting)
            combinations, finite, stream = jax.vmap(advance)(gram, history.stream)
        turned = []
        for part, column, group, new in zip(held, columns, ids, newest, strict=True):
            is_finite = _history.of_group(finite, group)
            column = _history.extended(column[:-1], jnp.where(is_finite, column[-1], 0))
            directions = _history.combinations(combinations.swapaxes(1, 2), column, group)
            for k, direction in enumerate(directions):
                part = part.write(k, direction)
            turned.append(part._replace(anchor=new.astype(part.anchor.dtype)))
        return history.with_stored(layout, turned)._replace(
            snapshots_taken=optax.safe_increment(history.snapshots_taken), stream=stream
        )

    def replace_newest(
        self, history: History, layout: Layout, newest: list[jax.Array]
    ) -> History:
        """Puts `newest` in the place of the newest snapshot; what was seen remains."""
        turned = [
            part._replace(anchor=new.astype(part.anchor.dtype))
            for part, new in zip(history.stored(layout), newest, strict=True)
        ]
        held = history.with_stored(layout, turned)
        return held._replace(stream=history.stream.without_last())


class Stream(NamedTuple):
    r"""What was seen, in coordinates of the directions; ``G`` groups, ``r`` directions.

    The columns of `stream_before` and `stream_after` are pairs :math:`(x, y)` with
    :math:`y = K x` in the least squares sense: those of all increments, rotated so
    that the first ``r`` have all of :math:`X`, with nothing lost of :math:`K = Y X^+`.

    Attributes:
      stream_before: shape ``(G, r, r)``, the matrix :math:`X`.
      stream_after: shape ``(G, r, r)``, the matrix :math:`Y`.
      stream_last: shape ``(G, r)``, the last increment; zero if unknown.
      stream_sum: shape ``(G, r)``, the weighted sum of the increments.
      stream_weight: shape ``(G,)``, the sum of their weights.
    """

    stream_before: jax.Array
    stream_after: jax.Array
    stream_last: jax.Array
    stream_sum: jax.Array
    stream_weight: jax.Array

    def gram(self, gram: Gram) -> "StreamGram":
        """What the predictors of a streaming history take."""
        return StreamGram(gram.matrix, gram.size, self)

    def without_last(self) -> "Stream":
        """The next increment does not follow the last one."""
        return self._replace(stream_last=jnp.zeros_like(self.stream_last))


class StreamGram(NamedTuple):
    """A :class:`pdt_optax.predictors.Gram` of directions and newest snapshot, and what was seen."""

    matrix: jax.Array
    size: jax.Array
    stream: Stream


def _advance(
    gram: Gram, stream: Stream, *, forgetting: float
) -> tuple[jax.Array, jax.Array, Stream]:
    """One group: new directions in the frame of the old ones and the increment, ``(r + 1, r)``.

    Also whether that could be done, and what was seen in the new directions.
    """
    rank, dtype = stream.stream_last.shape[-1], gram.matrix.dtype
    fade = forgetting**0.5
    increment = jnp.zeros(rank + 1, dtype).at[-1].set(1)

    def joined(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.column_stack([fade * jnp.pad(old, ((0, 1), (0, 0))), new])

    before = joined(stream.stream_before, jnp.append(stream.stream_last, 0))
    after = joined(stream.stream_after, increment)
    root, inverse = _root(gram.matrix / gram.size)
    _, _, directions = _svd((root @ jnp.column_stack([fade * before, increment])).T)
    directions = directions[:, :rank]
    combination, coordinates = inverse @ directions, directions.T @ root
    rotation, sizes, v = _svd((coordinates @ before).T)
    total = forgetting * jnp.append(stream.stream_sum, 0) + increment
    seen = Stream(
        stream_before=v * sizes[None],
        stream_after=coordinates @ (after @ rotation),
        stream_last=coordinates[:, -1],
        stream_sum=coordinates @ total,
        stream_weight=forgetting * stream.stream_weight + 1,
    )
    everything = jax.tree.leaves((gram.matrix, combination, seen))
    finite = jnp.stack([jnp.isfinite(array).all() for array in everything]).all()
    combination = jnp.where(finite, combination, jnp.eye(rank + 1, rank, dtype=dtype))
    seen = jax.tree.map(functools.partial(jnp.where, finite), seen, stream.without_last())
    return combination, finite, seen


def _root(products: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``root`` with ``root.T @ root = products``, and its pseudo-inverse."""
    sizes = jnp.sqrt(jnp.diagonal(products))
    sizes = jnp.where(sizes == 0, 1, sizes)
    u, values, _ = _svd(products / jnp.outer(sizes, sizes))
    roots = jnp.sqrt(values)
    inverse = jnp.where(roots == 0, 0, 1 / jnp.where(roots == 0, 1, roots))
    return (u * roots[None]).T * sizes[None], u * inverse[None] / sizes[:, None]


def _svd(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Without the directions that are rounding: these are zero, in all three."""
    scale = jnp.abs(matrix).max()
    u, s, v = svd(matrix / jnp.where(scale == 0, 1, scale))
    kept = s > matrix.shape[0] * jnp.finfo(matrix.dtype).eps * s[0]
    return jnp.where(kept[None], u, 0), jnp.where(kept, s * scale, 0), jnp.where(kept[None], v, 0)


class _StreamingDMD(DMD):
    """The DMD of all increments."""

    def pairs(self, gram: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        before, after, last, *_ = gram.stream
        x = jnp.pad(before, ((0, 1), (0, 1)))
        y = jnp.pad(jnp.column_stack([after, last]), ((0, 1), (0, 0)))
        return x, y, jnp.zeros_like(x[-1]).at[-1].set(1)


def _linear(gram: Any, horizon: int) -> jax.Array:
    weight = jnp.maximum(gram.stream.stream_weight, 1)
    return _predictors.along(jnp.append(gram.stream.stream_sum / weight, 0), horizon)


def _last_increment(gram: Any, horizon: int) -> jax.Array:
    return _predictors.along(jnp.append(gram.stream.stream_last, 0), horizon)
