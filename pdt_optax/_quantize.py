"""How an increment is stored: as it is, or as one byte a coordinate with scales."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_MOST = 127
_LARGEST_BLOCK, _SMALLEST_BLOCK, _ALIGNED = 256, 64, 16


def check_dtype(name: str, dtype: Any) -> None:
    """Raises ValueError unless increments can be stored in it."""
    try:
        known = dtype is None or is_scaled(dtype) or _is_wide(jnp.dtype(dtype))
    except TypeError:
        known = False
    if not known:
        raise ValueError(
            f"`{name}` must be None, a floating dtype of 16 bits or more, or 'int8'; got {dtype!r}."
        )


def is_scaled(dtype: Any) -> bool:
    """Whether numbers of this dtype are stored with scales."""
    return dtype is not None and jnp.dtype(dtype) == jnp.int8


def block_size(length: int) -> int:
    """Coordinates along the last axis that share a scale.

    A divisor of the length, from 64 to 256 if there is one. Of these the one that
    makes the number of blocks divisible by the highest power of two up to 16, so that
    an axis sharded over as many devices is cut between blocks; then the largest.
    """
    divisors = [d for d in range(_SMALLEST_BLOCK, _LARGEST_BLOCK + 1) if length % d == 0]
    return max(divisors, key=lambda d: (np.gcd(length // d, _ALIGNED), d), default=max(length, 1))


def scales_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the scales of a leaf."""
    length = shape[-1] if shape else 1
    return (*shape[:-1], length // block_size(length))


def no_scales(leaf: Any) -> jax.Array:
    """The scales of an increment of zeros, sharded as they will be."""
    return jnp.abs(_blocks(jnp.zeros_like(leaf, dtype=jnp.bfloat16))).max(axis=-1)


def encode(increment: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array | None]:
    """The stored numbers, and with int8 a bfloat16 scale for each block."""
    if not is_scaled(dtype):
        return increment.astype(dtype), None
    blocks = _blocks(increment)
    scales = (jnp.abs(blocks).max(axis=-1) / _MOST).astype(jnp.bfloat16)
    unit = scales.astype(increment.dtype)[..., None]
    codes = jnp.round(jnp.clip(blocks / jnp.where(unit == 0, 1, unit), -_MOST, _MOST))
    return codes.astype(dtype).reshape(increment.shape), scales


def decode(stored: jax.Array, scales: jax.Array | None, dtype: Any) -> jax.Array:
    """The increment."""
    if scales is None:
        return stored.astype(dtype)
    blocks = _blocks(stored).astype(dtype) * scales.astype(dtype)[..., None]
    return blocks.reshape(stored.shape)


def _is_wide(dtype: np.dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > 1


def _blocks(array: jax.Array) -> jax.Array:
    blocks = scales_shape(array.shape)
    length = array.shape[-1] if array.ndim else 1
    return array.reshape(*blocks, block_size(length))
