"""Shampoo against its definition in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from experiments.runs.shampoo import scale_by_shampoo

EPSILON = 1e-4
SHAPES = {"bias": (3,), "matrix": (3, 4), "kernel": (2, 3, 4)}


def preconditioned(gradients: list[np.ndarray], roots_at: int, axes) -> np.ndarray:
    """The last gradient, with the sums of those up to the given one."""
    result = gradients[-1]
    for axis in axes:
        size = result.shape[axis]
        held = EPSILON * np.eye(size)
        for gradient in gradients[: roots_at + 1]:
            flat = np.moveaxis(gradient, axis, 0).reshape(size, -1)
            held += flat @ flat.T
        root = scipy.linalg.fractional_matrix_power(held, -0.5 / result.ndim)
        result = np.moveaxis(np.tensordot(root, result, (1, axis)), 0, axis)
    return result * np.linalg.norm(gradients[-1]) / np.linalg.norm(result)


@pytest.mark.parametrize(("interval", "roots_at"), [(1, 4), (3, 3), (9, 0)])
def test_matches_the_definition(interval: int, roots_at: int):
    rng = np.random.default_rng(0)
    steps = [{name: rng.normal(size=shape) for name, shape in SHAPES.items()} for _ in range(5)]
    tx = scale_by_shampoo(EPSILON, interval)
    state = tx.init(jax.tree.map(jnp.asarray, steps[0]))
    updates = None
    for gradients in steps:
        updates, state = jax.jit(tx.update)(jax.tree.map(jnp.float32, gradients), state)
    for name, shape in SHAPES.items():
        wanted = preconditioned([step[name] for step in steps], roots_at, range(len(shape)))
        np.testing.assert_allclose(updates[name], wanted, rtol=2e-3, atol=2e-3 * abs(wanted).max())


def test_a_long_axis_is_left_as_it_is():
    gradient = np.random.default_rng(0).normal(size=(3, 5))
    tx = scale_by_shampoo(EPSILON, largest=4)
    updates, state = tx.update(jnp.asarray(gradient), tx.init(jnp.asarray(gradient)))
    assert state.sums[1] is None
    np.testing.assert_allclose(updates, preconditioned([gradient], 0, [0]), rtol=1e-3, atol=1e-3)
