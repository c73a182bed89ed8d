"""Where a coordinate jumps, the optimizer's momentum becomes zero."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
import numpy as np
import optax
import pytest
from ring import anchor
from suites import quick
from transforms import extrapolating, verifying

import pdt_optax

CURVATURE = {"a": jnp.array([1.0, 2.0, 3.0]), "b": {"c": jnp.array([[4.0], [0.5]])}}
PARAMS = {
    "a": jnp.arange(1.0, 4.0),
    "b": {"c": jnp.full((2, 1), 2.0, jnp.float32)},
    "n": jnp.array(3, jnp.int32),
}
EVERY, JUMP = 2, 8  # Steps of a period, and until the first jump.


def loss(params):
    return (
        sum(
            jnp.sum(c * p**2)
            for c, p in ((CURVATURE["a"], params["a"]), (CURVATURE["b"]["c"], params["b"]["c"]))
        )
        / 2
    )


def gradient(params):
    return jax.grad(loss, allow_int=True)(params) | {"n": jnp.array(0, jnp.int32)}


def left_half(proposal):
    """Of the first leaf the first two jump, of the second, in the next row, the last."""
    assert proposal.move.shape == (2, 128)
    return jnp.zeros(proposal.move.shape, bool).at[0, :2].set(True).at[1, 1].set(True)


def link(**options):
    settings = {"history": 3, "start": 4, "interval": 0, "horizon": 2, "predictor": "linear"}
    return extrapolating(EVERY, **settings | {"criteria": left_half} | options)


def resetting_link(optimizer, **options):
    return pdt_optax.reset_momentum(optimizer, link(**options))


def run(tx, steps):
    params, states = PARAMS, [tx.init(PARAMS)]
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, value_fn=loss))
    for _ in range(steps):
        updates, state = update(gradient(params), states[-1], params)
        params = optax.apply_updates(params, updates)
        states.append(state)
    return params, states


def floats_only(optimizer):
    return optax.masked(optimizer, {"a": True, "b": True, "n": False})


WITH_MOMENTUM = {
    "nesterov": floats_only(optax.sgd(0.05, momentum=0.9, nesterov=True)),
    "adamw in float16": floats_only(optax.adamw(0.05, mu_dtype=jnp.float16)),
    "lion, clipped": floats_only(optax.chain(optax.clip(1.0), optax.lion(0.01))),
    "injected": floats_only(optax.inject_hyperparams(optax.adam)(learning_rate=0.05)),
    "partitioned": optax.partition(
        {
            "one": optax.adam(0.05),
            "two": optax.sgd(0.05, momentum=0.9),
            "none": optax.set_to_zero(),
        },
        {"a": "one", "b": "two", "n": "none"},
    ),
}


def by_path(state):
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def momenta(state):
    """By the names of the parameters."""
    found = {}
    for path, leaf in by_path(state).items():
        for name in ("/mu/", "/trace/"):
            if name in path:
                found[path.partition(name)[2]] = np.asarray(leaf)
    return found


def rest(state):
    return {p: leaf for p, leaf in by_path(state).items() if "/mu/" not in p and "/trace/" not in p}


@pytest.mark.parametrize("name", quick(WITH_MOMENTUM, "nesterov", "injected"))
def test_as_the_chain_but_for_the_momentum_of_what_jumped(name):
    optimizer = WITH_MOMENTUM[name]
    expected, chained = run(optax.chain(optimizer, link()), JUMP)
    actual, resetting = run(resetting_link(optimizer), JUMP)
    chex.assert_trees_all_equal(actual, expected)
    chex.assert_trees_all_equal(resetting[-2], chained[-2])
    chex.assert_trees_all_equal_structs(resetting[-1], chained[-1])
    assert pdt_optax.metrics(resetting[-1]).predictions == 1
    before, after = momenta(chained[-1]), momenta(resetting[-1])
    assert set(after) == {"a", "b/c"}
    np.testing.assert_array_equal(after["a"], before["a"] * [0, 0, 1])
    np.testing.assert_array_equal(after["b/c"], before["b/c"] * [[1], [0]])
    assert all(np.all(leaf != 0) for leaf in before.values())
    chex.assert_trees_all_equal(rest(resetting[-1][0]), rest(chained[-1][0]))


def test_heavy_ball_goes_on_without_what_it_forgot():
    """Against NumPy in float64."""
    optimizer = floats_only(optax.sgd(0.05, momentum=0.9))
    tx = resetting_link(optimizer, predictor="last_increment")
    params, _ = run(tx, JUMP + 1)
    curvature, jumps = np.array([1.0, 2, 3, 4, 0.5]), np.array([1, 1, 0, 0, 1], bool)
    weights, trace = np.array([1.0, 2, 3, 2, 2]), np.zeros(5)
    snapshots = [weights]
    for step in range(1, JUMP + 2):
        trace = 0.9 * trace + curvature * weights
        weights = weights - 0.05 * trace
        if step == JUMP:
            line = snapshots[-1] + 2 * (snapshots[-1] - snapshots[-2])
            weights, trace = np.where(jumps, line, weights), np.where(jumps, 0, trace)
        if step % EVERY == 0:
            snapshots.append(weights)
    ours = np.concatenate([params["a"], params["b"]["c"].ravel()])
    np.testing.assert_allclose(ours, weights, rtol=1e-5)


@pytest.mark.parametrize("kind", ["refused", "verified without gain", "nothing chosen"])
def test_without_a_jump_it_is_the_optimizer_bit_for_bit(kind):
    optimizer = floats_only(optax.adam(0.05))
    verified = {"history": 3, "start": 4, "horizons": (50,), "predictors": ("linear",)}
    jumps = {
        "refused": lambda: link(criteria=lambda proposal: jnp.zeros_like(proposal.move, bool)),
        "verified without gain": lambda: verifying(EVERY, **verified),
        "nothing chosen": lambda: link(start=100),
    }[kind]()
    params, states = run(pdt_optax.reset_momentum(optimizer, jumps), 12)
    expected, alone = run(optax.with_extra_args_support(optimizer), 12)
    chex.assert_trees_all_equal(params, expected)
    chex.assert_trees_all_equal(states[-1][0], alone[-1])


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (0.1, r"`optimizer` must be an optax.GradientTransformation, got 0\.1"),
        (optax.sgd(0.1), "`optimizer` must hold a momentum, .* got PyTreeDef"),
        (optax.flatten(optax.adam(0.1)), r"`optimizer` must keep its momentum in a tree like"),
    ],
)
def test_bad_optimizers(optimizer, message):
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    with pytest.raises(ValueError, match=message):
        pdt_optax.reset_momentum(optimizer, pdt_optax.pdt(1)).init(params)


class OwnState(NamedTuple):
    m: Any


def own_momentum():
    """A link of a chain as users write it."""

    def update(updates, state, params=None):
        del params
        m = jax.tree.map(lambda old, new: 0.9 * old + new, state.m, updates)
        return m, OwnState(m)

    return optax.GradientTransformation(
        lambda params: OwnState(jax.tree.map(jnp.zeros_like, params)), update
    )


def test_a_second_momentum_that_would_be_kept():
    optimizer = optax.chain(own_momentum(), optax.sgd(0.1, momentum=0.9))
    tx = pdt_optax.reset_momentum(optimizer, pdt_optax.pdt(1))
    message = r"`optimizer` must hold nothing like the parameters beside .*\.m\['a'\], which may be"
    with pytest.raises(ValueError, match=message):
        tx.init({"a": jnp.ones(3)})


@pytest.mark.parametrize(
    "other", [optax.identity(), optax.chain(pdt_optax.pdt(1), pdt_optax.pdt(2))]
)
def test_a_link_that_is_not_one_of_pdt(other):
    tx = pdt_optax.reset_momentum(optax.adam(0.1), other)
    with pytest.raises(ValueError, match=r"`link` must hold exactly one PDTState, got [02]"):
        tx.init(jnp.ones(3))
    with pytest.raises(ValueError, match=r"`link` must be an optax\.GradientTransfor.* got None"):
        pdt_optax.reset_momentum(optax.adam(0.1), None)


def test_what_is_known_to_be_no_momentum_is_kept():
    """Second moments, accumulated gradients, and a step's count."""
    for optimizer in (optax.amsgrad(0.1), optax.MultiSteps(optax.adam(0.1), 2)):
        optimizer = optax.GradientTransformation(optimizer.init, optimizer.update)
        pdt_optax.reset_momentum(optimizer, pdt_optax.pdt(1)).init({"a": jnp.ones(3)})


def test_the_state_lies_where_the_parameters_lie():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, jax.P("x"))
    params = {"w": jax.device_put(jnp.ones(2**17), sharding), "b": jnp.ones(16)}
    params["b"] = jax.device_put(params["b"], sharding)
    tx = pdt_optax.reset_momentum(optax.adam(0.1), extrapolating(1, history=3, start=3, interval=0))
    shardings = pdt_optax.state.state_shardings(tx, params)
    state = jax.jit(tx.init, out_shardings=shardings)(params)
    update = jax.jit(tx.update, out_shardings=(None, jax.tree.map(lambda x: x.sharding, state)))
    for _ in range(5):
        _, state = update(params, state, params)
    assert pdt_optax.metrics(state).predictions == 3
    assert state[0][0].mu["w"].sharding == anchor(state[1], params)["w"].sharding == sharding
    assert state[0][0].mu["b"].sharding == sharding
