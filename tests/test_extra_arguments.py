"""What functions among the extra arguments of `update` are called with, as in optax."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from suites import quick

import pdt_optax

SETTINGS = {
    "Verify": (pdt_optax.Verify(history=3, start=3), "value_fn"),
    "Solve, residuals": (pdt_optax.Solve(history=3), "residual_fn"),
    "Solve, value": (pdt_optax.Solve(history=3), "value_fn"),
}


def residuals(params, inputs, targets):
    return jnp.tanh(inputs * params) - targets


def value(params, inputs, targets):
    return jnp.sum(residuals(params, inputs, targets) ** 2)


def train(jump, **extra):
    tx = optax.chain(optax.sgd(0.05), pdt_optax.pdt(1, jump))
    params: Any = jnp.array([0.3, -0.5, 1.0])
    state = tx.init(params)
    update = jax.jit(functools.partial(tx.update, **extra))
    for _ in range(5):
        grads = jax.grad(value)(params, INPUTS, TARGETS)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, pdt_optax.metrics(state)


INPUTS, TARGETS = jnp.array([1.0, 2.0, -1.0]), jnp.array([0.5, 0.1, 0.2])


@pytest.mark.parametrize("setting", quick(SETTINGS, "Verify", "Solve, residuals"))
def test_functions_take_extra_arguments_by_name(setting):
    jump, name = SETTINGS[setting]
    fn = value if name == "value_fn" else residuals
    bound = functools.partial(fn, inputs=INPUTS, targets=TARGETS)
    expected, metrics = train(jump, **{name: bound})
    found, _ = train(jump, **{name: fn, "inputs": INPUTS, "targets": TARGETS, "unknown": 3})
    assert metrics.predictions > 0
    assert (found == expected).all()


@pytest.mark.parametrize("setting", SETTINGS)
def test_defaults_of_functions_hold_where_nothing_is_given(setting):
    jump, name = SETTINGS[setting]
    fn = value if name == "value_fn" else residuals
    expected, _ = train(jump, **{name: lambda params: fn(params, INPUTS, TARGETS)})
    found, _ = train(jump, **{name: lambda p, inputs=INPUTS, **_: fn(p, inputs, TARGETS)})
    assert (found == expected).all()


def test_a_function_without_a_signature():
    found, metrics = train(pdt_optax.Verify(history=3, start=3), value_fn=OPAQUE)
    assert metrics.value_calls > 0
    assert jnp.isfinite(found).all()


class _Opaque:
    """A callable whose signature Python cannot tell."""

    __signature__ = "none"

    def __call__(self, params):
        return jnp.sum(params**2)


OPAQUE = _Opaque()
