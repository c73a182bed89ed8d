"""The recipes of docs/recipes.md for equinox and diffrax, and what all recipes have in common."""

import pathlib
import re
from typing import Any

import chex
import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recipes

import pdt_optax

STEPS = 10
INPUTS = jnp.linspace(-1, 1, 16)[:, None]
TARGETS = jnp.sin(3 * INPUTS)


def link(jump: str, every: int = 2) -> optax.GradientTransformationExtraArgs:
    return optax.chain(optax.adam(0.02), pdt_optax.pdt(every, recipes.JUMPS[jump]))


@pytest.mark.parametrize("heading", recipes.BLOCKS)
def test_at_most_ten_lines_and_run_by_a_test(heading):
    lines = [line for line in recipes.BLOCKS[heading].splitlines() if line]
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 100
    tests = pathlib.Path(__file__).parent.glob("test_*.py")
    assert any(f'"{heading}"' in path.read_text() for path in tests)


def test_every_block_of_the_page_is_a_recipe():
    assert len(re.findall(r"^```python$", recipes.PAGE.read_text(), re.M)) == len(recipes.BLOCKS)


class Model(eqx.Module):
    """Two layers with what is no floating-point array: None, a function, a string, integers."""

    layers: list[Any]
    order: jax.Array
    activation: Any
    name: str

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.layers = [
            eqx.nn.Linear(1, 8, key=first),
            eqx.nn.Linear(8, 1, use_bias=False, key=second),
        ]
        self.order = jnp.arange(8)[::-1]
        self.activation, self.name = jnp.tanh, "model"

    def __call__(self, x):
        hidden = self.activation(self.layers[0](x))[self.order]
        return self.layers[1](hidden)


def loss(model, batch):
    inputs, targets = batch
    return jnp.mean((jax.vmap(model)(inputs) - targets) ** 2)


def loss_of_leaves(leaves):
    """The loss of `Model`, written out."""
    weight, bias, out = leaves
    hidden = jnp.tanh(INPUTS @ weight.T + bias[None])[:, ::-1]
    return jnp.mean((hidden @ out.T - TARGETS) ** 2)


def leaves_of(model):
    first, second = model.layers
    return [first.weight, first.bias, second.weight]


@recipes.in_short("verify")
def test_equinox_as_a_loop_by_hand(jump):
    """The same weights as those of the list of arrays; what is no parameter stays."""
    model, tx, batch = Model(jax.random.key(0)), link(jump), (INPUTS, TARGETS)
    expected, by_hand = recipes.by_hand(
        tx, loss_of_leaves, leaves_of(model), STEPS, is_blind=jump == "extrapolate"
    )
    names = recipes.run(
        "Models with leaves that are not arrays",
        recipes.passed(jump),
        **globals() | {"model": model, "tx": tx},
    )
    params, state = jax.tree.map(jnp.copy, (names["params"], names["state"]))
    for _ in range(STEPS):
        params, state = names["step"](batch, params, state)
    chex.assert_trees_all_close(leaves_of(params), expected, atol=recipes.CLOSE[jump])
    assert pdt_optax.metrics(state).predictions == pdt_optax.metrics(by_hand).predictions > 0
    trained = eqx.combine(params, names["static"])
    assert jax.tree.structure(trained) == jax.tree.structure(model)
    assert params.order is None
    assert (trained.order == model.order).all()


@recipes.in_short("extrapolate")
def test_equinox_donates_everything(jump):
    """With `donate='all'` the model and the state are gone after the step, and nothing else is."""
    tx = link(jump)

    @eqx.filter_jit(donate="all")
    def step(model, state):
        params, static = eqx.partition(model, eqx.is_inexact_array)

        def value_fn(params):
            return loss(eqx.combine(params, static), (INPUTS, TARGETS))

        extra = {} if jump == "extrapolate" else {"value_fn": value_fn}
        updates, state = tx.update(jax.grad(value_fn)(params), state, params, **extra)
        return eqx.apply_updates(model, updates), state

    model = Model(jax.random.key(0))
    state = tx.init(jax.tree.map(jnp.copy, eqx.filter(model, eqx.is_inexact_array)))
    before = loss(model, (INPUTS, TARGETS))
    for _ in range(STEPS):
        old_model, old_state = model, state
        model, state = step(model, state)
        history = [*jax.tree.leaves(old_state[-1].history.anchor), old_state[-1].history.rows]
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((leaves_of(old_model), history)))
    assert pdt_optax.metrics(state).predictions > 0
    assert loss(model, (INPUTS, TARGETS)) < before


@recipes.in_short("solve")
def test_members_of_an_ensemble_as_alone(jump):
    keys, tx = jax.random.split(jax.random.key(1), 3), link(jump)
    names = recipes.run(
        "Ensembles",
        recipes.passed(jump),
        **globals() | {"make_model": Model, "keys": keys, "tx": tx, "batch": (INPUTS, TARGETS)},
    )
    params, states, static = names["params"], names["states"], names["static"]
    for _ in range(STEPS):
        params, states = names["step"](static, params, states)
    assert pdt_optax.metrics(states).predictions.shape == (3,)
    assert (pdt_optax.metrics(states).predictions > 0).all()
    for member, key in enumerate(keys):
        expected, _ = recipes.by_hand(
            tx, loss_of_leaves, leaves_of(Model(key)), STEPS, is_blind=jump == "extrapolate"
        )
        found = [leaf[member] for leaf in leaves_of(params)]
        chex.assert_trees_all_close(found, expected, atol=recipes.CLOSE[jump])


@recipes.in_short("solve")
def test_accumulated_gradients_as_those_of_whole_steps(jump):
    given = {"optax": optax, "pdt_optax": pdt_optax, "jump": recipes.JUMPS[jump]}
    given |= {"optimizer": optax.adam(0.02), "mini_steps": 3, "snapshot_every": 2}
    tx, leaves = recipes.run("`MultiSteps`", **given)["tx"], leaves_of(Model(jax.random.key(0)))
    is_blind = jump == "extrapolate"
    found, _ = recipes.by_hand(tx, loss_of_leaves, leaves, 3 * STEPS, is_blind)
    expected, state = recipes.by_hand(link(jump), loss_of_leaves, leaves, STEPS, is_blind)
    chex.assert_trees_all_close(found, expected, atol=recipes.CLOSE[jump])
    assert pdt_optax.metrics(state).predictions > 0


class Field(eqx.Module):
    """dy/dt = A y, with the matrix as parameters."""

    matrix: jax.Array

    def __call__(self, y):
        return self.matrix @ y


@recipes.in_short()
def test_neural_ode_finds_the_matrix(jump):
    """Observed is a rotation, whose solution is known; solved jumps find it, Adam is on its way."""
    times = jnp.linspace(0.0, 2.0, 21)
    observed = jnp.stack([jnp.cos(times), -jnp.sin(times)], axis=1)
    params, static = eqx.partition(Field(jnp.array([[0.0, 0.5], [-0.5, 0.0]])), eqx.is_array)
    given = {"static": static, "times": times, "observed": observed, "start": observed[0]}
    residual_fn = recipes.run("Neural ODEs of diffrax", **globals() | given)["residual_fn"]

    def value_fn(params):
        return jnp.sum(residual_fn(params) ** 2)

    extra = {"verify": {"value_fn": value_fn}, "solve": {"residual_fn": residual_fn}}
    exact = Field(jnp.array([[0.0, 1.0], [-1.0, 0.0]]))
    np.testing.assert_allclose(residual_fn(exact), 0, atol=1e-5)

    def trained(tx, **extra):
        @jax.jit
        def step(params, state):
            updates, state = tx.update(jax.grad(value_fn)(params), state, params, **extra)
            return optax.apply_updates(params, updates), state

        own, state = params, tx.init(params)
        for _ in range(40):
            own, state = step(own, state)
        return own, state

    found, state = trained(link(jump, every=4), **extra.get(jump, {}))
    assert pdt_optax.metrics(state).predictions > 0
    assert value_fn(found) < value_fn(params) / 2
    if jump == "solve":
        np.testing.assert_allclose(found.matrix, exact.matrix, atol=2e-3)
        assert jnp.abs(trained(optax.adam(0.02))[0].matrix - exact.matrix).max() > 0.05


@pytest.mark.slow
def test_diffrax_default_adjoint_is_enough_without_solve():
    """What the recipe says of it: forward mode, which Solve needs, is refused by diffrax."""
    code = recipes.BLOCKS["Neural ODEs of diffrax"]
    assert "diffrax.DirectAdjoint()" in code
    times = jnp.linspace(0.0, 1.0, 5)
    names = {"static": Field(None), "times": times, "observed": jnp.zeros((5, 2))}
    names |= {"eqx": eqx, "diffrax": diffrax, "start": jnp.ones(2)}
    exec(code.replace("DirectAdjoint", "RecursiveCheckpointAdjoint"), names)
    params, residual_fn = Field(jnp.eye(2)), names["residual_fn"]
    assert jnp.isfinite(jax.grad(lambda p: jnp.sum(residual_fn(p) ** 2))(params).matrix).all()
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(residual_fn, (params,), (params,))
