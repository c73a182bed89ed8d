"""Levenberg-Marquardt on all weights, with a dense Jacobian.

More (1978), "The Levenberg-Marquardt algorithm: implementation and theory", for the scaling;
Nielsen (1999), "Damping parameter in Marquardt's method", for the damping.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np

from experiments.science.tasks import Task
from experiments.science.tasks.task import Params, Points, Residuals

BATCH = 64
"""Rows of the Jacobian that are taken at once."""
Vector = Callable[[jax.Array], jax.Array]


class Damping(NamedTuple):
    """Damping, and what it is multiplied by at the next rejection."""

    damping: jax.Array
    growth: jax.Array


@dataclasses.dataclass(frozen=True)
class LevenbergMarquardt:
    """One trial step at a time; a step that does not lower the loss is not made.

    The damped equations are solved in the space of the residuals where these are fewer than the
    weights, so that 10^5 weights are in reach.
    """

    start: float = 1e-2

    def init(self, task: Task, params: Params) -> Damping:
        """The first damping."""
        dtype = jax.tree.leaves(params)[0].dtype
        return Damping(jnp.asarray(self.start, dtype), jnp.asarray(2, dtype))

    def step(
        self, task: Task, params: Params, state: Damping, points: Points, rate: float | jax.Array
    ) -> tuple[Params, Damping]:
        """Tries one step. There is no learning rate."""
        del rate
        residuals = task.residuals
        if residuals is None:
            raise ValueError(f"{task.name}: Levenberg-Marquardt needs residuals.")
        weights, unravel = ravel_pytree(params)

        def function(weights: jax.Array) -> jax.Array:
            return ravel_pytree(residuals(unravel(weights), points))[0]

        matrix = jacobian(residuals, params, points)
        weights, state = step(function, matrix, weights, state)
        return unravel(weights), state


def step(
    function: Vector, matrix: jax.Array, weights: jax.Array, state: Damping
) -> tuple[jax.Array, Damping]:
    """Tries one step.

    Args:
      function: from weights (p,) to residuals (n,).
      matrix: its Jacobian at the weights, (n, p).
      weights: (p,).
      state: the damping before.

    Returns:
      The weights, moved or not, and the damping after.
    """
    residuals = function(weights)
    move = damped(matrix, residuals, state.damping)
    before = jnp.sum(residuals**2)
    after = jnp.sum(function(weights + move) ** 2)
    ratio = (before - after) / (before - jnp.sum((residuals + matrix @ move) ** 2))
    accepted = (after < before) & (ratio > 0)
    shrink = jnp.clip(1 - (2 * ratio - 1) ** 3, 1 / 3, 1)
    damping = state.damping * jnp.where(accepted, shrink, state.growth)
    growth = jnp.where(accepted, 2, 2 * state.growth)
    bounded = jnp.clip(damping, jnp.finfo(weights.dtype).eps, 1e8)
    return jnp.where(accepted, weights + move, weights), Damping(bounded, growth)


def jacobian(residuals: Residuals, params: Params, points: Points) -> jax.Array:
    """The Jacobian of all residuals by all weights, (n, p).

    Row i of a leaf of the residuals depends on row i of the arrays of points that are as long, and
    each leaf is divided by the root of its length. So each row takes a reverse pass over one point,
    where a general residual would take one over all of them. A leaf as long as no array of points
    is differentiated whole.
    """
    weights, unravel = ravel_pytree(params)
    lengths = {len(leaf) for leaf in jax.tree.leaves(points)}
    shapes = jax.tree.leaves(jax.eval_shape(residuals, params, points))

    def leaf(weights: jax.Array, index: int, points: Points) -> jax.Array:
        return jax.tree.leaves(residuals(unravel(weights), points))[index].ravel()

    def rows(index: int) -> jax.Array:
        length = shapes[index].shape[0]
        if length not in lengths:
            return jax.jacrev(leaf)(weights, index, points)

        def row(i: jax.Array) -> jax.Array:
            one = jax.tree.map(
                lambda p: jax.lax.dynamic_slice_in_dim(p, i if len(p) == length else 0, 1), points
            )
            return jax.jacrev(leaf)(weights, index, one) / np.sqrt(length).astype(weights.dtype)

        each = jax.lax.map(row, jnp.arange(length), batch_size=BATCH)
        return each.reshape(-1, len(weights))

    return jnp.concatenate([rows(index) for index in range(len(shapes))])


def damped(matrix: jax.Array, residuals: jax.Array, damping: jax.Array) -> jax.Array:
    """The step -(J^T J + damping D)^-1 J^T r, (p,), with D the diagonal of J^T J, bounded below."""
    n, p = matrix.shape
    squares = jnp.sum(matrix**2, 0)
    scale = 1 / jnp.sqrt(jnp.maximum(squares, 1e-6 * jnp.max(squares)))
    scaled = matrix * scale[None]
    gram = scaled @ scaled.T if n < p else scaled.T @ scaled
    factor = jax.scipy.linalg.cho_factor(gram + damping * jnp.eye(min(n, p), dtype=gram.dtype))
    if n < p:
        return -scale * (scaled.T @ jax.scipy.linalg.cho_solve(factor, residuals))
    return -scale * jax.scipy.linalg.cho_solve(factor, scaled.T @ residuals)
