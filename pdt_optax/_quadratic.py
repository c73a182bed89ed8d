"""Quadratic models of a loss in a few amplitudes: Gauss-Newton, and Newton."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from pdt_optax import _sums
from pdt_optax._event import Event
from pdt_optax._leaves import compute_dtype, is_float

_matmul = functools.partial(jnp.matmul, precision="highest")


class Model(NamedTuple):
    """A quadratic model of the loss in ``n`` amplitudes.

    Attributes:
      loss: where they are zero.
      gradient: ``(n,)``.
      curvature: ``(n, n)``.
    """

    loss: jax.Array
    gradient: jax.Array
    curvature: jax.Array

    def step(self, damping: jax.Array) -> jax.Array:
        """The damped Newton step with the eigenvalues' absolute values.

        Of a direction that changes nothing it is zero, and of one with a slope and no curvature
        an amplitude of one downhill.
        """
        diagonal, slope = jnp.abs(jnp.diagonal(self.curvature)), jnp.abs(self.gradient)
        tiny = jnp.finfo(diagonal).tiny
        added = jnp.where(diagonal > tiny, 0, slope)
        diagonal += added
        is_flat = ~(diagonal > tiny)
        scale = jnp.where(is_flat, 0, jax.lax.rsqrt(jnp.where(is_flat, 1, diagonal)))
        curvature = self.curvature + jnp.diag(added)
        values, vectors = jnp.linalg.eigh(curvature * scale[:, None] * scale[None])
        along = _matmul(scale * self.gradient, vectors) / (jnp.abs(values) + damping)
        return -scale * _matmul(vectors, along)

    def gain(self, step: jax.Array) -> jax.Array:
        """By how much the loss is to fall."""
        return -_matmul(step, self.gradient + _matmul(self.curvature, step) / 2)


def gauss_newton(
    residual_fn: Callable[[jax.Array], list[jax.Array]], start: jax.Array, chunk: int, event: Event
) -> Model:
    """The model of the sum of squared residuals that are linear."""
    residuals, push = jax.linearize(residual_fn, start)
    rows = _jacobian(push, start, chunk)
    both = [jnp.concatenate([row, r[None]]) for row, r in zip(rows, residuals, strict=True)]
    products = _total(list(map(_products, both)), residuals, event)
    loss = sum_of_squares(residuals, event)
    return Model(loss, 2 * products[:-1, -1], 2 * products[:-1, :-1])


def sum_of_squares(residuals: list[jax.Array], event: Event) -> jax.Array:
    """The loss of residuals, of all devices together."""
    return _total([jnp.sum(r**2) for r in residuals], residuals, event)


def _total(sums: list[jax.Array], residuals: list[jax.Array], event: Event) -> jax.Array:
    sums_here = functools.reduce(jnp.add, sums)
    return _sums.over_copies(sums_here, residuals, event.params, event.axis_name)


def _products(rows: jax.Array) -> jax.Array:
    """Inner products of the entries of the first axis."""
    axes, aval = tuple(range(1, rows.ndim)), jax.typeof(rows)
    is_explicit = any(part is not None for part in aval.sharding.spec)
    whole = NamedSharding(aval.sharding.mesh, PartitionSpec()) if is_explicit else None
    dims = ((axes, axes), ((), ()))
    return jax.lax.dot_general(rows, rows, dims, precision="highest", out_sharding=whole)


def newton(value_fn: Callable[[jax.Array], jax.Array], start: jax.Array, chunk: int) -> Model:
    """The model of gradient and Hessian."""
    (loss, gradient), push = jax.linearize(jax.value_and_grad(value_fn), start)
    return Model(loss, gradient, _jacobian(lambda a: push(a)[1], start, chunk))


def _jacobian(push: Callable[[jax.Array], Any], start: jax.Array, chunk: int) -> Any:
    """What a linear function makes of each direction, `chunk` at a time, along a new first axis."""
    size = len(start)
    chunk = min(chunk, size)
    directions = jnp.eye(size + -size % chunk, size, dtype=start.dtype)
    pushed = jax.lax.map(jax.vmap(push), directions.reshape(-1, chunk, size))
    return jax.tree.map(lambda rows: rows.reshape(len(directions), *rows.shape[2:])[:size], pushed)


def real(residuals: Any, dtype: Any) -> list[jax.Array]:
    """The leaves of a tree of residuals, in compute precision."""
    leaves = list(map(jnp.asarray, jax.tree.leaves(residuals)))
    if len(leaves) == 1 and not leaves[0].ndim:
        raise ValueError(
            "`residual_fn` must return the residuals, before they are squared and summed; got a "
            "scalar. Pass a loss as `value_fn`."
        )
    kinds = sorted({str(leaf.dtype) for leaf in leaves if not is_float(leaf)})
    if kinds or not any(leaf.size for leaf in leaves):
        raise ValueError(
            "`residual_fn` must return a pytree of real floating-point arrays, got "
            f"{' and '.join(kinds) or 'no numbers'}."
        )
    dtype = dtype if dtype == jnp.float64 else compute_dtype(*leaves)
    return [leaf.astype(dtype) for leaf in leaves]
