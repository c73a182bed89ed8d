"""The transform: when it acts, what it leaves alone, what it never lets through."""

import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ring import anchor, in_time
from suites import AS_FOR_USERS, quick
from transforms import ACCEPT_ALL, OPTIMIZERS, extrapolating

import pdt_optax
from pdt_optax import _layout


def reject_all(proposal):
    return jnp.zeros(proposal.move.shape, bool)


def initial_params(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "dense": {
            "kernel": jax.random.normal(keys[0], (20, 8), dtype) / 4,
            "bias": jnp.zeros(8, dtype),
        },
        "scale": jax.random.normal(keys[1], (8,), dtype),
    }


@jax.jit
def gradient(params):
    """Of a smooth non-quadratic loss."""
    inputs = jax.random.normal(jax.random.key(2), (32, 20))
    targets = jax.random.normal(jax.random.key(3), (32, 8))

    def loss(params):
        params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        hidden = jnp.tanh(inputs @ params["dense"]["kernel"] + params["dense"]["bias"][None])
        return jnp.mean((hidden * params["scale"][None] - targets) ** 2)

    return jax.grad(loss)(params)


def train(tx, steps, params=None, compiler_options=None):
    params = initial_params() if params is None else params
    state = tx.init(params)
    update = jax.jit(tx.update, compiler_options=compiler_options)
    states = []
    for _ in range(steps):
        updates, state = update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        states.append(state)
    return params, states


def prediction_periods(states, snapshot_every=1):
    counts = [int(pdt_optax.metrics(state).predictions) for state in states]
    steps = np.flatnonzero(np.diff([0, *counts])) + 1
    assert all(steps % snapshot_every == 0)
    return list(steps // snapshot_every)


def test_defaults_make_23_predictions_in_50_epochs():
    tx = optax.chain(optax.sgd(0.01), pdt_optax.pdt(snapshot_every=2))
    _, states = train(tx, 100)
    assert prediction_periods(states, snapshot_every=2) == list(range(5, 50, 2))
    assert len(range(5, 50, 2)) == 23


@pytest.mark.parametrize(
    ("options", "periods"),
    [
        ({"interval": 0}, [5, 6, 7, 8, 9, 10, 11, 12]),
        ({"interval": 3}, [5, 9]),
        ({"start": 1, "history": 3}, [3, 5, 7, 9, 11]),
        ({"start": 8}, [8, 10, 12]),
        ({"history": 7}, [7, 9, 11]),
    ],
)
def test_schedule(options, periods):
    tx = optax.chain(optax.sgd(0.01), extrapolating(1, **options))
    _, states = train(tx, 12)
    assert prediction_periods(states) == periods


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("adam", "muon") else pytest.mark.slow)
        for name in OPTIMIZERS
    ],
)
def test_bit_identical_to_the_optimizer_where_all_is_rejected(name):
    tx = optax.chain(OPTIMIZERS[name], extrapolating(3, criteria=reject_all, interval=0))
    params, states = train(tx, 200, compiler_options=AS_FOR_USERS)
    expected, _ = train(OPTIMIZERS[name], 200, compiler_options=AS_FOR_USERS)
    chex.assert_trees_all_equal(params, expected)
    assert pdt_optax.metrics(states[-1]).predictions == 62
    assert pdt_optax.metrics(states[-1]).rejected


WHOLE_STEP = """
import jax, optax, pdt_optax, test_pdt
import jax.numpy as jnp
from transforms import OPTIMIZERS, extrapolating

names = list(OPTIMIZERS)
inputs, targets = jax.random.normal(jax.random.key(1), (32, 20)), jnp.linspace(-1, 1, 8)
weights = {"kernel": jax.random.normal(jax.random.key(0), (20, 8)) / 4, "scale": jnp.ones(8)}

def loss(weights):
  outputs = jnp.tanh(inputs @ weights["kernel"]) * weights["scale"]
  return jnp.mean((outputs - targets) ** 2)

def train(*links):
  each = optax.partition(OPTIMIZERS, {name: name for name in names})
  tx = optax.chain(each, *links)
  def step(carry, _):
    params, state = carry
    grads = {name: jax.grad(loss)(weights) for name, weights in params.items()}
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), None
  params = {name: weights for name in names}
  return jax.jit(lambda c: jax.lax.scan(step, c, length=200))((params, tx.init(params)))[0]

base, _ = train()
ours, state = train(extrapolating(3, criteria=test_pdt.reject_all, interval=0))
assert pdt_optax.metrics(state).predictions == 62
for name in names:
  same = jax.tree.map(lambda a, b: bool((a == b).all()), base[name], ours[name])
  moved = jax.tree.map(lambda a, b: bool((a != b).all()), base[name], weights)
  assert all(jax.tree.leaves((same, moved))), (name, same, moved)
  print("same", name)
"""


@pytest.mark.slow
def test_whole_compiled_step_is_bit_identical_without_fused_multiply_add():
    """With it, XLA rounds ``params + lr * gradient`` once if both are in one loop.

    All optimizers are in one program, each with weights of its own.
    """
    result = subprocess.run(
        [sys.executable, "-c", WHOLE_STEP],
        cwd=__file__.rsplit("/", 1)[0],
        env={"XLA_FLAGS": "--xla_cpu_max_isa=AVX", "JAX_PLATFORMS": "cpu", "PYTHONPATH": ".."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [word for name in OPTIMIZERS for word in ("same", name)]


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_unusable_coefficients_leave_the_optimizer_bit_for_bit(bad):
    def predictor(gram, horizon):
        return jnp.full((horizon, gram.matrix.shape[-1]), bad, gram.matrix.dtype)

    tx = extrapolating(2, predictor=predictor, criteria=ACCEPT_ALL, interval=0)
    params, states = train(optax.chain(optax.adam(1e-2), tx), 40)
    expected, _ = train(optax.adam(1e-2), 40)
    chex.assert_trees_all_equal(params, expected)
    assert pdt_optax.metrics(states[-1]).rejected


def test_overflowing_coordinates_are_rejected_one_by_one():
    """Three times the weight is beyond float16 for one leaf."""
    params = {"small": jnp.ones(3, jnp.float16), "large": jnp.full(3, 3e4, jnp.float16)}

    def predictor(gram, horizon):
        return jnp.zeros((horizon, gram.matrix.shape[-1])).at[:, -1].set(2.0)

    tx = extrapolating(1, predictor=predictor, criteria=ACCEPT_ALL, interval=0)
    state = tx.init(params)
    update = jax.jit(tx.update)
    own = {"small": jnp.full(3, 0.5, jnp.float16), "large": jnp.full(3, 32, jnp.float16)}
    for _ in range(5):
        updates, state = update(own, state, params)
        params = optax.apply_updates(params, updates)
    assert list(updates["small"]) == [6.0] * 3
    assert list(params["small"]) == [9.0] * 3
    assert list(updates["large"]) == [32.0] * 3
    ratios = pdt_optax.metrics(state).mask_ratio_per_leaf
    assert (float(ratios["small"]), float(ratios["large"])) == (1.0, 0.0)
    assert pdt_optax.metrics(state).mask_ratio == 0.5


def test_a_coordinate_that_did_not_move_is_never_accepted():
    tx = extrapolating(1, criteria=ACCEPT_ALL, predictor="linear", interval=0)
    params = jnp.arange(1.0, 7.0)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for step in range(6):
        updates = jnp.where(jnp.arange(6) < 2 if step == 5 else jnp.full(6, True), 0.1, 0.0)
        updates, state = update(updates, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(np.asarray(updates) != 0, [True] * 2 + [False] * 4)
    assert float(pdt_optax.metrics(state).mask_ratio) == pytest.approx(2 / 6)


def test_an_optimizer_that_diverged_is_not_hidden():
    tx = extrapolating(1, criteria=ACCEPT_ALL, predictor="linear", interval=0)
    params = jnp.arange(1.0, 4.0)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for step in range(7):
        bad = jnp.array([jnp.nan, 0.1, jnp.inf]) if step == 6 else jnp.full(3, 0.1)
        updates, state = update(bad, state, params)
        if step < 6:
            params = optax.apply_updates(params, updates)
    assert jnp.isnan(updates[0])
    assert jnp.isinf(updates[2])
    assert jnp.isfinite(updates[1])


def test_nothing_is_accepted_once_a_snapshot_is_not_finite():
    tx = extrapolating(1, criteria=ACCEPT_ALL, interval=0)
    params = jnp.arange(1.0, 4.0)
    state = tx.init(params)
    update = jax.jit(tx.update)
    updates, state = update(jnp.array([jnp.nan, 1.0, 1.0]), state, params)
    for _ in range(8):
        updates, state = update(jnp.full(3, 0.1), state, params)
        np.testing.assert_array_equal(updates, np.full(3, 0.1, np.float32))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtype_of_parameters_is_kept(dtype):
    params = initial_params(dtype)
    tx = optax.chain(optax.sgd(0.1), pdt_optax.pdt(2))
    trained, states = train(tx, 14, params)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(trained))
    chex.assert_tree_all_finite(trained)
    assert states[-1][-1].report.operators.dtype == jnp.float32
    assert pdt_optax.metrics(states[-1]).mask_ratio > 0


def test_mixed_dtypes_and_leaves_that_are_not_floating_point():
    params = {
        "half": jnp.ones(4, jnp.bfloat16),
        "single": jnp.ones(4),
        "step": jnp.array(7),
        "frozen": jnp.array([True, False]),
        "key": jax.random.key(0),
        "nothing": None,
    }
    updates = {
        "half": jnp.full(4, -0.125, jnp.bfloat16),
        "single": jnp.full(4, -0.125),
        "step": jnp.array(1),
        "frozen": jnp.array([False, False]),
        "key": jax.random.key(1),
        "nothing": None,
    }
    tx = extrapolating(1, predictor="linear", criteria=ACCEPT_ALL, interval=0)
    state = tx.init(params)
    for _ in range(5):
        result, state = jax.jit(tx.update)(updates, state, params)
    assert result["step"] == 1
    assert not result["frozen"].any()
    assert jax.random.key_data(result["key"]).tolist() == [0, 1]
    assert result["nothing"] is None
    assert result["half"].dtype == jnp.bfloat16
    per_leaf = pdt_optax.metrics(state).mask_ratio_per_leaf
    assert sorted(jax.tree.leaves(per_leaf)) == [0.0, 0.0]
    assert isinstance(per_leaf["step"], optax.MaskedNode)


def test_empty_leaves_and_python_scalars():
    params = {"empty": jnp.zeros((0, 3)), "scalar": 1.0, "weights": jnp.ones(4)}
    updates = {"empty": jnp.zeros((0, 3)), "scalar": 0.1, "weights": jnp.full(4, 0.1)}
    tx = extrapolating(1, predictor="linear", criteria=ACCEPT_ALL, scope="leaf")
    state = tx.init(params)
    for _ in range(5):
        result, state = jax.jit(tx.update)(updates, state, params)
        params = optax.apply_updates(params, result)
    metrics = pdt_optax.metrics(state)
    assert metrics.mask_ratio == 1
    assert metrics.mask_ratio_per_leaf == {"empty": 0, "scalar": 1, "weights": 1}


def test_without_floating_point_leaves_nothing_happens():
    tx = pdt_optax.pdt(1)
    state = tx.init({"step": jnp.array(1)})
    updates, state = tx.update({"step": jnp.array(1)}, state, {"step": jnp.array(1)})
    assert updates == {"step": 1}


# All leaves end to end, the largest by itself, each by itself.
LAYOUTS = pytest.mark.parametrize("largest_small", quick([2**16, 8, 0], 8))


@LAYOUTS
def test_history_holds_the_merged_weights(monkeypatch, largest_small):
    monkeypatch.setattr(_layout, "LARGEST_SMALL", largest_small)
    tx = optax.chain(optax.sgd(0.1), extrapolating(3, interval=0, history=4))
    params = initial_params()
    state = tx.init(params)
    update = jax.jit(tx.update)
    snapshots = [params]
    for step in range(1, 31):
        updates, state = update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        if step % 3 == 0:
            snapshots.append(params)
    increments = in_time(state[-1], params)
    chex.assert_trees_all_equal(anchor(state[-1], params), snapshots[-1])
    assert len(increments) == 3
    for increment, old, new in zip(increments, snapshots[-4:], snapshots[-3:], strict=False):
        chex.assert_trees_all_equal(increment, jax.tree.map(jnp.subtract, new, old))
    assert pdt_optax.metrics(state).snapshots == 4


@LAYOUTS
def test_history_dtype(monkeypatch, largest_small):
    monkeypatch.setattr(_layout, "LARGEST_SMALL", largest_small)
    tx = optax.chain(optax.sgd(0.1), extrapolating(2, history_dtype="bfloat16"))
    params, states = train(tx, 20)
    state = states[-1][-1]
    newest, increments = anchor(state, params), in_time(state, params)
    assert len(jax.tree.leaves(increments)) == 4 * len(jax.tree.leaves(params))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(increments))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(newest))
    chex.assert_trees_all_equal(newest, params)
    assert pdt_optax.metrics(states[-1]).mask_ratio > 0


def test_state_never_changes_its_type():
    """Then a step is compiled once; test_citizen counts it in 1000 steps."""
    tx = optax.chain(optax.sgd(0.1), extrapolating(2, interval=0))
    params = initial_params()
    state = tx.init(params)

    def step(params, state):
        updates, state = tx.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    after = jax.eval_shape(step, params, state)
    expected = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (params, state))
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), after) == expected
    assert not any(x.weak_type for x in jax.tree.leaves(after))


@pytest.mark.parametrize("scope", ["global", "leaf"])
def test_init_on_shapes_agrees_with_init_on_arrays(scope):
    tx = extrapolating(2, scope=scope)
    params = initial_params()
    abstract = jax.eval_shape(tx.init, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(jax.eval_shape(lambda: params)), abstract)
    chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(params), abstract)


def test_groups_do_not_see_each_other():
    """A leaf of its own group gets what it would get alone."""
    labels = {"dense": "a", "scale": "b"}
    options = {"criteria": "bounded", "history": 4}
    both = extrapolating(1, scope=labels, **options)
    alone = extrapolating(1, **options)
    params = initial_params()
    state, alone_state = both.init(params), alone.init(params["scale"])
    update, update_alone = jax.jit(both.update), jax.jit(alone.update)
    for step in range(8):
        grads = jax.tree.map(lambda g, step=step: -0.1 * g * 0.9**step, gradient(params))
        updates, state = update(grads, state, params)
        expected, alone_state = update_alone(grads["scale"], alone_state, params["scale"])
        np.testing.assert_allclose(updates["scale"], expected, rtol=1e-3)
        params = optax.apply_updates(params, updates)
    assert state.report.operators.shape == (2, 3, 3)


def test_scope_as_function_equals_labels_and_leaf_equals_distinct_labels():
    labels = {"dense": {"kernel": "a", "bias": "b"}, "scale": "c"}
    results = [
        train(optax.chain(optax.sgd(0.1), extrapolating(2, scope=scope, interval=0)), 20)[0]
        for scope in ("leaf", labels, lambda params: labels)
    ]
    chex.assert_trees_all_equal(*results)


def test_coefficients_of_a_frozen_group_are_finite():
    params = {"frozen": jnp.ones(5), "moving": jnp.ones(5)}
    tx = extrapolating(1, scope="leaf", interval=0)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for step in range(9):
        updates = {"frozen": jnp.zeros(5), "moving": jnp.full(5, -0.1 * 0.8**step)}
        updates, state = update(updates, state, params)
        params = optax.apply_updates(params, updates)
    metrics = pdt_optax.metrics(state)
    assert metrics.mask_ratio_per_leaf["frozen"] == 0.0
    assert jnp.isfinite(metrics.eigenvalues).all()
    np.testing.assert_array_equal(params["frozen"], np.ones(5))


def test_metrics_in_any_optax_state_and_under_jit():
    params = initial_params()
    inner = optax.chain(optax.adam(1e-2), extrapolating(1, scope="leaf", interval=0))
    tx = optax.apply_if_finite(optax.named_chain(("a", inner)), 3)
    _, states = train(tx, 9, params)
    outside = pdt_optax.metrics(states[-1])
    inside = jax.jit(pdt_optax.metrics)(states[-1])
    assert outside.predictions == 5
    assert outside.last_prediction == 9
    assert outside.eigenvalues.shape == (3, 4)
    assert jax.tree.structure(outside.mask_ratio_per_leaf) == jax.tree.structure(params)
    np.testing.assert_allclose(inside.spectral_radius, outside.spectral_radius, rtol=1e-4)
    total = sum(
        float(ratio) * leaf.size
        for ratio, leaf in zip(
            jax.tree.leaves(outside.mask_ratio_per_leaf), jax.tree.leaves(params), strict=True
        )
    )
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert float(outside.mask_ratio) == pytest.approx(total / size, rel=1e-6)


def test_metrics_over_vmapped_seeds():
    tx = optax.chain(optax.sgd(0.1), extrapolating(1, predictor="linear", criteria=ACCEPT_ALL))

    def run(scale):
        params = jax.tree.map(lambda p: p * scale, initial_params())

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(gradient(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=6)[0]

    scales = jnp.array([0.5, 1.0])
    params, state = jax.jit(jax.vmap(run))(scales)
    metrics = pdt_optax.metrics(state)
    assert metrics.mask_ratio_per_leaf["scale"].shape == (2,)
    single, _ = jax.jit(run)(scales[1])
    chex.assert_trees_all_close(jax.tree.map(lambda p: p[1], params), single, rtol=1e-4, atol=1e-5)


def test_metrics_without_or_with_several_states():
    params = initial_params()
    with pytest.raises(ValueError, match="exactly one PDTState, got 0"):
        pdt_optax.metrics(optax.adam(1e-3).init(params))
    twice = optax.chain(pdt_optax.pdt(2), pdt_optax.pdt(3))
    with pytest.raises(ValueError, match="exactly one PDTState, got 2"):
        pdt_optax.metrics(twice.init(params))


@pytest.mark.parametrize("value", [1.0, np.ones((2, 3)), {"loss": 1.0}, "nothing"])
def test_extra_arguments_are_ignored(value):
    """A `value` too, of whatever shape, where no scheduler uses it."""
    tx = optax.chain(optax.sgd(0.1), pdt_optax.pdt(2))
    params = jnp.ones(3)
    updates, _ = tx.update(jnp.ones(3), tx.init(params), params, value=value, unknown="x")
    np.testing.assert_array_equal(updates, np.full(3, -0.1, np.float32))


JUMPS = [pdt_optax.Extrapolate(), pdt_optax.Verify(), pdt_optax.Solve()]


@pytest.mark.parametrize("jump", JUMPS, ids=lambda jump: type(jump).__name__)
def test_more_weights_than_int32_counts(jump):
    params = [jax.ShapeDtypeStruct((2**29,), jnp.bfloat16)] * 5
    tx = pdt_optax.pdt(1, jump)
    state = jax.eval_shape(tx.init, params)

    def update(updates, state, params):
        return tx.update(updates, state, params, value_fn=lambda params: jnp.sum(params[0]))

    after = jax.eval_shape(update, params, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, (params, state))


def test_numpy_arrays_of_double_precision_beside_arrays():
    """As `rng.normal` makes them: jax takes them as float32."""
    params = {"w": np.random.default_rng(0).normal(size=(3, 3)), "b": jnp.zeros(3)}
    tx = optax.chain(optax.adam(1e-2), extrapolating(1, start=3, history=3))
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(4):
        updates, state = update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    assert pdt_optax.metrics(state).predictions == 1


@pytest.mark.parametrize("criteria", ["paper", "bounded", "reference"])
@pytest.mark.parametrize("predictor", ["dmd", "affine_dmd", "linear", "last_increment", "average"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_no_silent_dtype_promotion(predictor, criteria, dtype):
    tx = extrapolating(1, history=3, start=3, predictor=predictor, criteria=criteria)
    params = {"a": jnp.arange(1, 5, dtype=dtype), "b": jnp.ones((2, 2), dtype)}
    updates = jax.tree.map(lambda p: p / 16, params)
    with jax.numpy_dtype_promotion("strict"):
        state = tx.init(params)
        after = jax.eval_shape(tx.update, updates, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, (updates, state))


@LAYOUTS
def test_leaves_end_to_end_and_by_themselves_go_the_same_way(monkeypatch, largest_small):
    """Two groups, one of which has leaves of both kinds where the largest lies by itself."""
    options = {"scope": {"dense": "a", "scale": "b"}, "criteria": "bounded", "interval": 0}
    with jax.enable_x64(True):
        start = initial_params(jnp.float64)
        expected, states = train(
            optax.chain(optax.sgd(0.1), extrapolating(2, **options)), 30, start
        )
        monkeypatch.setattr(_layout, "LARGEST_SMALL", largest_small)
        params, others = train(optax.chain(optax.sgd(0.1), extrapolating(2, **options)), 30, start)
    alone = {2**16: 0, 8: 1, 0: 3}[largest_small]
    assert len(jax.tree.leaves(others[-1][-1].history.anchor)) == alone
    chex.assert_trees_all_close(params, expected, rtol=1e-6, atol=1e-8)
    chex.assert_trees_all_close(
        *(pdt_optax.metrics(run[-1]) for run in (states, others)), rtol=1e-5
    )
    assert pdt_optax.metrics(others[-1]).mask_ratio > 0


@pytest.mark.parametrize("snapshot_every", [1, 5])
def test_an_event_between_two_epochs_is_that_of_the_step(snapshot_every):
    with jax.enable_x64(True):
        params = initial_params(jnp.float64)
        options = {"criteria": "bounded", "interval": 0, "history": 4}
        inside = optax.chain(optax.adam(1e-2), extrapolating(5, **options))
        expected, states = train(inside, 60, params)
        optimizer, link = optax.adam(1e-2), extrapolating(snapshot_every, **options)
        state, history = optimizer.init(params), link.init(params)
        update = jax.jit(optimizer.update)
        end_period = jax.jit(lambda params, state: pdt_optax.end_period(link, params, state))
        for step in range(60):
            updates, state = update(gradient(params), state, params)
            params = optax.apply_updates(params, updates)
            if step % 5 == 4:
                params, history = end_period(params, history)
        chex.assert_trees_all_close(params, expected, rtol=1e-9)
        ours, theirs = pdt_optax.metrics(history), pdt_optax.metrics(states[-1])
        # One counts updates, the other ends of periods.
        steps = 5 // snapshot_every * ours.steps_until_jump
        chex.assert_trees_all_close(ours._replace(steps_until_jump=steps), theirs, rtol=1e-6)
        assert ours.predictions == 8
        assert ours.mask_ratio > 0
        for found, there in zip(
            pdt_optax.dynamics.snapshots(history, params),
            pdt_optax.dynamics.snapshots(states[-1], params),
            strict=True,
        ):
            chex.assert_trees_all_close(found, there, rtol=1e-9)


@pytest.mark.parametrize("criteria", ["paper", ACCEPT_ALL])
def test_mask_ratios_of_large_and_small_leaves_count_what_left_the_optimizer(criteria):
    random = np.random.default_rng(0)
    params = {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in {"prime": 65537, "large": (300, 257), "small": (20, 30)}.items()
    }
    params["still"] = np.zeros((256, 257), np.float32)
    rates = {name: random.uniform(0.1, 1.9, p.shape) for name, p in params.items()}
    tx = extrapolating(1, interval=0, criteria=criteria)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(6):
        own = jax.tree.map(lambda rate, p: (-0.1 * rate * p).astype(np.float32), rates, params)
        updates, state = update(own, state, params)
        left = jax.tree.map(lambda new, old: np.mean(np.asarray(new) != old), updates, own)
        params = jax.tree.map(lambda p, u: p + np.asarray(u), params, updates)
    ratios = pdt_optax.metrics(state).mask_ratio_per_leaf
    # A prediction at the edge of a criterion may be rounded to either side.
    chex.assert_trees_all_close(ratios, left, atol=4e-5)
    assert left["still"] == 0 < min(left["prime"], left["large"], left["small"])
