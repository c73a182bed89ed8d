"""Singular value decomposition of small matrices, to high relative accuracy.

``jnp.linalg.svd`` computes singular values and vectors to within rounding of the
*largest*. A weight history is graded: the weights' distance from the origin is
many orders larger than the differences that a DMD is about. One-sided Jacobi
rotations find every singular direction to its own accuracy, and are the same
arithmetic on CPU, GPU and TPU.
"""

import jax
import jax.numpy as jnp
import numpy as np

_SWEEPS = 10


def svd(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Thin singular value decomposition ``matrix = u @ diag(s) @ v.T``.

    Args:
      matrix: shape ``(n, m)`` with ``n >= m``, float32 or float64, small.

    Returns:
      ``u`` of shape ``(n, m)``, ``s`` of shape ``(m,)`` in decreasing order, and
      ``v`` of shape ``(m, m)``. Columns of ``u`` with ``s = 0`` are zero.

    References:
      Demmel and Veselic, `Jacobi's method is more accurate than QR
      <https://doi.org/10.1137/0613074>`_, 1992
    """
    n, m = matrix.shape
    size = n + n % 2  # Of all matrices with n rows, so that one program serves them all.
    rounds = jnp.asarray(_tournament(size))
    identity = jnp.eye(size, dtype=matrix.dtype)
    stacked = jnp.concatenate([jnp.pad(matrix, ((0, 0), (0, size - m))), identity])

    def rotate(step, stacked):
        partners = rounds[step % (size - 1)]
        partner = stacked[:, partners]
        squares = jnp.sum(stacked[:n] ** 2, axis=0)
        product = jnp.sum(stacked[:n] * partner[:n], axis=0)
        cotangent = (squares[partners] - squares) / jnp.where(product == 0, 1, 2 * product)
        first = jnp.arange(size) < partners
        sign = jnp.where((cotangent > 0) | ((cotangent == 0) & first), 1, -1)
        tangent = sign.astype(matrix.dtype) / (jnp.abs(cotangent) + jnp.sqrt(1 + cotangent**2))
        tangent = jnp.where(product == 0, 0, tangent)[None]
        return (stacked - tangent * partner) * jax.lax.rsqrt(1 + tangent**2)

    stacked = jax.lax.fori_loop(0, _SWEEPS * (size - 1), rotate, stacked)
    s = jnp.linalg.norm(stacked[:n], axis=0)
    order = jnp.argsort(-s)
    stacked, s = stacked[:, order], s[order]
    u = stacked[:n] / jnp.where(s == 0, 1, s)[None]
    return u[:, :m], s[:m], stacked[n : n + m, :m]


def least_squares(a: jax.Array, b: jax.Array) -> jax.Array:
    """Minimum-norm ``x`` with the least ``||a @ x - b||``, columns of `a` scaled to one.

    Args:
      a: shape ``(n, m)`` with ``n >= m``.
      b: shape ``(n,)``.

    Returns:
      Shape ``(m,)``.
    """
    scale = jnp.linalg.norm(a, axis=0)
    scale = jnp.where(scale == 0, 1, scale)
    u, s, v = svd(a / scale[None])
    kept = s > a.shape[0] * jnp.finfo(a.dtype).eps * s[0]
    return v @ (jnp.where(kept, 1 / jnp.where(kept, s, 1), 0) * (b @ u)) / scale


def _tournament(size: int) -> np.ndarray:
    """Who meets whom in each round until every pair has met; ``(size - 1, size)``, even size."""
    ring = list(range(1, size))
    rounds = np.empty((size - 1, size), np.int32)
    for partners in rounds:
        order = np.array([0, *ring])
        partners[order] = order[::-1]
        ring = [ring[-1], *ring[:-1]]
    return rounds
