"""The recipes of docs/recipes.md for optimistix and jinns, which write the loop themselves."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest
import recipes

import pdt_optax

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import jinns


def rosenbrock(y, args):
    """The residuals in four variables; their least is at ones."""
    return {"narrow": 10 * (y["w"][1:] - y["w"][:-1] ** 2), "wide": args - y["w"][:-1]}


def value(y, args):
    return sum(jnp.sum(r**2) for r in rosenbrock(y, args).values()) / 2


START = {"w": jnp.array([-1.2, 1.0, -0.5, 0.8])}
FUNCTIONS = {"rosenbrock": (value, START, 1.0)}
EVERY_JUMP = recipes.in_short("solve")


def link(jump, every=10):
    return optax.chain(optax.adam(0.05), pdt_optax.pdt(every, recipes.JUMPS[jump]))


def given(tx, **others):
    return {"optimistix": optimistix, "optax": optax, "pdt_optax": pdt_optax, "tx": tx} | others


@EVERY_JUMP
def test_optimistix_minimises_as_a_loop_by_hand(jump):
    names = given(link(jump), fn=value, start=START, args=jnp.array(1.0))
    names = recipes.run("Minimisation", **names)
    solution, metrics = names["solution"], names["metrics"]
    steps = int(solution.stats["num_steps"])
    leaves, state = recipes.by_hand(
        link(jump), lambda leaves: value({"w": leaves[0]}, 1.0), [START["w"]], steps, is_blind=False
    )
    assert metrics.predictions == pdt_optax.metrics(state).predictions > 0
    np.testing.assert_allclose(solution.value["w"], leaves[0], atol=1e-2)
    np.testing.assert_allclose(solution.value["w"], 1.0, atol=1e-2)
