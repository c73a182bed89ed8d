"""An update outside of `jit`: the same numbers, and functions that are read at each call."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from suites import quick

import pdt_optax

JUMPS = {
    "Extrapolate": pdt_optax.Extrapolate(history=3, start=3),
    "Verify": pdt_optax.Verify(history=3, start=3),
    "Solve": pdt_optax.Solve(history=3),
}


def loss(params):
    return jnp.sum(jnp.array([1.0, 2.0, 3.0]) * params**2)


@pytest.mark.parametrize("name", quick(JUMPS, "Extrapolate"))
def test_the_numbers_are_those_under_jit(name):
    tx, runs = pdt_optax.pdt(1, JUMPS[name]), []
    given = {} if name == "Extrapolate" else {"value_fn": loss}
    for update in (tx.update, jax.jit(tx.update, static_argnames="value_fn")):
        params: Any = jnp.ones(3)
        state = tx.init(params)
        for _ in range(5):
            updates, state = update(-0.1 * jax.grad(loss)(params), state, params, **given)
            params = optax.apply_updates(params, updates)
        runs.append((params, pdt_optax.metrics(state).predictions))
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-5, atol=1e-10)
    assert runs[0][1] == runs[1][1] > 0


def test_without_functions_it_is_compiled_once():
    traces = []

    def criterion(proposal):
        traces.append(1)
        return proposal.move != 0

    tx = pdt_optax.pdt(1, pdt_optax.Extrapolate(criterion, history=3, start=3))
    params, counts = jnp.ones(3), []
    state = tx.init(params)
    for _ in range(5):
        _, state = tx.update(-0.1 * params, state, params, value=2.0)
        params = 0.9 * params
        counts.append(len(traces))
    assert len(set(counts)) == 1


class Trainer:
    """Its loss reads what changes between two steps, as a batch does."""

    def __init__(self):
        self.slope = 1.0

    def loss(self, params, is_halved=False):
        return self.slope * jnp.sum(params) * (0.5 if is_halved else 1.0)


def test_what_a_function_reads_is_not_kept():
    """By the loss of the first two steps a jump would be welcome; by that of the third it is not.

    Booleans among the extra arguments stay booleans.
    """
    trainer, params = Trainer(), jnp.ones(3)
    tx = pdt_optax.pdt(1, pdt_optax.Verify(history=3, start=3, horizons=(2,)))
    state = tx.init(params)
    for step in range(3):
        trainer.slope = -1.0 if step == 2 else 1.0
        given = {"value_fn": trainer.loss, "is_halved": step == 1}
        updates, state = tx.update(-0.1 * jnp.ones(3), state, params, **given)
        params = optax.apply_updates(params, updates)
    assert pdt_optax.metrics(state).predictions == 1
    np.testing.assert_array_equal(updates, -0.1 * jnp.ones(3))


class Unhashable:
    """Programs cannot be kept by such a function."""

    __hash__: Any = None

    def __call__(self, params):
        return jnp.sum(params**2)


@pytest.mark.parametrize("value_fn", [Unhashable(), jax.tree_util.Partial(jnp.sum)])
def test_functions_that_are_no_part_of_a_program(value_fn):
    tx, params = pdt_optax.pdt(1, JUMPS["Solve"]), jnp.ones(3)
    updates, _ = tx.update(-0.1 * params, tx.init(params), params, value_fn=value_fn)
    assert jnp.isfinite(updates).all()
