"""Streaming DMD against batch fits in float64, and on histories that are hard to follow."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pydmd
import pytest
from ring import anchor, in_time
from transforms import ACCEPT_ALL, extrapolating, verifying, way_back

import pdt_optax
from pdt_optax import Streaming, _layout

NEVER = pdt_optax.criteria.magnitude_bounds(1e30)
ROTATION = 0.95 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
LINEAR_MAP = np.block([[ROTATION, np.zeros((2, 1))], [np.zeros((1, 2)), np.full((1, 1), 0.8)]])


def path_of(increments):
    """Weights ``(steps + 1, N)`` of the size of a network's, that move by these."""
    start = np.random.default_rng(5).normal(size=increments.shape[1])
    return np.vstack([start, start + np.cumsum(increments, axis=0)])


def system(linear_map, steps, size=40, noise=0.0, spread=0.0):
    """Increments ``(steps, size)`` of a linear system that noise drives, seen in `size` weights."""
    rng = np.random.default_rng(3)
    rank = len(linear_map)
    z, states = np.ones(rank), []
    for _ in range(steps):
        states.append(z)
        z = linear_map @ z + noise * rng.normal(size=rank)
    seen = np.stack(states) @ np.linalg.qr(rng.normal(size=(size, rank)))[0].T
    return 0.1 * (seen + spread * rng.normal(size=seen.shape))


def split(weights):
    return {"a": weights[..., :8], "b": weights[..., 8:].reshape(*weights.shape[:-1], -1, 2)}


def follow(path, **options):
    """The optimizer goes along the path; the last weights and updates, and the state."""
    tx = extrapolating(1, **options)
    path = split(jnp.asarray(path, jnp.float32))

    def step(carry, there):
        params, _, state = carry
        move = jax.tree.map(jnp.subtract, there, params)
        updates, state = tx.update(move, state, params)
        return (optax.apply_updates(params, updates), updates, state), None

    start = jax.tree.map(lambda leaf: leaf[0], path)
    carry = start, start, tx.init(start)
    ahead = jax.tree.map(lambda leaf: leaf[1:], path)
    return jax.jit(lambda carry: jax.lax.scan(step, carry, ahead)[0])(carry)


def jump(path, **options):
    """What is added to the last but one of the weights by the only event, at the end."""
    options |= {"start": len(path) - 1, "criteria": ACCEPT_ALL, "horizon": 5}
    _, updates, state = follow(path, **options)
    assert pdt_optax.metrics(state).predictions == 1
    return np.concatenate([np.ravel(updates["a"]), np.ravel(updates["b"])])


def assert_close(found, expected, rtol=1e-4):
    np.testing.assert_allclose(found, expected, atol=rtol * np.abs(expected).max())


def test_the_dmd_of_all_increments_where_the_rank_suffices():
    """Three directions of five are needed."""
    path = path_of(system(LINEAR_MAP, 14))
    found = jump(path, history=Streaming(5, forgetting=1.0))
    assert_close(found, oracle.predicted_path("affine_dmd", path[:-1].T, 5)[-1])


@pytest.mark.parametrize("predictor", ["dmd", "linear"])
def test_forgetting_is_weighted_least_squares(predictor):
    """Noise in all three directions; NumPy fits them in full."""
    increments = system(LINEAR_MAP, 12, noise=0.3)
    path = path_of(increments)
    found = jump(path, history=Streaming(3, forgetting=0.7), predictor=predictor)
    seen = increments[:-1]
    weights = 0.7 ** np.arange(len(seen))[::-1]
    if predictor == "dmd":
        root = np.sqrt(weights[1:, None])
        linear_map = np.linalg.lstsq(root * seen[:-1], root * seen[1:], rcond=1e-10)[0]
        powers = [np.linalg.matrix_power(linear_map, k) for k in range(1, 6)]
        expected = seen[-1] @ sum(powers)
    else:
        mean = (weights[:, None] * seen).sum(axis=0) / weights.sum()
        expected = 5 * mean
    assert_close(found, expected)


def test_eigenvalues_from_200_noisy_snapshots():
    increments = system(LINEAR_MAP, 200, noise=0.5, spread=0.05)
    _, _, state = follow(path_of(increments), history=Streaming(3, 1.0), criteria=NEVER)
    found = np.sort_complex(pdt_optax.metrics(state).eigenvalues[0])
    assert pdt_optax.metrics(state).snapshots == 201
    assert_close(found, np.sort_complex(np.linalg.eigvals(LINEAR_MAP)), 0.1)
    batch = pydmd.DMD(svd_rank=3).fit(increments[:-1].T)
    assert_close(found, np.sort_complex(batch.eigs), 0.01)


def test_forgetting_follows_a_change_of_the_dynamics():
    """The angle of rotation goes from 0.3 to 0.6: a batch of everything is nowhere."""
    slow, fast = (np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in (0.3, 0.6))
    increments = np.concatenate([system(slow, 60), system(fast, 30)])
    _, _, state = follow(path_of(increments), history=Streaming(2, 0.8), criteria=NEVER)
    angle = np.angle(pdt_optax.metrics(state).eigenvalues[0]).max()
    assert angle == pytest.approx(0.6, abs=0.01)
    seen = increments[:-1].T
    _, eigenvalues = oracle.dmd_fit(seen[:, :-1], seen[:, 1:], svd_rank=2)
    assert abs(np.angle(eigenvalues).max() - 0.6) > 0.1


def test_groups_have_a_stream_each():
    increments = system(LINEAR_MAP, 12)
    path = path_of(increments)
    found = jump(path, history=Streaming(3, 1.0), scope="leaf")
    alone = [
        oracle.predicted_path("affine_dmd", part[:-1].T, 5)[-1]
        for part in (path[:, :8], path[:, 8:])
    ]
    assert_close(found, np.concatenate(alone), 1e-3)


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize(("dtype", "size"), [(None, 4), ("bfloat16", 2), ("int8", 1 + 2 / 64)])
def test_bytes(rank, dtype, size):
    """The formula of docs/performance.md: 4 + rank b bytes a float32 parameter."""
    params = {"w": jnp.zeros((512, 1024))}
    state = extrapolating(1, history=Streaming(rank), history_dtype=dtype).init(params)
    held = (state.history.anchor, state.history.increments, state.history.scales)
    expected = params["w"].size * (4 + rank * size)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(held)) == expected
    rest = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) - expected
    rest -= sum(leaf.nbytes for leaf in jax.tree.leaves(state.history.rows))
    assert rest < 1000


def test_rounded_directions_predict_nearly_the_same():
    path = path_of(system(LINEAR_MAP, 14))
    found = jump(path, history=Streaming(3, 1.0), history_dtype="int8")
    expected = oracle.predicted_path("affine_dmd", path[:-1].T, 5)[-1]
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


def test_what_is_not_finite_passes_by():
    """It leaves nothing behind: after it the eigenvalues are found as before."""
    path = path_of(system(LINEAR_MAP, 24)).astype(np.float32)
    moves = np.stack([np.diff(path, axis=0)] * 4)
    moves[:3, 12, 3] = np.nan, -np.inf, 1e30
    tx = extrapolating(1, history=Streaming(3, 1.0), criteria=NEVER)

    def step(state, given):
        params, move = given
        updates, state = tx.update(move, state, params)
        return state, updates

    def run(moves):
        return jax.lax.scan(step, tx.init(path[0]), (path[:-1], moves))

    state, updates = jax.jit(jax.vmap(run))(moves)
    np.testing.assert_array_equal(updates, moves)
    history = state.history
    chex.assert_tree_all_finite((history.stream, history.increments, history.rows.ring))
    assert (history.stream.stream_weight == jnp.array([[22], [22], [22], [24]])).all()
    found = np.linalg.eigvals(state.report.operators[:, 0])
    for eigenvalues in found:
        expected = np.sort_complex(np.linalg.eigvals(LINEAR_MAP))
        assert_close(np.sort_complex(eigenvalues), expected, 1e-3)


def test_increments_of_any_size():
    """None, some that underflow, and the same path in other units; without recompilation."""
    increments = system(LINEAR_MAP, 12)
    path = np.vstack([np.zeros(40), np.cumsum(increments, axis=0)])
    scales = np.array([0.0, 1e-25, 1e-15, 1e12], np.float32)
    options = {"start": 12, "horizon": 5, "criteria": ACCEPT_ALL}
    tx = extrapolating(1, history=Streaming(3, 1.0), **options)

    def run(scale):
        def step(carry, there):
            params, _, state = carry
            updates, state = tx.update(there - params, state, params)
            return (optax.apply_updates(params, updates), updates, state), None

        scaled = scale * jnp.asarray(path, jnp.float32)
        return jax.lax.scan(step, (scaled[0], scaled[0], tx.init(scaled[0])), scaled[1:])[0][1]

    found = np.asarray(jax.jit(jax.vmap(run))(scales))
    assert np.isfinite(found).all()
    expected = oracle.predicted_path("affine_dmd", path[:-1].T, 5)[-1]
    for updates, scale in zip(found[2:], scales[2:], strict=True):
        assert_close(updates / scale, expected, 1e-3)


def test_rollback_returns_and_forgets_that_it_jumped():
    tx = extrapolating(1, history=Streaming(2), start=4, criteria=ACCEPT_ALL, scheduler=way_back())
    params = jnp.ones(6)
    state, update = tx.init(params), jax.jit(tx.update)
    own = params
    for period in range(5):
        move = 0.1 * 0.9**period * jnp.arange(1.0, 7.0)
        own = own + move if period < 4 else own
        value = jnp.float32(100.0 if period == 4 else 1.0)
        updates, state = update(move, state, params, value=value)
        params = optax.apply_updates(params, updates)
        if period == 3:
            assert (params != own).all()
    np.testing.assert_allclose(params, own, rtol=1e-6)
    chex.assert_trees_all_equal(anchor(state, params), params)
    assert not state.history.stream.stream_last.any()


def test_masked_is_excluded():
    params = {"x": jnp.arange(1.0, 4.0), "y": jnp.full((2, 1), 0.5)}
    options = {"history": Streaming(1), "criteria": pdt_optax.criteria.path_sign()}

    def train(tx):
        def step(carry, _):
            params, state = carry
            moves = jax.tree.map(lambda p: -0.1 * jnp.sin(2 * p), params)
            updates, state = tx.update(moves, state, params)
            return (optax.apply_updates(params, updates), state), None

        params_and_state = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=8)[0])
        return params_and_state(params)

    inside, state = train(optax.masked(extrapolating(1, **options), {"x": True, "y": False}))
    excluded, _ = train(extrapolating(1, exclude={"x": False, "y": True}, **options))
    chex.assert_trees_all_close(inside, excluded, rtol=1e-5)
    assert pdt_optax.metrics(state).mask_ratio > 0


def test_there_are_no_snapshots():
    state = extrapolating(1, history=Streaming()).init(jnp.ones(3))
    with pytest.raises(ValueError, match=r"`opt_state` must hold snapshots, got one of history="):
        pdt_optax.dynamics.snapshots(state, jnp.ones(3))


@pytest.mark.parametrize("other", [5, Streaming(3), Streaming(4)])
def test_a_state_of_another_history(other):
    params = jnp.ones(3)
    state = extrapolating(1, history=Streaming(2)).init(params)
    with pytest.raises(ValueError, match="`history` must be as it was when the state was made"):
        extrapolating(1, history=other).update(params, state, params)


def test_a_state_of_other_groups():
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    state = extrapolating(1, history=Streaming(2)).init(params)
    with pytest.raises(ValueError, match="`scope` must be as it was when the state was made"):
        extrapolating(1, history=Streaming(2), scope="leaf").update(params, state, params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Streaming(0), "`rank` must be an int of at least 1, got 0"),
        (lambda: Streaming(True), "`rank` must be an int of at least 1, got True"),
        (lambda: Streaming(2, 0.0), r"`forgetting` must be in \(0, 1\], got 0.0"),
        (lambda: Streaming(2, 1.5), r"`forgetting` must be in \(0, 1\], got 1.5"),
        (lambda: Streaming(2, "x"), r"`forgetting` must be in \(0, 1\], got 'x'"),
        (lambda: extrapolating(1, history=Streaming), "`history` must be an int of at least 3"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "predictor",
    [
        "affine_dmd",
        "average",
        "nothing",
        pdt_optax.predictors.linear(),
        pdt_optax.predictors.affine_dmd(),
        pdt_optax.predictors.dmd(0),
    ],
)
def test_predictors_that_need_snapshots(predictor):
    message = "`predictor` must be 'dmd', 'linear', 'last_increment', or what .* is a pdt_optax.St"
    with pytest.raises(ValueError, match=message):
        extrapolating(1, history=Streaming(), predictor=predictor)
    with pytest.raises(ValueError, match=message):
        pdt_optax.Verify(predictors=("dmd", predictor), history=Streaming())


def test_predictors_of_a_rank():
    extrapolating(1, history=Streaming(), criteria="reference")
    extrapolating(1, history=Streaming(), predictor=pdt_optax.predictors.dmd(1, exact=False))
    verifying(1, history=Streaming(), predictors=("dmd", pdt_optax.predictors.dmd(1), "linear"))


@pytest.mark.parametrize("scope", [pytest.param("global", marks=pytest.mark.slow), "leaf"])
def test_leaves_end_to_end_and_by_themselves_go_the_same_way(monkeypatch, scope):
    """The larger one by itself, or both."""
    path = path_of(system(LINEAR_MAP, 12, noise=0.3))
    expected = jump(path, history=Streaming(3, 0.9), scope=scope)
    for largest_small in (8, 0):
        monkeypatch.setattr(_layout, "LARGEST_SMALL", largest_small)
        assert_close(jump(path, history=Streaming(3, 0.9), scope=scope), expected, 1e-3)


def test_directions_are_orthogonal_and_of_mean_square_one():
    path = path_of(system(LINEAR_MAP, 12, noise=0.3))
    params, _, state = follow(path, history=Streaming(3, 0.9), criteria=NEVER)
    directions = [
        np.concatenate([np.ravel(tree["a"]), np.ravel(tree["b"])])
        for tree in in_time(state, params)
    ]
    products = np.array([[a @ b / a.size for a in directions] for b in directions])
    np.testing.assert_allclose(products, np.eye(3), atol=1e-4)
