"""What `metrics` says: counts of jumps, when the next may come, who else moves weights."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from transforms import extrapolating, way_back

import pdt_optax

LINEAR = {
    "history": 3,
    "predictor": "linear",
    "criteria": pdt_optax.criteria.path_sign(),
    "horizon": 2,
}


def curve(params):
    return jnp.sum(jnp.array([1.0, 2.0, 3.0]) * params**2)


def run(tx, steps, **extra):
    """The metrics before the first step and after each."""
    params: Any = jnp.ones(3)
    state = tx.init(params)
    update = jax.jit(functools.partial(tx.update, **extra))
    found = [pdt_optax.metrics(state)]
    for _ in range(steps):
        updates, state = update(jax.grad(curve)(params), state, params)
        params = optax.apply_updates(params, updates)
        found.append(pdt_optax.metrics(state))
    return found


SETTINGS = {
    "interval 0": ({"start": 3, "interval": 0}, 3),
    "interval 2": ({"start": 4, "interval": 2}, 2),
    "every step": ({"start": 3, "interval": 1}, 1),
    "rollback": ({"start": 3, "interval": 0, "scheduler": way_back()}, 3),
    "adaptive": ({"start": 3, "interval": 0, "scheduler": pdt_optax.Adaptive(max_error=1e-9)}, 2),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_counts_are_those_of_the_steps(setting):
    options, every = SETTINGS[setting]
    tx = optax.chain(optax.sgd(0.02), extrapolating(every, **LINEAR | options))
    found = run(tx, 30, value=1.0)
    events = [now for now in range(1, 31) if found[now].predictions > found[now - 1].predictions]
    jumps = [now for now in events if found[now].mask_ratio > 0]
    assert events
    assert bool(jumps) == (setting != "adaptive")
    for now, metrics in enumerate(found):
        assert metrics.jumps == sum(jump <= now for jump in jumps)
        assert metrics.refused == sum(event <= now for event in events) - metrics.jumps
        assert metrics.jumped == (now in jumps)
        assert metrics.foreign_changes == 0
        following = [event for event in events if event > now]
        if following:
            assert now + metrics.steps_until_jump == following[0]


def test_steps_beyond_int32():
    found = run(extrapolating(2**30, start=2**31 - 1, history=3), 1)
    assert [int(metrics.steps_until_jump) for metrics in found] == [2**31 - 1] * 2


def test_scalars_are_floats():
    numbers = run(extrapolating(1, **LINEAR, start=3), 3)[-1].scalars()
    assert all(type(number) is float for number in numbers.values())
    assert numbers["predictions"] == 1.0
    assert {"mask_ratio_per_leaf", "eigenvalues", "bad_jumps"}.isdisjoint(numbers)


@pytest.mark.parametrize(
    ("jump", "has_dmd"),
    [
        (pdt_optax.Extrapolate(), True),
        (pdt_optax.Extrapolate(predictor="linear"), False),
        (pdt_optax.Verify(), False),
        (pdt_optax.Verify(predictors=("linear", "affine_dmd")), True),
        (pdt_optax.Verify(history=pdt_optax.Streaming()), False),
        (pdt_optax.Verify(predictors=("dmd",), history=pdt_optax.Streaming()), True),
        (pdt_optax.Solve(), False),
    ],
)
def test_eigenvalues_are_there_where_a_dmd_is(jump, has_dmd):
    link, params = pdt_optax.pdt(1, dataclasses.replace(jump, start=6)), jnp.array([1.0, 2.0])
    metrics, state = pdt_optax.metrics(link.init(params)), link.init(params)
    assert (metrics.eigenvalues is not None) == has_dmd
    for _ in range(6):
        _, state = link.update(-0.1 * params, state, params, value_fn=jnp.sum)
        params = 0.9 * params
    metrics = pdt_optax.metrics(state)
    assert metrics.predictions > 0
    assert ("spectral_radius" in metrics.scalars()) == has_dmd
    if has_dmd:
        assert metrics.spectral_radius[0] == pytest.approx(0.9, rel=1e-3)


def test_scalars_are_of_one_run():
    tx = pdt_optax.pdt(1)
    states = jax.vmap(tx.init)(jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"`opt_state` must be of one run here, .* shape \(3,\)"):
        pdt_optax.metrics(states).scalars()
    one = jax.tree.map(lambda array: array[0], states)
    assert pdt_optax.metrics(one).scalars()["steps_until_jump"] == 5


def lasting(jump, **extra):
    return str(run(optax.chain(optax.sgd(0.02), pdt_optax.pdt(2, jump)), 8, **extra)[-1])


def test_text():
    first = pdt_optax.Extrapolate(start=4, **LINEAR)
    assert lasting(pdt_optax.Extrapolate(start=9, **LINEAR)) == (
        "no jump yet, the first may come in 10 steps"
    )
    assert lasting(first) == (
        "jumped blind at 1 of 1 predictions, the last moved 100% of the coordinates, "
        "the next may come in 4 steps"
    )
    found = lasting(pdt_optax.Verify(history=3, start=4), value_fn=lambda _: 1.0)
    assert "the last was refused, no landing lowered the loss" in found
    for jump in (pdt_optax.Verify(history=3, start=4), pdt_optax.Solve(history=3)):
        found = lasting(jump, value_fn=lambda _: jnp.nan)
        assert "refused, the loss is not finite where the optimizer arrived" in found
    strict = pdt_optax.Adaptive(max_error=1e-9)
    found = lasting(pdt_optax.Extrapolate(start=4, **LINEAR, scheduler=strict))
    assert "refused, its error was too large" in found
    nowhere = LINEAR | {"criteria": lambda proposal: jnp.zeros_like(proposal.move, bool)}
    found = lasting(pdt_optax.Extrapolate(start=4, **nowhere))
    assert "refused, no coordinate agreed" in found


@pytest.mark.parametrize("jump", [pdt_optax.Extrapolate(start=4), pdt_optax.Verify(start=4)])
def test_text_of_a_weight_that_is_never_finite(jump):
    tx = pdt_optax.pdt(1, jump)
    params = jnp.array([1.0, -jnp.inf])
    state = tx.init(params)
    for _ in range(5):
        updates, state = tx.update(jnp.full(2, 0.1), state, params, value_fn=lambda p: p[0])
        params = optax.apply_updates(params, updates)
    assert "refused, a weight is not finite (`exclude` its leaf)" in str(pdt_optax.metrics(state))


def test_text_of_several_runs_is_the_whole_tuple():
    states = jax.vmap(extrapolating(1).init)(jnp.ones((2, 3)))
    assert str(pdt_optax.metrics(states)).startswith("Metrics(snapshots=")


def test_snapshots_of_several_runs_are_those_of_each():
    update = jax.vmap(extrapolating(1, history=4).update)
    params = jnp.ones((2, 3))
    states = jax.vmap(extrapolating(1, history=4).init)(params)
    for taken in (2, 3, 4, 4):
        _, states = update(params, states, params)
        assert pdt_optax.metrics(states).snapshots.tolist() == [taken] * 2


BETWEEN = extrapolating(5, **LINEAR, start=3)
PLACES = {
    "last": (optax.chain(optax.sgd(0.01), BETWEEN), 0),
    "first": (optax.chain(BETWEEN, optax.sgd(0.01)), 8),
    "before clipping": (optax.chain(optax.sgd(0.01), BETWEEN, optax.clip(1e-3)), 8),
    "of half": (optax.masked(optax.chain(optax.sgd(0.01), BETWEEN), True), 0),
    "mini-steps": (optax.MultiSteps(optax.chain(optax.sgd(0.01), BETWEEN), 2), 0),
    "before scaling": (optax.chain(optax.sgd(0.01), BETWEEN, optax.scale(1.1)), 8),
}


@pytest.mark.parametrize(
    ("place", "dtype"),
    [*((place, "float32") for place in PLACES), ("last", "bfloat16"), ("first", "bfloat16")],
)
def test_foreign_changes(place, dtype):
    """The first step after each of eight snapshots; the steps between are not looked at."""
    tx, expected = PLACES[place]
    params: Any = {"w": jnp.linspace(1, 2, 64, dtype=dtype), "large": jnp.ones(5000, dtype)}
    state, update = tx.init(params), jax.jit(tx.update)
    steps = 82 if place == "mini-steps" else 41
    for _ in range(steps):
        updates, state = update(jax.tree.map(lambda p: 2 * p, params), state, params)
        params = optax.apply_updates(params, updates)
    assert pdt_optax.metrics(state).foreign_changes == expected


def test_one_foreign_change_of_a_single_leaf():
    """However large the others are: in a sum over all it would be less than the rounding."""
    tx, params = extrapolating(1), {"w": jnp.ones(64), "large": jnp.ones(1_000_000)}
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(6):
        zeros = jax.tree.map(jnp.zeros_like, params)
        params["w"] = params["w"].at[3].add(0.1 * (step == 2))
        state = update(zeros, state, params)[1]
    metrics = pdt_optax.metrics(state)
    assert metrics.foreign_changes == 1
    assert "after 1 of the snapshots so far the weights were changed" in str(metrics)


def test_moves_between_two_epochs_are_not_foreign():
    link, params = extrapolating(1, **LINEAR, start=3), jnp.ones(3)
    history = link.init(params)
    end_epoch = jax.jit(functools.partial(pdt_optax.end_period, link))
    for _ in range(4):
        params, history = end_epoch(0.9 * params, history)
    assert pdt_optax.metrics(history).foreign_changes == 0
    assert pdt_optax.metrics(history).jumps == 1


def test_without_pdt():
    with pytest.raises(ValueError, match=r"got 0\. There is no pdt_optax\.pdt in this optimizer"):
        pdt_optax.metrics(optax.sgd(0.1).init(jnp.ones(2)))


def test_residuals_that_nothing_takes():
    params = jnp.ones(2)
    for jump in (pdt_optax.Extrapolate(), pdt_optax.Verify()):
        tx = pdt_optax.pdt(1, jump)
        given = {"value_fn": jnp.sum, "residual_fn": lambda params: params, "value": 1.0}
        update = functools.partial(tx.update, **given)
        with pytest.warns(UserWarning, match=f"`residual_fn` is ignored.*{type(jump).__name__}"):
            jax.eval_shape(update, params, tx.init(params), params)
