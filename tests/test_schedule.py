"""The scheduler: shorter, rarer, and back to where the optimizer was."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ring import anchor, in_time
from transforms import ACCEPT_ALL, extrapolating, way_back

import pdt_optax
from pdt_optax.state import Schedule

LINEAR = {"predictor": "linear", "criteria": ACCEPT_ALL, "history": 3, "start": 3}


def run(tx, moves, values=None, params=None, state=None):
    """Feeds the moves as the optimizer's updates; returns the parameters after each step."""
    params = jnp.arange(1.0, 5.0) if params is None else params
    state = tx.init(params) if state is None else state
    update = jax.jit(lambda u, s, p, v: tx.update(u, s, p, value=v))
    path, states = [np.asarray(params)], []
    for step, move in enumerate(moves):
        value = None if values is None else jnp.float32(values[step])
        updates, state = update(jnp.full_like(params, move), state, params, value)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params))
        states.append(state)
    return np.array(path), states


def test_schedule_by_hand():
    adaptive = pdt_optax.Adaptive(min_horizon=2, max_interval=5, shrink=0.5, grow=1.25)
    schedule = Schedule.initial(10, 1, None)
    seen = []
    for bad in (True, True, True, True, False, False, False, False, False, False):
        schedule = adaptive.next(schedule, jnp.array(bad), horizon=10, interval=1)
        seen.append((float(schedule.jump_horizon), int(schedule.jump_interval)))
    horizons = [5, 2.5, 2, 2, 2.5, 3.125, 3.90625, 4.8828125, 6.103515625, 7.62939453125]
    assert seen == list(zip(horizons, [3, 5, 5, 5, 2, 1, 1, 1, 1, 1], strict=True))


def test_predictions_that_are_always_off_become_rare_and_change_nothing():
    adaptive = pdt_optax.Adaptive(max_error=1e-9)
    tx = extrapolating(1, scheduler=adaptive, **LINEAR | {"predictor": "last_increment"})
    moves = 0.1 * np.cos(np.arange(40))
    path, states = run(tx, moves)
    counts = [int(state.predictions) for state in states]
    periods = np.flatnonzero(np.diff([0, *counts])) + 1
    assert periods.tolist() == [3, 7, 15, 24, 33]
    expected = functools.reduce(
        lambda p, move: [*p, (p[-1] + np.float32(move)).astype(np.float32)], moves, [path[0]]
    )
    np.testing.assert_array_equal(path, expected)
    assert pdt_optax.metrics(states[-1]).jump_interval == 8
    assert pdt_optax.metrics(states[-1]).jump_horizon == 1


def three_moves(tx, reach):
    """Moves of 0.5 from 1, the third of which may jump `reach` snapshots."""
    params = jnp.ones(4)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for step in range(3):
        if step == 2:
            schedule = state.schedule._replace(jump_horizon=jnp.float32(reach))
            state = state._replace(schedule=schedule)
        updates, state = update(jnp.full(4, 0.5), state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(("reach", "expected"), [(5.0, 5.0), (2.5, 2.5), (1.0, 1.0)])
def test_jump_reaches_as_far_as_the_present_horizon(reach, expected):
    """The line through three snapshots has the slope of the moves."""
    tx = extrapolating(1, scheduler=pdt_optax.Adaptive(), interval=0, **LINEAR)
    params = three_moves(tx, reach)
    np.testing.assert_allclose(params, np.full(4, 2.0 + 0.5 * expected), rtol=1e-6)


@pytest.mark.parametrize(("every", "size"), [(1, 4), (3, 4), (3, 2**17)])
def test_rollback_returns_to_the_result_before_the_jump(every, size):
    """Snapshots 1.0, 1.3, 1.6 for every = 3: the jump at the end of period 3 is undone after 4."""
    tx = extrapolating(every, scheduler=way_back(), interval=9, **LINEAR)
    values = [1.0] * (3 * every) + [2.0] * every + [1.0] * (3 * every)
    params = jnp.ones(size)
    path, states = run(tx, [0.1] * len(values), values, params)
    before_jump = path[3 * every - 1] + 0.1
    assert (path[3 * every] > before_jump + 0.3 * every).all()
    np.testing.assert_allclose(path[4 * every], before_jump, rtol=1e-6)
    np.testing.assert_allclose(path[4 * every + 1], before_jump + 0.1, rtol=1e-6)
    assert pdt_optax.metrics(states[-1]).bad_jumps == 1
    snapshots = [path[every], path[2 * every], path[4 * every]]
    restored = states[4 * every - 1]
    np.testing.assert_array_equal(anchor(restored, params), snapshots[-1])
    increments = in_time(restored, params)
    for increment, (old, new) in zip(increments, itertools.pairwise(snapshots), strict=True):
        np.testing.assert_allclose(increment, new - old, atol=1e-6)


def test_a_jump_that_holds_is_not_undone():
    tx = extrapolating(1, scheduler=way_back(), interval=9, **LINEAR)
    with_rollback, states = run(tx, [0.1] * 9, np.linspace(2, 1, 9))
    without, _ = run(extrapolating(1, interval=9, **LINEAR), [0.1] * 9)
    np.testing.assert_array_equal(with_rollback, without)
    assert pdt_optax.metrics(states[-1]).bad_jumps == 0


@pytest.mark.parametrize(("tolerance", "bad"), [(0.0, 1), (0.49, 1), (0.51, 0)])
def test_value_tolerance(tolerance, bad):
    tx = extrapolating(1, scheduler=way_back(value_tolerance=tolerance), interval=9, **LINEAR)
    _, states = run(tx, [0.1] * 6, [1.0, 1.0, 1.0, 1.5, 1.0, 1.0])
    assert pdt_optax.metrics(states[-1]).bad_jumps == bad


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rollback_at_once_when_the_loss_is_not_finite(value):
    """The step that meets it comes with updates that are not finite either."""
    tx = extrapolating(4, scheduler=way_back(), interval=9, **LINEAR)
    values = [1.0] * 13 + [value] + [1.0] * 4
    moves = [0.1] * 13 + [np.nan] + [0.1] * 4
    path, states = run(tx, moves, values)
    np.testing.assert_allclose(path[14], path[11] + 0.1, rtol=1e-6)
    assert np.isfinite(path).all()
    assert states[13].pdt_count == 0
    assert states[13].history.snapshots_taken == 4


@pytest.mark.parametrize("scale", [1e10, 1e30])
def test_no_jump_without_a_way_back(scale):
    """A weight of 1e10 has no digits left for one of 1: such a jump is not made."""

    def far(gram, horizon):
        return jnp.zeros((horizon, gram.matrix.shape[-1])).at[:, -2].set(scale)

    options = LINEAR | {"predictor": far}
    _, blind = run(extrapolating(1, **options), [-0.01] * 3, [1.0] * 3)
    path, careful = run(extrapolating(1, scheduler=way_back(), **options), [-0.01] * 3, [1.0] * 3)
    assert pdt_optax.metrics(blind[-1]).mask_ratio == 1
    assert pdt_optax.metrics(careful[-1]).mask_ratio == 0
    np.testing.assert_allclose(path[-1], np.arange(1, 5) - 0.03, rtol=1e-6)


def test_rollback_before_a_weight_overflows():
    """The optimizer itself would arrive at inf two steps after the jump."""
    tx = extrapolating(4, scheduler=way_back(), interval=9, **LINEAR)
    moves = [0.1] * 13 + [np.inf] + [0.1] * 2
    path, _ = run(tx, moves, [1.0] * 16)
    np.testing.assert_allclose(path[14], path[11] + 0.1, rtol=1e-6)
    assert np.isfinite(path).all()


@pytest.mark.parametrize(("dtype", "far"), [("float32", 1e9), ("bfloat16", 1e3)])
def test_rollback_before_a_weight_runs_too_far_to_come_back(dtype, far):
    """A weight of 1e9 has no digits left for the update that would lead back to one of 1."""
    tx = extrapolating(4, scheduler=way_back(), interval=9, **LINEAR)
    params = jnp.arange(1, 5, dtype=dtype)
    path, states = run(tx, [0.5] * 13 + [far] + [0.5] * 2, [1.0] * 16, params)
    np.testing.assert_array_equal(path[14], path[11] + path.dtype.type(0.5))
    assert pdt_optax.metrics(states[13]).bad_jumps == 1


@pytest.mark.parametrize(("dtype", "far"), [("float32", 1e3), ("bfloat16", 6)])
def test_a_weight_that_can_come_back_may_go(dtype, far):
    tx = extrapolating(4, scheduler=way_back(), interval=9, **LINEAR)
    params = jnp.arange(1, 5, dtype=dtype) * jnp.array([1, 1, 1, 0], dtype)
    _, states = run(tx, [0.5] * 13 + [far] + [0.5] * 2, [1.0] * 16, params)
    assert pdt_optax.metrics(states[-1]).bad_jumps == 0


def test_a_loss_that_was_not_finite_once_does_not_condemn_the_next_jump():
    tx = extrapolating(1, scheduler=way_back(), interval=9, **LINEAR)
    _, states = run(tx, [0.1] * 6, [1.0, np.nan, 1.0, 0.9, 0.8, 0.7])
    assert pdt_optax.metrics(states[-1]).bad_jumps == 0
    assert pdt_optax.metrics(states[-1]).predictions == 1


def test_a_loss_that_is_not_finite_once_condemns_one_jump_at_most():
    """The rest of its period says nothing of the next jump."""
    watch = way_back(rollback=False)
    tx = extrapolating(4, interval=0, horizon=1, scheduler=watch, **LINEAR)
    values = 1 - 0.001 * np.arange(40.0)
    for lost, bad in ((None, 0), (17, 1)):
        given = [np.nan if step == lost else value for step, value in enumerate(values)]
        _, states = run(tx, [-0.01] * len(given), given)
        assert pdt_optax.metrics(states[-1]).bad_jumps == bad


def test_garbage_predictions_are_survived_with_rollback():
    """Unverified jumps to nowhere: training goes on from before each."""
    inputs = jax.random.normal(jax.random.key(0), (64, 8))
    targets = inputs @ jax.random.normal(jax.random.key(1), (8, 2))

    def loss(params):
        return jnp.mean((inputs @ params - targets) ** 2)

    def garbage(gram, horizon):
        noise = jax.random.normal(jax.random.key(2), (horizon, gram.matrix.shape[-1]))
        return 30 * noise / jnp.sqrt(jnp.diagonal(gram.matrix) + 1e-12)[None]

    def train(tx, steps=400):
        params = jnp.zeros((8, 2))
        state = tx.init(params)

        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), value

        (params, state), values = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))(
            (params, state)
        )
        return state, values

    options = {"predictor": garbage, "criteria": ACCEPT_ALL}
    scheduler = pdt_optax.Adaptive(max_error=1e9, rollback=True)
    base = optax.with_extra_args_support(optax.sgd(0.05))
    state, values = train(
        optax.chain(
            base,
            extrapolating(4, scheduler=scheduler, **options),
        )
    )
    assert values.max() > 10 * values[0]
    assert pdt_optax.metrics(state).bad_jumps > 3
    assert values[-40:].min() < 1e-5 * values[0]
    _, alone = train(base)
    assert alone[-1] < 1e-5 * values[0]


def test_state_keeps_its_type_with_everything_on():
    scheduler = pdt_optax.Adaptive(rollback=True)
    tx = extrapolating(2, interval=0, scheduler=scheduler, scope="leaf", history_dtype="bfloat16")
    params = {"w": jnp.ones((3, 2)), "large": jnp.ones(2**17), "n": jnp.array(1)}
    state = tx.init(params)
    _, after = jax.eval_shape(functools.partial(tx.update, value=1.0), params, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, after)))


@pytest.mark.parametrize("size", [4, 2**17])
def test_a_group_that_is_not_finite_leaves_the_others_alone(size):
    """Under a scheduler too, for which its error does not count."""
    scheduler = pdt_optax.Adaptive(max_error=0.1)
    tx = extrapolating(1, scope="leaf", interval=0, scheduler=scheduler, **LINEAR)
    params = {"bad": jnp.ones(size), "good": jnp.ones(size)}
    state = tx.init(params)
    update = jax.jit(tx.update)
    for step in range(3):
        bad = jnp.full(size, jnp.nan if step == 0 else 0.5)
        updates, state = update({"bad": bad, "good": jnp.full(size, 0.5)}, state, params)
        params = optax.apply_updates(params, updates)
    metrics = pdt_optax.metrics(state)
    assert (metrics.mask_ratio_per_leaf["bad"], metrics.mask_ratio_per_leaf["good"]) == (0, 1)
    assert metrics.prediction_error < 1e-5
    assert metrics.jump_candidate == 0
    assert (metrics.jump_horizon, metrics.jump_interval) == (5, 0)
    np.testing.assert_allclose(params["good"], np.full(size, 2.0 + 0.5 * 5), rtol=1e-6)


def test_no_finite_group_is_a_bad_prediction():
    tx = extrapolating(1, scope="leaf", interval=0, scheduler=pdt_optax.Adaptive(), **LINEAR)
    _, states = run(tx, [np.nan, 0.5, 0.5])
    metrics = pdt_optax.metrics(states[-1])
    assert metrics.prediction_error == np.inf
    assert metrics.rejected
    assert (metrics.jump_horizon, metrics.jump_interval) == (2.5, 1)


@pytest.mark.parametrize(
    "scheduler",
    [None, way_back(), pytest.param(pdt_optax.Adaptive(), marks=pytest.mark.slow)],
)
def test_horizon_and_interval_of_a_state_give_way_to_the_arguments_of_now(scheduler):
    """The next jump comes after three periods without one, and goes two snapshots far."""
    before = extrapolating(1, horizon=5, interval=0, scheduler=scheduler, **LINEAR)
    path, states = run(before, [0.5] * 3, [1.0] * 3, jnp.ones(4))
    np.testing.assert_allclose(path[-1], np.full(4, 2.0 + 0.5 * 5), rtol=1e-6)
    now = extrapolating(1, horizon=2, interval=3, scheduler=scheduler, **LINEAR)
    path, states = run(now, [0.5] * 4, [1.0] * 4, jnp.asarray(path[-1]), states[-1])
    assert [int(state.predictions) for state in states] == [1, 1, 1, 2]
    np.testing.assert_allclose(path[-2] - path[0], np.full(4, 1.5), rtol=1e-6)
    np.testing.assert_allclose(path[-1] - path[-2], np.full(4, 0.5 * 2), rtol=1e-6)
    if scheduler:
        metrics = pdt_optax.metrics(states[-1])
        assert (metrics.jump_horizon, metrics.jump_interval) == (2, 3)


def test_a_state_keeps_its_place_within_the_arguments_of_now():
    before = extrapolating(1, horizon=2, interval=3, scheduler=pdt_optax.Adaptive(), **LINEAR)
    _, states = run(before, [0.5] * 2, params=jnp.ones(4))
    now = extrapolating(1, horizon=9, interval=1, scheduler=pdt_optax.Adaptive(), **LINEAR)
    _, states = run(now, [0.5], params=jnp.full(4, 2.0), state=states[-1])
    metrics = pdt_optax.metrics(states[-1])
    assert (metrics.jump_horizon, metrics.jump_interval) == (2.5, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_error": 0}, "`max_error` must be positive, got 0"),
        ({"max_error": float("nan")}, "`max_error` must be positive, got nan"),
        ({"min_horizon": 0.5}, r"`min_horizon` must be at least 1, got 0\.5"),
        ({"max_interval": -1}, "`max_interval` must be an int of at least 0, got -1"),
        ({"max_interval": 2.5}, r"`max_interval` must be an int of at least 0, got 2\.5"),
        ({"shrink": 0.0}, r"`shrink` must be in \(0, 1\], got 0.0"),
        ({"grow": "2"}, "`grow` must be at least 1, got '2'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        pdt_optax.Adaptive(**options)


def test_bad_tolerance_and_missing_value():
    with pytest.raises(
        ValueError, match=r"`value_tolerance` must be a finite number of at least 0, got -1\.0"
    ):
        pdt_optax.Adaptive(value_tolerance=-1.0)
    tx = extrapolating(1, scheduler=pdt_optax.Adaptive(rollback=True))
    with pytest.raises(ValueError, match="`value` must be passed to `update`"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
