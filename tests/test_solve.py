"""Solved jumps against least squares in NumPy, and what they must never do."""

import functools
import math
from typing import Any

import chex
import jax
from jax.experimental import checkify
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import pytest
from suites import AS_FOR_USERS, quick

import pdt_optax
from pdt_optax import _layout, _span

EVERY, HISTORY = 2, 3
DAMPING = 2.0**-10
RNG = np.random.default_rng(0)
MATRIX, TARGETS = RNG.normal(size=(12, 7)), RNG.normal(size=12)
START = RNG.normal(size=7)
SCOPES = {"global": np.zeros(7, int), "leaf": np.repeat([0, 1], [3, 4])}


def tree(flat):
    return {"a": flat[:3], "b": flat[3:].reshape(2, 2)}


def flat(params):
    return jnp.concatenate([params["a"], params["b"].ravel()])


def residuals(params):
    """As a tree, of which the leaves differ in shape."""
    found = jnp.tanh(jnp.asarray(MATRIX) @ flat(params)) - jnp.asarray(TARGETS)
    return {"inner": found[:8].reshape(4, 2), "edge": found[8:]}


def loss(params):
    return sum(jnp.sum(r**2) for r in jax.tree.leaves(residuals(params)))


def make(every=EVERY, jump=None, optimizer=None, **options):
    jump = jump or pdt_optax.Solve(history=HISTORY, damping=DAMPING)
    return optax.chain(optimizer or optax.sgd(0.01), pdt_optax.pdt(every, jump, **options))


def train(tx, steps, start=START, **extra):
    """Parameters after each step, and the states."""
    extra = extra or {"residual_fn": residuals}

    @functools.partial(jax.jit, compiler_options=AS_FOR_USERS)
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params, **extra)
            params = optax.apply_updates(params, updates)
            return (params, state), (params, state[-1].report)

        return jax.lax.scan(step, (params, tx.init(params)), length=steps)[1]

    params, reports = run(tree(jnp.asarray(start)))
    flat_params = np.concatenate([params["a"], params["b"].reshape(steps, -1)], axis=1)
    return np.asarray(flat_params), jax.device_get(reports)


class Oracle:
    """The same run in NumPy, float64, written from the equations."""

    def __init__(self, groups, value=False, radius=1.0, most_moves=64):
        self.weights, self.groups, self.value = START.copy(), groups, value
        self.radius, self.most_moves, self.shortened = radius, most_moves, 0
        self.snapshots, self.damping, self.trust = [START.copy()], DAMPING, 1

    def residuals(self, weights):
        return np.tanh(MATRIX @ weights) - TARGETS

    def jacobian(self, weights):
        return (1 - np.tanh(MATRIX @ weights) ** 2)[:, None] * MATRIX

    def gradient(self, weights):
        return 2 * self.jacobian(weights).T @ self.residuals(weights)

    def hessian(self, weights):
        slope = 1 - np.tanh(MATRIX @ weights) ** 2
        second = -2 * np.tanh(MATRIX @ weights) * slope * self.residuals(weights)
        return 2 * (self.jacobian(weights).T @ self.jacobian(weights)) + 2 * (
            MATRIX.T @ (second[:, None] * MATRIX)
        )

    def step(self):
        for _ in range(EVERY):
            self.weights = self.weights - 0.01 * self.gradient(self.weights)
        span = np.diff([*self.snapshots[-HISTORY:], self.weights], axis=0).T
        member = self.groups[:, None] == np.unique(self.groups)[None]
        basis = (span[:, None] * member[:, :, None]).reshape(len(span), -1)
        step = (self.newton if self.value else self.least_squares)(basis)
        most = self.trust * self.radius * np.linalg.norm(span) / np.sqrt(span.shape[1])
        if most < math.inf:
            most = min(most, self.most_moves * np.linalg.norm(span[:, -1]))
        is_short = np.linalg.norm(basis @ step) > most
        self.shortened += is_short
        step *= min(1, most / np.linalg.norm(basis @ step))
        expected = self.expected(basis, step)
        landing = self.weights + basis @ step
        gain = self.loss(self.weights) - self.loss(landing)
        ratio = gain / expected if gain > 0 else 0.0
        self.damping *= 1 / 3 if ratio > 0.75 else 1 if ratio >= 0.25 else 4
        self.trust *= 2 if ratio > 0.75 and is_short else 1 if ratio >= 0.25 else 1 / 4
        self.trust = min(max(self.trust, 1), 1024)
        self.weights = landing if gain > 0 else self.weights
        self.snapshots.append(self.weights)
        return self.weights

    def loss(self, weights):
        return np.sum(self.residuals(weights) ** 2)

    def least_squares(self, basis):
        jacobian, residuals = self.jacobian(self.weights) @ basis, self.residuals(self.weights)
        scale = np.sqrt((jacobian**2).sum(axis=0))
        rows = np.concatenate([jacobian, np.sqrt(self.damping) * np.diag(scale)])
        right = np.concatenate([-residuals, np.zeros(len(scale))])
        return np.linalg.lstsq(rows, right, rcond=None)[0]

    def expected(self, basis, step):
        residuals, move = self.residuals(self.weights), basis @ step
        if self.value:
            curved = move @ self.hessian(self.weights) @ move
            return -move @ self.gradient(self.weights) - curved / 2
        return np.sum(residuals**2) - np.sum((residuals + self.jacobian(self.weights) @ move) ** 2)

    def newton(self, basis):
        gradient = basis.T @ self.gradient(self.weights)
        hessian = basis.T @ self.hessian(self.weights) @ basis
        scale = 1 / np.sqrt(np.abs(np.diag(hessian)))
        values, vectors = np.linalg.eig(hessian * scale * scale[:, None])
        inverse = vectors @ np.diag(1 / (np.abs(values) + self.damping)) @ np.linalg.inv(vectors)
        return -scale * (inverse @ (scale * gradient))


@pytest.mark.parametrize("limits", quick([(math.inf, 64), (0.5, 64), (1.0, 1.5)], (0.5, 64)))
@pytest.mark.parametrize("largest_small", [2**12, 3])
@pytest.mark.parametrize("scope", SCOPES)
def test_an_event_is_damped_least_squares(monkeypatch, scope, largest_small, limits):
    """Of leaves that lie end to end, and the larger one by itself."""
    radius, most_moves = limits
    monkeypatch.setattr(_layout, "LARGEST_SMALL", largest_small)
    monkeypatch.setattr(_span, "_MOST_MOVES", most_moves)
    jump = pdt_optax.Solve(history=HISTORY, damping=DAMPING, radius=radius)
    with jax.enable_x64():
        found, reports = train(make(jump=jump, scope=scope), 12)
    oracle = Oracle(SCOPES[scope], radius=radius, most_moves=most_moves)
    for event in range(1, 7):
        np.testing.assert_allclose(found[EVERY * event - 1], oracle.step(), rtol=0, atol=1e-8)
        assert reports.trust.damping[EVERY * event - 1] == pytest.approx(oracle.damping, rel=1e-6)
        assert reports.trust.radius[EVERY * event - 1] == oracle.trust
        oracle.damping = float(reports.trust.damping[EVERY * event - 1])  # Which is float32.
    assert (reports.jump_candidate[1::2] == 0).sum() >= 4
    assert (oracle.shortened > 2) == (radius < math.inf)
    assert (reports.trust.radius.max() >= 4) == (radius < math.inf)


def test_an_event_of_a_value_is_a_saddle_free_newton_step():
    with jax.enable_x64():
        found, reports = train(make(), 12, value_fn=loss)
    oracle = Oracle(SCOPES["global"], value=True)
    for event in range(1, 7):
        np.testing.assert_allclose(found[EVERY * event - 1], oracle.step(), rtol=0, atol=1e-7)
        assert reports.trust.damping[EVERY * event - 1] == pytest.approx(oracle.damping, rel=1e-6)
        assert reports.trust.radius[EVERY * event - 1] == oracle.trust
        oracle.damping = float(reports.trust.damping[EVERY * event - 1])  # Which is float32.


def test_a_quadratic_loss_is_least_in_the_span_after_one_jump():
    linear = lambda params: jnp.asarray(MATRIX) @ flat(params) - jnp.asarray(TARGETS)  # noqa: E731

    with jax.enable_x64():
        tx = make(3, pdt_optax.Solve(history=HISTORY, damping=1e-12, radius=math.inf, start=3))
        params, state = tree(jnp.asarray(START)), None
        state = tx.init(params)
        snapshots = [START]
        for step in range(9):
            grads = jax.grad(lambda params: jnp.sum(linear(params) ** 2))(params)
            arrived = np.asarray(flat(params)) - 0.01 * np.asarray(flat(grads))
            updates, state = jax.jit(functools.partial(tx.update, residual_fn=linear))(
                grads, state, params
            )
            params = optax.apply_updates(params, updates)
            if step % 3 == 2:
                snapshots.append(np.asarray(flat(params)))
    basis = np.diff([*snapshots[-4:-1], arrived], axis=0).T
    best = np.linalg.lstsq(MATRIX @ basis, TARGETS - MATRIX @ arrived, rcond=None)[0]
    np.testing.assert_allclose(snapshots[-1], arrived + basis @ best, rtol=0, atol=1e-6)
    assert np.abs(basis @ best).max() > 0.01


@pytest.mark.parametrize(
    "residual_fn",
    [
        lambda _: jnp.ones(3),
        lambda params: flat(params) * jnp.nan,
        lambda params: jnp.where(jnp.arange(7) == 2, jnp.inf, flat(params)),
        lambda params: -jnp.log(flat(params) - flat(tree(jnp.asarray(START)))),
    ],
    ids=["constant", "nan", "inf", "not finite where it is compared"],
)
@pytest.mark.parametrize("gives_value", quick([False, True], False))
def test_useless_residuals_move_no_weight(residual_fn, gives_value):
    if gives_value:
        extra = {"value_fn": lambda params: jnp.sum(residual_fn(params) ** 2)}
    else:
        extra = {"residual_fn": residual_fn}
    found, reports = train(make(), 8, start=START.astype(np.float32), **extra)
    expected, _ = train(make(99), 8)
    np.testing.assert_array_equal(found, expected)
    assert (reports.mask_ratio == 0).all()
    assert np.isfinite(reports.trust.damping).all()


def test_a_step_of_zero_is_not_divided_by():
    """JAX's float checks blame a division by zero even where its result is not used."""
    tx, params = make(1), tree(jnp.asarray(START, jnp.float32))

    def step(params, state):
        return tx.update(params, state, params, residual_fn=lambda _: jnp.ones(3))

    checked = checkify.checkify(jax.jit(step), errors=checkify.float_checks)
    error, (updates, _) = checked(params, tx.init(params))
    error.throw()
    chex.assert_trees_all_equal(updates, jax.tree.map(lambda leaf: -0.01 * leaf, params))


def test_what_is_not_finite_in_the_history_stays_there():
    """A direction that is no number moves neither its coordinate nor another."""
    tx = make(1)
    params = tree(jnp.asarray(START, jnp.float32))
    state: Any = tx.init(params)
    history = state[-1].history
    ring = history.rows.ring.at[:, 0, 1].set(jnp.nan)
    history = history._replace(rows=history.rows._replace(ring=ring))
    state = (*state[:-1], state[-1]._replace(history=history))
    updates, state = jax.jit(functools.partial(tx.update, residual_fn=residuals))(
        jax.grad(loss)(params), state, params
    )
    chex.assert_tree_all_finite(updates)
    assert updates["a"][1] == -0.01 * jax.grad(loss)(params)["a"][1]
    assert pdt_optax.metrics(state).jump_candidate == 0


@pytest.mark.parametrize("gives_value", [False, True])
def test_loss_is_never_above_the_optimizers_own(gives_value):
    """On what is scored: here another mini-batch at each step, and steps that are too long."""

    def scored(params, rows):
        outputs = jnp.tanh(jnp.asarray(MATRIX, jnp.float32)[rows] @ flat(params))
        return outputs - jnp.sin(rows)

    def value(params, rows):
        return jnp.sum(scored(params, rows) ** 2)

    jump = pdt_optax.Solve(history=HISTORY, damping=DAMPING, radius=math.inf)
    own, jumps = optax.sgd(0.003), make(1, jump, optax.sgd(0.003))

    def step(carry, rows):
        params, state = carry
        grads = jax.grad(value)(params, rows)
        alone = optax.apply_updates(params, own.update(grads, own.init(params))[0])
        name, fn = ("value_fn", value) if gives_value else ("residual_fn", scored)
        updates, state = jumps.update(
            grads, state, params, **{name: lambda params: fn(params, rows)}
        )
        params = optax.apply_updates(params, updates)
        return (params, state), (value(params, rows), value(alone, rows), state[-1].report)

    rows = jnp.asarray(RNG.integers(0, 12, size=(200, 9)))
    params = tree(jnp.asarray(START, jnp.float32))
    run = jax.jit(lambda params: jax.lax.scan(step, (params, jumps.init(params)), rows)[1])
    landed, alone, report = run(params)
    jumped = report.jump_candidate == 0
    assert (landed[jumped] < alone[jumped] + 1e-6).all()
    np.testing.assert_array_equal(landed[~jumped], alone[~jumped])
    assert 5 < jumped.sum() < 200


def test_jumps_come_to_rest_with_the_optimizer():
    """Classes that can be told apart have their least loss at infinity."""
    generator = np.random.default_rng(0)
    inputs = jnp.asarray(generator.standard_normal((256, 20)), jnp.float32)
    labels = jnp.sign(inputs @ generator.standard_normal(20).astype("float32"))
    start = {
        "a": jnp.asarray(0.2 * generator.standard_normal((20, 16)), jnp.float32),
        "b": jnp.asarray(0.2 * generator.standard_normal(16), jnp.float32),
    }

    def value(params, rows):
        outputs = jnp.tanh(inputs[rows] @ params["a"]) @ params["b"]
        return jnp.mean(jax.nn.softplus(-labels[rows] * outputs))

    def run(tx):
        def step(carry, key):
            params, state = carry
            grads = jax.grad(value)(params, jax.random.randint(key, (32,), 0, 256))
            updates, state = tx.update(
                grads, state, params, value_fn=lambda params: value(params, jnp.arange(64))
            )
            params = optax.apply_updates(params, updates)
            return (params, state), (value(params, jnp.arange(256)), jnp.linalg.norm(params["a"]))

        keys = jax.random.split(jax.random.key(0), 600)
        return jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), keys)[1])()

    own, _ = run(optax.with_extra_args_support(optax.sgd(3.0)))
    losses, norms = run(make(10, pdt_optax.Solve(), optax.sgd(3.0)))
    assert norms[-1] < 1.1 * norms[300]
    assert losses[-1] < 0.1 * own[-1]


def test_a_factor_of_the_loss_changes_nothing():
    found, _ = train(make(), 12)
    times_eight, _ = train(
        make(), 12, residual_fn=lambda params: jax.tree.map(lambda r: 8 * r, residuals(params))
    )
    np.testing.assert_array_equal(found, times_eight)


def test_a_term_without_points_changes_nothing():
    with jax.enable_x64():
        both = [
            train(make(), 6, residual_fn=fn)[0]
            for fn in (residuals, lambda params: (residuals(params), jnp.zeros((0, 3))))
        ]
    np.testing.assert_array_equal(*both)


def test_only_coordinates_that_jump_are_counted():
    """Neither one that the optimizer holds fixed, nor one that is not finite."""
    params = {"w": jnp.zeros(12), "fixed": jnp.ones(1000), "mask": jnp.full(4, -jnp.inf)}
    labels = {"w": "moves", "fixed": "stays", "mask": "moves"}
    own = optax.partition({"moves": optax.sgd(0.05), "stays": optax.set_to_zero()}, labels)
    slopes = jnp.linspace(0.1, 1, 12)

    tx = make(2, optimizer=own)

    def residual_fn(params):
        return slopes * (params["w"] - 1)

    def loss(params):
        return jnp.sum(residual_fn(params) ** 2)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params, residual_fn=residual_fn)
        return optax.apply_updates(params, updates), state

    def run(params):
        params, state = step(*step(params, tx.init(params)))
        return params, pdt_optax.metrics(state)

    moved, metrics = run(params)
    assert metrics.mask_ratio_per_leaf == {"w": 1, "fixed": 0, "mask": 0}
    assert metrics.mask_ratio == pytest.approx(12 / 1016)
    finite, _ = run({**params, "mask": jnp.zeros(4)})
    np.testing.assert_array_equal(moved["w"], finite["w"])  # It is not longer than it may be.


@pytest.mark.parametrize(
    ("value", "jumps"),
    [(lambda params: jnp.sum(params**2), 0), (lambda params: jnp.sum((params - 1) ** 2), 6)],
)
def test_with_residuals_and_a_loss_a_jump_must_lower_both(value, jumps):
    """The residuals lead to 1, the optimizer from 0.5 to 0."""
    tx = make(2, pdt_optax.Solve(history=2))
    params: Any = jnp.array([0.5])
    given = {"residual_fn": lambda params: params - 1, "value_fn": value}
    state, update = tx.init(params), jax.jit(functools.partial(tx.update, **given))
    for _ in range(12):
        updates, state = update(2 * params, state, params)
        alone = params - 0.02 * params
        params = optax.apply_updates(params, updates)
        if not jumps:
            np.testing.assert_array_equal(params, alone)
    metrics = pdt_optax.metrics(state)
    assert (metrics.jumps, metrics.value_calls) == (jumps, 4 * 6)


def test_a_slope_without_curvature_is_followed():
    """The mean of absolute values has none."""
    generator = np.random.default_rng(0)
    inputs = jnp.asarray(generator.standard_normal((64, 12)), jnp.float32)
    targets = inputs @ jnp.arange(12.0)

    def value(params):
        return jnp.mean(jnp.abs(inputs @ params["w"] - targets))

    def run(tx):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(value)(params), state, params, value_fn=value)
            return (optax.apply_updates(params, updates), state), None

        params = {"w": jnp.zeros(12)}
        return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), length=100)[0])()

    alone, _ = run(optax.with_extra_args_support(optax.sgd(0.01)))
    params, state = run(make(5, pdt_optax.Solve(history=4)))
    assert pdt_optax.metrics(state).jumps >= 16  # The radius grows until one is too long.
    assert value(params) < 0.3 * value(alone)


def test_steps_too_short_to_be_seen_lessen_the_damping():
    """Otherwise it would stay where nothing is ever accepted."""
    jump = pdt_optax.Solve(history=HISTORY, damping=1e6)
    _, reports = train(make(1, jump=jump), 20)
    assert reports.trust.damping[-1] < 1e3
    assert (reports.jump_candidate == 0).any()


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_parts_of_the_directions_make_the_same_jump(chunk):
    with jax.enable_x64():
        found, _ = train(make(scope="leaf"), 8)
        jump = pdt_optax.Solve(history=HISTORY, damping=DAMPING, chunk=chunk)
        in_parts, _ = train(make(jump=jump, scope="leaf"), 8)
    np.testing.assert_allclose(in_parts, found, rtol=0, atol=1e-9)


def test_the_first_jump_needs_no_full_history():
    _, reports = train(make(jump=pdt_optax.Solve(history=20)), 4)
    assert reports.mask_ratio[1] == 1
    _, reports = train(make(jump=pdt_optax.Solve(history=20, start=2)), 4)
    assert list(reports.mask_ratio) == [0, 0, 0, 1]


@pytest.mark.parametrize("dtype", quick(["bfloat16", "int8"], "int8"))
def test_a_rounded_history_solves_nearly_as_well(dtype):
    """The span is another, the loss is the same."""
    steps = 40
    found, _ = train(make(), steps)
    rounded, reports = train(make(history_dtype=dtype), steps)
    alone, _ = train(make(99), steps)
    losses = [loss(tree(jnp.asarray(weights[-1]))) for weights in (found, rounded, alone)]
    assert losses[1] < losses[0] + 0.1 * (losses[2] - losses[0])
    assert (reports.jump_candidate == 0).any()


def test_seeds_in_vmap_go_as_each_alone():
    starts = START + RNG.normal(size=(3, 7)) / 10
    tx = make()

    @jax.jit
    @jax.vmap
    def run(start):
        params = tree(start)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params, residual_fn=residuals)
            return (optax.apply_updates(params, updates), state), None

        return flat(jax.lax.scan(step, (params, tx.init(params)), length=8)[0][0])

    with jax.enable_x64():
        together = run(jnp.asarray(starts))
        alone = [train(tx, 8, start)[0][-1] for start in starts]
    np.testing.assert_allclose(together, np.array(alone), rtol=0, atol=1e-9)


def test_momentum_is_forgotten_where_it_jumped():
    link = pdt_optax.pdt(EVERY, pdt_optax.Solve(history=HISTORY))
    tx = pdt_optax.reset_momentum(optax.sgd(0.01, momentum=0.9), link)
    params = tree(jnp.asarray(START, jnp.float32))
    state = tx.init(params)
    update = jax.jit(functools.partial(tx.update, residual_fn=residuals))
    for _ in range(EVERY):
        updates, state = update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    assert pdt_optax.metrics(state).mask_ratio == 1
    (trace,) = [s for s in jax.tree.leaves(state, is_leaf=_is_trace) if _is_trace(s)]
    assert not ravel_pytree(trace.trace)[0].any()


def _is_trace(node):
    return isinstance(node, optax.TraceState)


# Eight devices.

WIDE = {"kernel": (64, 128), "bias": (128,), "out": (128, 2)}
INPUTS = np.asarray(RNG.normal(size=(64, 64)) / 8, np.float32)


def wide_params():
    keys = jax.random.split(jax.random.key(0), len(WIDE))
    return {
        name: jax.random.normal(key, shape) / np.sqrt(shape[0])
        for (name, shape), key in zip(WIDE.items(), keys, strict=True)
    }


def wide_residuals(params, inputs):
    hidden = jnp.tanh(inputs @ params["kernel"] + params["bias"][None])
    return hidden @ params["out"] - jnp.sin(3 * inputs[:, :2])


def wide_step(tx, residuals_of, axis=None):
    def step(params, state, inputs):
        def total(params):
            return jnp.sum(residuals_of(params, inputs) ** 2) / 128

        grads = jax.grad(total)(params)
        grads = grads if axis is None else jax.lax.psum(grads, axis)
        updates, state = tx.update(
            grads, state, params, residual_fn=lambda params: residuals_of(params, inputs)
        )
        return optax.apply_updates(params, updates), state

    return step


@functools.cache
def wide_alone():
    tx = make(2, pdt_optax.Solve(history=4))
    params = wide_params()
    state = tx.init(params)
    for _ in range(8):
        params, state = jax.jit(wide_step(tx, wide_residuals))(params, state, INPUTS)
    return jax.device_get(params), pdt_optax.metrics(state)


@pytest.mark.parametrize("mode", quick([AxisType.Auto, AxisType.Explicit], AxisType.Explicit))
@pytest.mark.parametrize("spec", [P(), P("x")], ids=["data", "fsdp"])
def test_on_eight_devices_as_on_one(mode, spec):
    """The examples are divided, the small systems are the same everywhere."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(mode,))
    tx = make(2, pdt_optax.Solve(history=4))
    params = wide_params()
    specs = {"kernel": spec, "bias": P(), "out": P()}
    params = jax.device_put(params, {n: NamedSharding(mesh, s) for n, s in specs.items()})

    def gathered(params, inputs):
        if mode == AxisType.Explicit:
            params = jax.tree.map(lambda p: jax.sharding.reshard(p, P()), params)
        return wide_residuals(params, inputs)

    with jax.set_mesh(mesh):
        inputs = jax.device_put(INPUTS, NamedSharding(mesh, P("x")))
        state = jax.jit(tx.init, out_shardings=pdt_optax.state.state_shardings(tx, params))(params)
        step = jax.jit(wide_step(tx, gathered))
        for _ in range(8):
            params, state = step(params, state, inputs)
    expected, metrics = wide_alone()
    chex.assert_trees_all_close(jax.device_get(params), expected, rtol=0, atol=2e-4)
    found = pdt_optax.metrics(state)
    assert found.predictions == metrics.predictions == 4
    assert found.mask_ratio == metrics.mask_ratio == 1


def test_under_shard_map_the_residuals_of_all_devices_count():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    tx = make(2, pdt_optax.Solve(history=4))
    params = wide_params()
    step = jax.shard_map(
        wide_step(tx, wide_residuals),  # Gradients of what is whole are summed by themselves.
        mesh=mesh,
        in_specs=(P(), P(), P("x")),
        out_specs=(P(), P()),
    )
    state = tx.init(params)
    for _ in range(8):
        params, state = jax.jit(step)(params, state, INPUTS)
    expected, _ = wide_alone()
    chex.assert_trees_all_close(jax.device_get(params), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("gives_value", [False, True])
def test_without_a_record_of_what_differs_it_is_an_error(gives_value):
    """A sum over the devices that is left out would give each its own parameters."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    params, tx = wide_params(), make(2, pdt_optax.Solve(history=4))

    def step(params, state, inputs):
        value = {"value_fn": lambda params: jnp.sum(wide_residuals(params, inputs) ** 2)}
        residual = {"residual_fn": lambda params: wide_residuals(params, inputs)}
        extra = value if gives_value else residual
        return tx.update(params, state, params, **extra)[0]

    specs = {"in_specs": (P(), P(), P("x")), "out_specs": P()}
    mapped = jax.shard_map(step, mesh=mesh, check_vma=False, **specs)
    with pytest.raises(ValueError, match=r"got no record of it along \['x'\]"):
        jax.jit(mapped)(params, tx.init(params), INPUTS)


@pytest.mark.parametrize(
    ("make_jump", "message"),
    [
        (lambda: pdt_optax.Solve(history=1), "`history` must be an int of at least 2, got 1"),
        (lambda: pdt_optax.Solve(chunk=0), "`chunk` must be an int of at least 1, got 0"),
        (lambda: pdt_optax.Solve(start=0), "`start` must be an int of at least 1, got 0"),
        (lambda: pdt_optax.Solve(interval=-1), "`interval` must be an int of at least 0, got -1"),
        (lambda: pdt_optax.Solve(damping=0), r"`damping` must be in \(0, 1e\+06\], got 0"),
        (lambda: pdt_optax.Solve(radius=0), "`radius` must be a number above 0, got 0"),
        (lambda: pdt_optax.Solve(damping="x"), r"`damping` must be in \(0, 1e\+06\], got 'x'"),
        (lambda: pdt_optax.pdt(1, pdt_optax.Solve), "`jump` must be a way of jumping"),
    ],
)
def test_bad_arguments(make_jump, message):
    with pytest.raises(ValueError, match=message):
        make_jump()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({}, "`residual_fn` or `value_fn` must be passed to `update`"),
        ({"residual_fn": lambda _: {}}, "`residual_fn` must return .* got no numbers"),
        ({"residual_fn": lambda _: jnp.zeros((0, 2))}, "`residual_fn` must return .* no numbers"),
        ({"residual_fn": lambda _: jnp.arange(3)}, "`residual_fn` must return .* got int32"),
        ({"value_fn": lambda _: jnp.ones(2)}, "`value_fn` must be a scalar"),
        ({"residual_fn": jnp.ones(2)}, "`residual_fn` must be a function .* `residuals`"),
    ],
)
def test_bad_extra_arguments(extra, message):
    tx, params = make(), {"a": jnp.ones(3)}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda p: tx.update(p, tx.init(p), p, **extra), params)
