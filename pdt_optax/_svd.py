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


def root(x: jax.Array) -> jax.Array:
    """The square root; at zero its derivative is taken as zero."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), x)


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
    us, s, v = _jacobi(jnp.pad(matrix, ((0, 0), (0, size - m))))
    return (us / jnp.where(s == 0, 1, s)[None])[:, :m], s[:m], v[:m, :m]


@jax.jit  # Traced once for all matrices of one shape.
def _jacobi(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Orthogonal columns ``us = matrix @ v``, their norms in decreasing order, and ``v``.

    A tournament: in each round column i meets column ``size - 1 - i``; then all but the first
    move on by one seat, so that after ``size - 1`` rounds each pair has met.
    """
    n, size = matrix.shape
    eps = float(jnp.finfo(matrix.dtype).eps) / 8
    is_first = jnp.asarray(np.arange(size) < size // 2)

    def play(_, stacked):
        partner = stacked[:, ::-1]
        squares = jnp.sum(stacked[:n] ** 2, axis=0)
        product = jnp.sum(stacked[:n] * partner[:n], axis=0)
        norms = jnp.sqrt(squares)
        is_turned = jnp.abs(product) > eps * norms * norms[::-1]
        cotangent = (squares[::-1] - squares) / jnp.where(is_turned, 2 * product, 1)
        sign = jnp.where((cotangent > 0) | ((cotangent == 0) & is_first), 1, -1)
        tangent = sign.astype(matrix.dtype) / (jnp.abs(cotangent) + jnp.sqrt(1 + cotangent**2))
        tangent = jnp.where(is_turned, tangent, 0)[None]
        turned = (stacked - tangent * partner) * jax.lax.rsqrt(1 + tangent**2)
        return jnp.concatenate([turned[:, :1], turned[:, -1:], turned[:, 1:-1]], axis=1)

    stacked = jnp.concatenate([matrix, jnp.eye(size, dtype=matrix.dtype)])
    stacked = jax.lax.fori_loop(0, _SWEEPS * (size - 1), play, stacked)
    squares, place = jnp.sum(stacked[:n] ** 2, axis=0), jnp.arange(size)
    is_before = (squares[:, None] > squares[None]) | (
        (squares[:, None] == squares[None]) & (place[:, None] < place[None])
    )
    order = is_before.sum(axis=0)[:, None] == place[None]
    stacked = jnp.matmul(stacked, order.astype(matrix.dtype), precision="highest")
    return stacked[:n], root(jnp.sum(stacked[:n] ** 2, axis=0)), stacked[n:]


def least_squares(a: jax.Array, b: jax.Array) -> jax.Array:
    """Minimum-norm ``x`` with the least ``||a @ x - b||``, columns of `a` scaled to one.

    Args:
      a: shape ``(n, m)`` with ``n >= m``.
      b: shape ``(n,)``.

    Returns:
      Shape ``(m,)``.
    """
    scale = root(jnp.sum(a**2, axis=0))
    scale = jnp.where(scale == 0, 1, scale)
    u, s, v = svd(a / scale[None])
    kept = s > a.shape[0] * jnp.finfo(a.dtype).eps * s[0]
    return v @ (jnp.where(kept, 1 / jnp.where(kept, s, 1), 0) * (b @ u)) / scale
