"""What a streaming history has seen, in coordinates of its directions, and its predictors."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pdt_optax import predictors as _predictors
from pdt_optax._dmd import Gram
from pdt_optax._svd import root, svd
from pdt_optax.predictors import DMD


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


def advance(
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
    factor, inverse = _root(gram.matrix / gram.size)
    _, _, directions = _svd((factor @ jnp.column_stack([fade * before, increment])).T)
    directions = directions[:, :rank]
    combination, coordinates = inverse @ directions, directions.T @ factor
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
    sizes = root(jnp.diagonal(products))
    sizes = jnp.where(sizes == 0, 1, sizes)
    u, values, _ = _svd(products / jnp.outer(sizes, sizes))
    roots = root(values)
    inverse = jnp.where(roots == 0, 0, 1 / jnp.where(roots == 0, 1, roots))
    return (u * roots[None]).T * sizes[None], u * inverse[None] / sizes[:, None]


def _svd(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Without the directions that are rounding: these are zero, in all three."""
    scale = jnp.abs(matrix).max()
    u, s, v = svd(matrix / jnp.where(scale == 0, 1, scale))
    kept = s > matrix.shape[0] * jnp.finfo(matrix.dtype).eps * s[0]
    return jnp.where(kept[None], u, 0), jnp.where(kept, s * scale, 0), jnp.where(kept[None], v, 0)


class StreamingDMD(DMD):
    """The DMD of all increments."""

    def pairs(self, gram: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        before, after, last, *_ = gram.stream
        x = jnp.pad(before, ((0, 1), (0, 1)))
        y = jnp.pad(jnp.column_stack([after, last]), ((0, 1), (0, 0)))
        return x, y, jnp.zeros_like(x[-1]).at[-1].set(1)


def linear(gram: Any, horizon: int) -> jax.Array:
    weight = jnp.maximum(gram.stream.stream_weight, 1)
    return _predictors.along(jnp.append(gram.stream.stream_sum / weight, 0), horizon)


def last_increment(gram: Any, horizon: int) -> jax.Array:
    return _predictors.along(jnp.append(gram.stream.stream_last, 0), horizon)
