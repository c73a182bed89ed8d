"""Shampoo, which neither optax nor a package that runs with jax 0.10 has.

Gupta, Koren and Singer (2018), "Shampoo: preconditioned stochastic tensor optimization", Algorithm
2. As is usual since Anil et al. (2020), the roots are taken anew only every few steps, and each
gradient keeps its norm, so that learning rates are those of SGD.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class ShampooState(NamedTuple):
    """State of `scale_by_shampoo`.

    Attributes:
      count: steps so far.
      sums: for each leaf a tuple of matrices, one for each axis: the gradients' products summed
        over all steps; None for an axis that is not preconditioned.
      roots: inverse roots of these matrices, of the last step at which they were taken.
    """

    count: jax.Array
    sums: Any
    roots: Any


def scale_by_shampoo(
    epsilon: float = 1e-4, interval: int = 20, largest: int = 4096
) -> optax.GradientTransformation:
    """Multiplies each axis of a gradient by an inverse root of its summed products; keeps its norm.

    Args:
      epsilon: multiple of the identity with which the sums begin.
      interval: steps between two decompositions of the sums.
      largest: an axis longer than this is left as it is.
    """

    def start(param: jax.Array) -> tuple[jax.Array | None, ...]:
        return tuple(
            epsilon * jnp.eye(size, dtype=param.dtype) if size <= largest else None
            for size in param.shape
        )

    def root(held: jax.Array, axes: int) -> jax.Array:
        values, vectors = jnp.linalg.eigh(held)
        return (vectors * jnp.maximum(values, epsilon)[None] ** (-0.5 / axes)) @ vectors.T

    def leaf_roots(grad: jax.Array, sums: tuple[jax.Array | None, ...]):
        return tuple(held if held is None else root(held, grad.ndim) for held in sums)

    def init(params: optax.Params) -> ShampooState:
        sums, roots = (jax.tree.map(start, params) for _ in range(2))  # Buffers of their own.
        return ShampooState(jnp.zeros((), jnp.int32), sums, roots)

    def update(updates, state, params=None):
        del params
        sums = jax.tree.map(_accumulate, updates, state.sums)
        roots = jax.lax.cond(
            state.count % interval == 0,
            lambda: jax.tree.map(leaf_roots, updates, sums),
            lambda: state.roots,
        )
        updates = jax.tree.map(_precondition, updates, roots)
        count = optax.safe_increment(state.count)
        return updates, ShampooState(jnp.asarray(count), sums, roots)

    return optax.GradientTransformation(init, update)


def _accumulate(grad: jax.Array, sums: tuple[jax.Array | None, ...]):
    def add(axis: int, held: jax.Array | None):
        others = [other for other in range(grad.ndim) if other != axis]
        return held if held is None else held + jnp.tensordot(grad, grad, (others, others))

    return tuple(add(axis, held) for axis, held in enumerate(sums))


def _precondition(grad: jax.Array, roots: tuple[jax.Array | None, ...]) -> jax.Array:
    result = grad
    for axis, root in enumerate(roots):
        if root is not None:
            result = jnp.moveaxis(jnp.tensordot(root, result, (1, axis)), 0, axis)
    norm, reached = (jnp.linalg.norm(jnp.ravel(leaf)) for leaf in (grad, result))
    return result * (norm / jnp.maximum(reached, jnp.finfo(grad.dtype).tiny))
