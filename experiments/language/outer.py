"""Nesterov momentum on the displacement over several steps, a control."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class OuterState(NamedTuple):
    """The state of :func:`outer_nesterov`.

    Attributes:
      count: int32, steps since the last outer step.
      slow: the parameters after it.
      momentum: of the displacements.
    """

    count: jax.Array
    slow: optax.Params
    momentum: optax.Params


def outer_nesterov(
    every: int, learning_rate: float, momentum: float
) -> optax.GradientTransformation:
    r"""Steps along the displacement of every few steps, with Nesterov momentum.

    The last link of a chain. With :math:`d` the displacement since the last outer step, from
    `slow` weights :math:`s`, it sets :math:`m \leftarrow \mu m + d`, and training goes on from
    :math:`s + \eta (\mu m + d)`. A rate of one and no momentum change nothing.

    Args:
      every: optimizer steps in an outer step.
      learning_rate: :math:`\eta`.
      momentum: :math:`\mu`.

    References:
      Douillard et al., *DiLoCo*, 2023, with one worker

      Kallusky et al., *SNOO: Step-K Nesterov Outer Optimizer*, 2025
    """

    def init(params: optax.Params) -> OuterState:
        slow = jax.tree.map(jnp.array, params)
        return OuterState(jnp.zeros([], jnp.int32), slow, jax.tree.map(jnp.zeros_like, params))

    def update(updates, state: OuterState, params=None):
        def step(update, param, slow, velocity):
            move = param + update - slow
            velocity = momentum * velocity + move
            return slow + learning_rate * (momentum * velocity + move), velocity

        def outer():
            pairs = jax.tree.map(step, updates, params, state.slow, state.momentum)
            slow, velocity = jax.tree.transpose(jax.tree.structure(params), None, pairs)
            moved = jax.tree.map(jnp.subtract, slow, params)
            return moved, OuterState(jnp.zeros_like(state.count), slow, velocity)

        def inner():
            return updates, state._replace(count=state.count + 1)

        return jax.lax.cond(state.count == every - 1, outer, inner)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
