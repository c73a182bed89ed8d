"""Exact order statistics over several arrays, without joining or sorting them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_BITS_OF_INFINITY = int(np.float32(np.inf).view(np.int32))
# A count is a pair of int32, `(high << _LOW_BITS) + low`: exact up to 2**41 entries of arrays whose
# last axis is below 2**31 and whose other axes are below 2**26.
_LOW_BITS = 10
_LOW = (1 << _LOW_BITS) - 1
_INT32_ENTRIES = 1 << 31


def kth_smallest(groups: Sequence[Sequence[jax.Array]], ranks: Sequence[int]) -> jax.Array:
    """The k-th smallest entry of each group of arrays.

    Non-negative floats are ordered like their bits, so 31 bisections of the bits
    find it. Each is a count: of sharded arrays nothing but counts is exchanged.

    Args:
      groups: for each group its float32 arrays, of any shapes, without nan and
        negative entries.
      ranks: for each group ``k``, from 1 to its number of entries.

    Returns:
      float32 array of shape ``(len(groups),)``.
    """
    bits = [[jax.lax.bitcast_convert_type(x, jnp.int32) for x in arrays] for arrays in groups]

    def bisect(_, bounds):
        least, most = bounds
        middle = least + (most - least) // 2
        counts = [
            _total([_count(b <= bound) for b in arrays])
            for arrays, bound in zip(bits, middle, strict=True)
        ]
        enough = jnp.stack([_reaches(c, rank) for c, rank in zip(counts, ranks, strict=True)])
        return jnp.where(enough, least, middle + 1), jnp.where(enough, middle, most)

    zeros = jnp.zeros(len(groups), jnp.int32)
    bounds = jax.lax.fori_loop(0, 31, bisect, (zeros, jnp.full_like(zeros, _BITS_OF_INFINITY)))
    return jax.lax.bitcast_convert_type(bounds[1], jnp.float32)


def _count(chosen: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The number of true entries; in one sum where int32 holds it, else axis by axis."""
    if chosen.size < _INT32_ENTRIES:
        low = jnp.sum(chosen, dtype=jnp.int32)
        return _carry(jnp.zeros_like(low), low)
    low = jnp.sum(jnp.atleast_1d(chosen), axis=-1, dtype=jnp.int32)
    high = jnp.zeros_like(low)
    while low.ndim:
        high, low = _carry(high, low)
        upper, low = (part.sum(-1, dtype=jnp.int32) for part in (low >> 5, low & 31))
        high = high.sum(-1, dtype=jnp.int32) + (upper >> (_LOW_BITS - 5))
        low += (upper & (_LOW >> 5)) << 5
    return _carry(high, low)


def count(chosen: jax.Array) -> jax.Array:
    """The number of true entries, a float32 scalar."""
    high, low = _count(chosen)
    return high.astype(jnp.float32) * (1 << _LOW_BITS) + low.astype(jnp.float32)


def _total(counts: Sequence[tuple[jax.Array, jax.Array]]) -> tuple[jax.Array, jax.Array]:
    high, low = map(sum, zip(*counts, strict=True))
    return _carry(jnp.asarray(high), jnp.asarray(low))


def _carry(high: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    return high + (low >> _LOW_BITS), low & _LOW


def _reaches(count: tuple[jax.Array, jax.Array], rank: int) -> jax.Array:
    high, low = count
    rank_high, rank_low = rank >> _LOW_BITS, rank & _LOW
    return (high > rank_high) | ((high == rank_high) & (low >= rank_low))
