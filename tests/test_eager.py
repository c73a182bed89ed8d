"""An update outside of `jit`: compiled once, and the same numbers."""

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


def counted(traces):
    def loss(params):
        traces.append(1)
        return jnp.sum(jnp.array([1.0, 2.0, 3.0]) * params**2)

    return loss


@pytest.mark.parametrize("name", quick(JUMPS, "Solve"))
def test_compiled_once(name):
    traces, runs = [], []
    loss = counted(traces)
    gradient = jax.jit(jax.grad(counted([])))
    tx = pdt_optax.pdt(1, JUMPS[name])
    for update in (tx.update, jax.jit(tx.update, static_argnames="value_fn")):
        params: Any = jnp.ones(3)
        state, counts = tx.init(params), []
        for _ in range(5):
            updates, state = update(
                -0.1 * gradient(params), state, params, value_fn=loss, value=2.0
            )
            params = optax.apply_updates(params, updates)
            counts.append(len(traces))
        assert len(set(counts)) == 1
        runs.append((params, pdt_optax.metrics(state).predictions))
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-5)
    assert runs[0][1] == runs[1][1] > 0


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
