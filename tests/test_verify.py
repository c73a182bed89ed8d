"""Verified horizons: never worse on the scored loss, and the best of the candidates."""

import functools
import itertools
from typing import Any

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from suites import quick
from transforms import ACCEPT_ALL, verifying

import pdt_optax

INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(64, 12)), jnp.float32)
TARGETS = jnp.tanh(INPUTS @ np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32))
SGD = optax.sgd(0.05)


def initial_params():
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "hidden": jax.random.normal(keys[0], (12, 16)) / 3,
        "out": jax.random.normal(keys[1], (16, 3)) / 4,
    }


def loss(params, rows=slice(None)):
    outputs = jnp.tanh(INPUTS[rows] @ params["hidden"]) @ params["out"]
    return jnp.mean((outputs - TARGETS[rows]) ** 2)


def batch(step):
    return np.random.default_rng(step).permutation(64)[:32]


def train(tx, steps, value_fn=loss, **extra):
    """Returns the parameters, the states, and the loss after each step with and without jumps.

    What `value_fn` takes of `extra` is no part of the compiled program.
    """
    params = initial_params()
    state = tx.init(params)

    gradient, score = jax.jit(jax.grad(loss)), jax.jit(loss)
    update = jax.jit(lambda g, s, p, extra: tx.update(g, s, p, value_fn=value_fn, **extra))
    update_alone = jax.jit(SGD.update)
    states, losses = [], []
    for step in range(steps):
        grads = gradient(params, batch(step))
        alone = optax.apply_updates(params, update_alone(grads, SGD.init(params))[0])
        updates, state = update(grads, state, params, extra)
        params = optax.apply_updates(params, updates)
        losses.append((score(params), score(alone)))
        states.append(state)
    return params, states, np.array(losses)


def train_plain(steps):
    params, _, losses = train(optax.with_extra_args_support(SGD), steps)
    return params, losses[:, 0]


def verified(every=4, **options):
    return optax.chain(SGD, verifying(every, **options))


def test_scored_loss_is_never_above_the_optimizers_own():
    _, states, losses = train(verified(), 120)
    assert (losses[:, 0] <= losses[:, 1]).all()
    jumps = [int(state[-1].report.jump_candidate) for state in states[3::4]]
    assert sum(jump >= 0 for jump in jumps) > 5
    gained = losses[3::4, 0] < losses[3::4, 1] - 1e-6
    assert list(gained[4:]) == [jump >= 0 for jump in jumps[4:]]


def test_faster_than_the_optimizer():
    _, _, losses = train(verified(), 120)
    assert losses[-1, 0] < 0.6 * train_plain(120)[1][-1]


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf, 1.0])
def test_a_useless_value_fn_lets_no_jump_in(bad):
    useless = {"value_fn": lambda params, bad: bad, "bad": jnp.float32(bad)}
    params, states, _ = train(verified(), 60, **useless)
    expected, _ = train_plain(60)
    chex.assert_trees_all_equal(params, expected)
    assert pdt_optax.metrics(states[-1]).jump_candidate == (-1 if np.isfinite(bad) else -2)


def test_a_gain_that_float32_cannot_hold_is_seen_in_float64():
    slopes = jnp.linspace(0.1, 1, 12)
    with jax.enable_x64():
        found = []
        for offset in (0.0, 1.0):

            def value(params, offset=offset):
                return offset + 1e-6 * jnp.sum((slopes * (params - 1)) ** 2)

            tx = optax.chain(optax.sgd(1e4), verifying(2))
            params = jnp.full(12, 0.9, "float64")
            state = tx.init(params)
            step = jax.jit(functools.partial(tx.update, value_fn=value))
            for _ in range(30):
                updates, state = step(jax.grad(value)(params), state, params)
                params = optax.apply_updates(params, updates)
            found.append(int(pdt_optax.metrics(state).jumps))
    assert found[0] == found[1] > 5


def test_a_horizon_that_overflows_leaves_the_nearer_ones_alone():
    """Eigenvalues 2 and 0.9: 140 snapshots ahead float32 ends."""

    def taken(horizons):
        tx = verifying(1, horizons=horizons, predictors=("dmd",))
        params: Any = jnp.array([1.0, 1.0])
        state = tx.init(params)
        update = jax.jit(functools.partial(tx.update, value_fn=lambda p: -jnp.abs(p).sum()))
        for _ in range(5):
            updates, state = update(params * jnp.array([1.0, -0.1]), state, params)
            params = optax.apply_updates(params, updates)
        return pdt_optax.metrics(state)

    near, far = taken((2, 5)), taken((2, 5, 140))
    assert near.jump_candidate == far.jump_candidate == 1
    assert near.mask_ratio == far.mask_ratio > 0


def test_a_candidate_whose_loss_is_not_finite_is_passed_over():
    """Only the shortest jump stays inside the domain of the loss."""
    params, states, _ = train(
        verified(horizons=(1, 1000), predictors=("linear",)),
        60,
        value_fn=lambda params: jnp.where(loss(params) < 2, loss(params), -jnp.inf),
    )
    chex.assert_tree_all_finite(params)
    assert all(int(state[-1].report.jump_candidate) in (-1, 0) for state in states)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_garbage_predictions_end_as_the_optimizer_alone(scale):
    def garbage(gram, horizon):
        shape = (horizon, gram.matrix.shape[-1])
        return scale * jax.random.normal(jax.random.key(3), shape, gram.matrix.dtype)

    params, states, _ = train(verified(predictors=(garbage,), criteria=ACCEPT_ALL), 80)
    expected, _ = train_plain(80)
    chex.assert_trees_all_equal(params, expected)
    assert pdt_optax.metrics(states[-1]).value_calls == 16 * 2


@pytest.mark.parametrize("gain_share", [0.5, 1.0])
def test_picks_the_candidate_that_the_oracle_picks(gain_share):
    """Every candidate is rebuilt in float64 from the snapshots and scored."""
    horizons, predictors = (2, 5, 20), ("dmd", "linear")
    tx = verified(horizons=horizons, predictors=predictors, gain_share=gain_share)
    params = initial_params()
    state = tx.init(params)
    snapshots, taken, calls = [params], [], 0
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, value_fn=loss))
    for step in range(1, 61):
        grads = jax.grad(loss)(params, batch(step))
        before = params
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        if step % 4:
            continue
        if len(snapshots) >= 5:
            own = optax.apply_updates(before, SGD.update(grads, SGD.init(before))[0])
            losses = candidate_losses(snapshots[-5:], own, horizons, predictors)
            best, scored = furthest_good(losses, horizons, gain_share)
            calls += 1 + scored
            taken.append((int(state[-1].report.jump_candidate), best))
        snapshots.append(params)
    assert len(taken) == 11
    assert taken == [(best, best) for _, best in taken]
    assert len({best for best, _ in taken}) > 1
    assert pdt_optax.metrics(state).value_calls == calls < 11 * 7


def candidate_losses(snapshots, own, horizons, predictors):
    """At the landings, the optimizer's own first."""
    flat, restore = zip(*map(jax.flatten_util.ravel_pytree, snapshots), strict=True)
    history = np.array(flat, np.float64)
    target = np.asarray(jax.flatten_util.ravel_pytree(own)[0], np.float64)
    move = target - history[-1]
    landings = [target]
    for predictor, horizon in itertools.product(predictors, horizons):
        path = oracle.predicted_path(predictor, history.T, horizon)
        times = horizon * np.arange(1, 6) / 5
        steps = np.vstack([np.zeros_like(move), path])
        points = np.array([np.interp(times, np.arange(horizon + 1), c) for c in steps.T]).T
        signs = np.sign(np.diff(np.vstack([np.zeros_like(move), points]), axis=0))
        mask = (signs == np.sign(move)).all(axis=0) & (move != 0)
        landings.append(np.where(mask, history[-1] + path[-1], target))

    return [float(loss(restore[-1](jnp.asarray(at, jnp.float32)))) for at in landings]


def furthest_good(losses, horizons, gain_share):
    """Which is taken, and how many are scored: each predictor up to the first that is not good."""
    own, *losses = losses
    gains = {}
    for first in range(0, len(losses), len(horizons)):
        for i in range(first, first + len(horizons)):
            gains[i] = own - losses[i]
            if not (gains[i] > 0 and gains[i] >= gain_share * max(gains.values())):
                break
    best = max(gains.values())
    good = [i for i, gain in gains.items() if gain > 0 and gain >= gain_share * best]
    taken = max(good, key=lambda i: (horizons[i % len(horizons)], gains[i])) if good else -1
    return taken, len(gains)


def jump_once(horizons, gain_share, losses):
    """Steps of one lead to 3; jumps of 2, 3 and 5 from 2 lead to 4, 5 and 7."""
    verify = pdt_optax.Verify(horizons, ("linear",), ACCEPT_ALL, gain_share, history=3, start=3)
    tx = pdt_optax.pdt(1, verify)

    def value_fn(x, losses):
        nearest = jnp.abs(x - jnp.array([3.0, 4.0, 5.0, 7.0])).argmin()
        return losses[nearest]

    params, losses = jnp.array(0.0), jnp.array(losses)
    state = tx.init(params)
    update = jax.jit(functools.partial(tx.update, value_fn=value_fn))
    for _ in range(3):
        updates, state = update(jnp.array(1.0), state, params, losses=losses)
        params = optax.apply_updates(params, updates)
    return params, pdt_optax.metrics(state).value_calls


@pytest.mark.parametrize(("gain_share", "place"), [(1.0, 4.0), (0.8, 5.0), (0.5, 5.0), (0.1, 7.0)])
def test_furthest_of_the_good_candidates(gain_share, place):
    params, _ = jump_once((2, 3, 5), gain_share, [2.0, 0.0, 0.3, 1.7])
    np.testing.assert_allclose(params, place, rtol=1e-6)


@pytest.mark.parametrize(
    ("losses", "place", "calls"),
    [
        ([2.0, 3.0, 0.0, 0.0], 3.0, 2),
        ([2.0, 1.0, 1.9, 0.0], 4.0, 3),
        ([2.0, 1.0, jnp.nan, 0.0], 4.0, 3),
        ([2.0, 1.0, 0.0, 0.0], 7.0, 4),
    ],
)
def test_beyond_a_horizon_that_is_not_good_none_is_scored(losses, place, calls):
    params, value_calls = jump_once((5, 2, 3), 0.5, losses)
    np.testing.assert_allclose(params, place, rtol=1e-6)
    assert value_calls == calls


@pytest.mark.parametrize(
    ("every", "start", "first"),
    [(1, None, 5), (2, None, 100), (7, None, 105), (20, None, 100), (50, None, 250), (2, 6, 12)],
)
def test_the_first_jump_is_not_before_step_100(every, start, first):
    """Unless it is asked for, or a period of one step may be an epoch."""
    state: Any = verifying(every, start=start).init(jnp.ones(3))
    assert state.steps_until_jump == first


@pytest.mark.parametrize("width", quick([300, 4000], 4000))
def test_memory_does_not_grow_with_the_candidates(width):
    """Of small leaves, and of one that lies by itself."""

    def temporaries(horizons):
        tx = verified(horizons=horizons)
        params = {"hidden": jnp.ones((12, width)), "out": jnp.ones((width, 3))}
        update = jax.jit(lambda g, s, p: tx.update(g, s, p, value_fn=loss))
        compiled = update.lower(params, tx.init(params), params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries((2, 3, 5, 7, 10, 20)) < 1.05 * temporaries((2, 20))


@pytest.mark.parametrize(
    ("horizons", "calls", "jump"), [((2, 5, 20), 4, 20), ((2, 2, 5), 3, 5), ((5, 2), 3, 5)]
)
def test_equal_horizons_are_scored_once(horizons, calls, jump):
    """The loss falls for ever; moves of 0.5 from 1."""
    tx = verifying(1, horizons=horizons, predictors=("linear",), history=3, start=3)
    params = jnp.ones(4)
    state = tx.init(params)
    update = jax.jit(functools.partial(tx.update, value_fn=lambda params: -jnp.sum(params)))
    for _ in range(3):
        updates, state = update(jnp.full(4, 0.5), state, params)
        params = optax.apply_updates(params, updates)
    assert pdt_optax.metrics(state).value_calls == calls
    np.testing.assert_allclose(params, np.full(4, 2.0 + 0.5 * jump), rtol=1e-6)


@pytest.mark.parametrize(("interval", "periods"), [(0, [5, 6, 7, 8, 9, 10]), (2, [5, 8])])
def test_interval(interval, periods):
    tx = verifying(1, interval=interval, predictors=("dmd", "linear"))
    params = jnp.ones(3)
    state = tx.init(params)
    update = jax.jit(functools.partial(tx.update, value_fn=lambda _: 1.0))
    made = []
    for step in range(10):
        updates, state = update(jnp.full(3, 0.1 * 0.9**step), state, params)
        params = optax.apply_updates(params, updates)
        made.append(int(pdt_optax.metrics(state).predictions))
    assert list(np.flatnonzero(np.diff([0, *made])) + 1) == periods
    assert pdt_optax.metrics(state).value_calls == 3 * len(periods)


def test_an_event_between_two_epochs_is_that_of_the_step():
    def train_between(steps):
        link = verifying(1)
        params = initial_params()
        state, history = SGD.init(params), link.init(params)

        @jax.jit
        def end_epoch(params, history):
            return pdt_optax.end_period(link, params, history, value_fn=loss)

        gradient, update = jax.jit(jax.grad(loss)), jax.jit(SGD.update)
        for step in range(steps):
            updates, state = update(gradient(params, batch(step)), state, params)
            params = optax.apply_updates(params, updates)
            if step % 4 == 3:
                params, history = end_epoch(params, history)
        return params, pdt_optax.metrics(history)

    expected, states, _ = train(verified(), 40)
    params, metrics = train_between(40)
    there = pdt_optax.metrics(states[-1])
    chex.assert_trees_all_close(params, expected, rtol=1e-3, atol=1e-5)
    assert metrics.predictions == there.predictions == 6
    assert metrics.value_calls == there.value_calls
    assert metrics.jump_candidate == there.jump_candidate


def test_nnx_optimizer():
    model = nnx.Linear(12, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, verified(every=1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        def loss_fn(model):
            return jnp.mean((model(INPUTS) - TARGETS) ** 2)

        graph, _, rest = nnx.split(model, nnx.Param, ...)
        value, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(
            model, grads, value_fn=lambda params: loss_fn(nnx.merge(graph, params, rest))
        )
        return value

    losses = [float(step(model, optimizer)) for _ in range(20)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(losses))


def test_nnx_with_batch_norm_and_dropout():
    """Scoring leaves statistics and random keys as they are."""

    class Model(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.norm = nnx.BatchNorm(12, momentum=0.9, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)
            self.linear = nnx.Linear(12, 3, rngs=rngs)

        def __call__(self, x):
            return self.linear(self.dropout(self.norm(x)))

    def loss_fn(model):
        return jnp.mean((model(INPUTS) - TARGETS) ** 2)

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(loss_fn)(model)
        graph, _, rest = nnx.split(model, nnx.Param, ...)

        def value_fn(params):
            scored = nnx.merge(graph, params, rest, copy=True)
            scored.set_attributes(nnx.Dropout, deterministic=True)
            return loss_fn(scored)

        optimizer.update(model, grads, value_fn=value_fn)

    model = Model()
    optimizer = nnx.Optimizer(model, verified(every=1), wrt=nnx.Param)
    for _ in range(8):
        step(model, optimizer)
    assert pdt_optax.metrics(optimizer.opt_state).mask_ratio > 0
    mean = (1 - 0.9**8) * np.mean(INPUTS, axis=0)
    np.testing.assert_allclose(model.norm.mean[...], mean, rtol=1e-5, atol=1e-6)
    assert model.dropout.rngs.count[...] == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizons": ()}, r"`horizons` must be one or more ints of at least 1, got \(\)"),
        ({"horizons": (2, 0)}, r"`horizons` must be one or more ints .* got \(2, 0\)"),
        ({"horizons": 5}, "`horizons` must be a tuple, got 5"),
        ({"predictors": "dmd"}, "`predictors` must be a tuple, got 'dmd'"),
        ({"gain_share": "a"}, r"`gain_share` must be in \(0, 1\], got 'a'"),
        ({"predictors": ()}, "`predictors` must be one or more predictors"),
        ({"predictors": ("dmdd",)}, "`predictor` must be one of .* got 'dmdd'"),
        ({"criteria": "x"}, "`criteria` must be .* got 'x'"),
        ({"gain_share": 0.0}, r"`gain_share` must be in \(0, 1\], got 0.0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        pdt_optax.Verify(**options)


def test_missing_value_fn():
    tx = verified()
    params = initial_params()
    with pytest.raises(ValueError, match="`value_fn` must be passed to `update`"):
        tx.update(params, tx.init(params), params)
