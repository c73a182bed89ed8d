"""Shampoo with Adam's step lengths, and PSGD's Kronecker preconditioner."""

import contextlib
import io
from typing import Any

import jax
import jax.numpy as jnp
import optax
from rollfast.optim import psgd

from experiments.runs.shampoo import scale_by_shampoo
from experiments.science.methods import Rate


def shampoo(rate: Rate) -> optax.GradientTransformation:
    """Shampoo's direction, Adam's length for each leaf, then momentum.

    Anil et al. (2020), "Scalable second order optimization for deep learning", section on grafting.
    The rate is that of Adam.
    """
    grafted = _grafted(scale_by_shampoo(), optax.scale_by_adam(b1=0.0))
    return optax.chain(grafted, optax.ema(0.9), optax.scale_by_learning_rate(rate))


def kron(rate: Rate) -> optax.GradientTransformation:
    """Li (2018), "Preconditioned stochastic gradient descent", with the settings of the package.

    Its functions take no extra arguments, promote ranks, and tell sizes on the standard output.
    """
    link = optax.chain(psgd.scale_by_kron(), optax.scale_by_learning_rate(rate))

    def init(params: optax.Params) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return link.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_rank_promotion("allow"):
            return link.update(updates, state, params)

    return optax.GradientTransformation(init, update)


def _grafted(
    direction: optax.GradientTransformation, length: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Updates along those of one transformation, each leaf as long as that of the other."""

    def init(params: optax.Params) -> tuple[Any, Any]:
        return direction.init(params), length.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        along, first = direction.update(updates, state[0], params)
        across, second = length.update(updates, state[1], params)
        return jax.tree.map(_rescale, along, across), (first, second)

    return optax.GradientTransformation(init, update)


def _rescale(along: jax.Array, across: jax.Array) -> jax.Array:
    norm = jnp.linalg.norm(along.ravel())
    return along * (jnp.linalg.norm(across.ravel()) / jnp.maximum(norm, 1e-30))
