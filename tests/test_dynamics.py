"""Spectra, predicted paths and their errors against NumPy's full matrices, PyDMD and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pydmd
import pytest
import scipy.stats
from transforms import extrapolating

import pdt_optax

RNG = np.random.default_rng(0)
EIGENVALUES = np.array([1.0, 0.9 * np.exp(0.3j), 0.9 * np.exp(-0.3j), 0.5])
SHAPES = {"a": {"bias": (3,), "kernel": (4, 3)}, "b": {"bias": (2,), "kernel": (3, 2)}}
NAMES = ("a/bias", "a/kernel", "b/bias", "b/kernel")
SIZES = (3, 12, 2, 6)
LABELS = {"a": 0, "b": 1}


def unravel(vector, dtype=np.float64):
    """A tree of the shapes above, with a step counter that takes no part."""
    leaves = np.split(np.asarray(vector, dtype), np.cumsum(SIZES)[:-1])
    shapes = jax.tree.leaves(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    tree = [leaf.reshape(shape) for leaf, shape in zip(leaves, shapes, strict=True)]
    (a_bias, a_kernel, b_bias, b_kernel), step = tree, np.int32(7)
    return {
        "a": {"bias": a_bias, "kernel": a_kernel},
        "b": {"bias": b_bias, "kernel": b_kernel},
        "step": step,
    }


def members(leaf):
    """Which coordinates of the vector a leaf has."""
    start = sum(SIZES[:leaf])
    return slice(start, start + SIZES[leaf])


def parts(tree):
    """The values of a tree at its floating-point leaves."""
    return [tree["a"]["bias"], tree["a"]["kernel"], tree["b"]["bias"], tree["b"]["kernel"]]


def rotating_system(steps):
    """Weights of a linear system with `EIGENVALUES`, ``(steps, N)``, and its modes ``(N, 4)``."""
    slow, fast, rotating = RNG.normal(size=(3, sum(SIZES)))
    turned = RNG.normal(size=sum(SIZES))
    modes = np.stack([slow, (rotating - 1j * turned) / 2, (rotating + 1j * turned) / 2, fast], 1)
    powers = EIGENVALUES[None] ** np.arange(steps)[:, None]
    return (powers @ modes.T).real, modes


def noisy_run(steps):
    """Smooth weights with a random walk on them, ``(steps, N)``."""
    path, _ = rotating_system(steps)
    return path + 0.03 * np.cumsum(RNG.normal(size=path.shape), axis=0)


def test_spectrum_of_a_linear_system():
    path, modes = rotating_system(5)
    found = pdt_optax.dynamics.spectrum([unravel(row) for row in path])
    newest = np.abs(modes * EIGENVALUES[None] ** 4)
    order = [0, 1, 2, 3] if found.eigenvalues[0, 1].imag > 0 else [0, 2, 1, 3]
    np.testing.assert_allclose(found.eigenvalues[0], EIGENVALUES[order], atol=1e-4)
    assert found.rank.tolist() == [4]
    assert isinstance(found.groups["step"], optax.MaskedNode)
    for leaf, magnitude in enumerate(parts(found.magnitudes)):
        expected = np.linalg.norm(newest[members(leaf)][:, order], axis=0)
        np.testing.assert_allclose(magnitude, expected, rtol=1e-3)


def test_spectrum_is_that_of_pydmd():
    path = noisy_run(6)
    found = pdt_optax.dynamics.spectrum(
        [unravel(row) for row in path], predictor=pdt_optax.predictors.dmd(3)
    )
    dmd = pydmd.DMD(svd_rank=3, exact=True).fit(path.T)
    expected = sorted(dmd.eigs, key=lambda value: (round(-abs(value), 6), value.imag))
    actual = sorted(found.eigenvalues[0, :3], key=lambda value: (round(-abs(value), 6), value.imag))
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    assert found.rank.tolist() == [3]
    np.testing.assert_array_equal(found.eigenvalues[0, 3:], 0)


@pytest.mark.parametrize("affine", [False, True])
def test_modes_per_leaf_and_group_are_those_of_the_full_matrices(affine):
    path = noisy_run(6)
    predictor = (pdt_optax.predictors.affine_dmd if affine else pdt_optax.predictors.dmd)()
    labels = {**LABELS, "step": 1}
    found = pdt_optax.dynamics.spectrum(
        [unravel(row, np.float32) for row in path], predictor=predictor, scope=labels
    )
    assert [int(group) for group in parts(found.groups)] == [0, 0, 1, 1]
    columns = (np.diff(path, axis=0) if affine else path).T
    for group, coordinates in enumerate((slice(0, 15), slice(15, 23))):
        part = columns[coordinates]
        modes, eigenvalues = oracle.dmd_fit(part[:, :-1], part[:, 1:])
        scaled = np.abs(modes * (np.linalg.pinv(modes) @ part[:, -1]))
        for value, *norms in zip(
            eigenvalues,
            np.linalg.norm(scaled[: SIZES[2 * group]], axis=0),
            np.linalg.norm(scaled[SIZES[2 * group] :], axis=0),
            strict=True,
        ):
            nearest = np.argmin(np.abs(found.eigenvalues[group] - value))
            assert abs(found.eigenvalues[group, nearest] - value) < 2e-3
            for leaf, norm in zip((2 * group, 2 * group + 1), norms, strict=True):
                np.testing.assert_allclose(
                    parts(found.magnitudes)[leaf][nearest], norm, rtol=2e-2, atol=1e-3
                )


@pytest.mark.parametrize(("predictor", "scope"), [("dmd", "global"), ("linear", "leaf")])
def test_predicted_path_is_that_of_the_full_matrices(predictor, scope):
    path = noisy_run(5)
    groups = np.repeat(np.arange(4), SIZES) if scope == "leaf" else None
    moved = oracle.predicted_path_by_group(predictor, path.T, 6, groups=groups)
    expected = path[-1][None] + moved
    scale = np.abs(moved).max()
    snapshots = [unravel(row) for row in path]
    predicted = pdt_optax.dynamics.predicted_path(snapshots, 6, predictor=predictor, scope=scope)
    for leaf, values in enumerate(parts(predicted)):
        difference = np.asarray(values).reshape(6, -1) - expected[:, members(leaf)]
        assert np.abs(difference).max() < 1e-3 * scale
    np.testing.assert_array_equal(predicted["step"], [7] * 6)
    norm = pdt_optax.dynamics.predicted_path(
        snapshots,
        6,
        lambda params: jnp.sum(params["a"]["kernel"] ** 2),
        predictor=predictor,
        scope=scope,
    )
    np.testing.assert_allclose(norm, (expected[:, 3:15] ** 2).sum(axis=1), rtol=1e-2)


def test_prediction_errors_are_those_of_the_full_matrices():
    path, history, horizon = noisy_run(9), 4, 3
    found = pdt_optax.dynamics.prediction_errors(
        [unravel(row) for row in path], history=history, horizon=horizon, predictor="affine_dmd"
    )
    expected = np.full((4, 5, horizon), np.nan)
    for start in range(5):
        newest = path[start + history - 1]
        moved = oracle.predicted_path("affine_dmd", path[start : start + history].T, horizon)
        for ahead, actual in enumerate(path[start + history :][:horizon]):
            for leaf in range(4):
                truth = (actual - newest)[members(leaf)]
                difference = moved[ahead, members(leaf)] - truth
                expected[leaf, start, ahead] = np.linalg.norm(difference) / np.linalg.norm(truth)
    np.testing.assert_allclose(np.stack(parts(found)), expected, rtol=2e-2)


def test_standing_still_is_predicted_without_error():
    still = [np.ones(3)] * 5
    errors = pdt_optax.dynamics.prediction_errors(still, history=3, horizon=2, predictor="linear")
    np.testing.assert_array_equal(errors, [[0, 0], [0, np.nan]])
    stops = [np.full(3, float(t)) for t in (0, 1, 2, 2)]
    errors = pdt_optax.dynamics.prediction_errors(stops, history=3, horizon=1, predictor="linear")
    np.testing.assert_array_equal(errors, [[np.inf]])


def test_increments_of_numpy_arrays_are_taken_in_their_precision():
    """Increments a hundred times below the rounding of float32 at 1e6."""
    path = [1e6 + np.array([1e-3, 2e-3]) * 0.5**t for t in range(3)]
    predicted = pdt_optax.dynamics.predicted_path(
        path, 1, lambda w: w - jnp.float32(1e6), predictor="linear"
    )
    assert np.abs(predicted).max() < 0.1
    found = pdt_optax.dynamics.spectrum(
        [*path, 1e6 + np.array([1e-3, 2e-3]) / 8], predictor="affine_dmd"
    )
    np.testing.assert_allclose(found.eigenvalues[0, 0], 0.5, rtol=1e-3)


@pytest.mark.parametrize("steps", [0, 2, 9])
def test_snapshots_of_a_state_are_the_weights_at_the_ends_of_the_periods(steps):
    period, history = 2, 4
    tx = optax.chain(optax.sgd(0.1), extrapolating(period, history=history, start=99))
    params = {"w": jnp.arange(1.0, 4.0), "large": jnp.arange(2.0**17), "n": jnp.int32(3)}
    params["large"] = jnp.sin(params["large"])
    shapes = jax.eval_shape(lambda: params)
    state = tx.init(params)

    def floats(params):
        return {name: np.asarray(params[name]) for name in ("w", "large")}

    kept = [floats(params)]
    update = jax.jit(tx.update)
    for step in range(1, steps + 1):
        grads = jax.tree.map(jnp.sin, floats(params)) | {"n": jnp.int32(0)}
        updates, state = update(grads, state, params)
        params = {**params, **{name: params[name] + updates[name] for name in ("w", "large")}}
        if step % period == 0:
            kept.append(floats(params))
    held = pdt_optax.dynamics.snapshots(state, shapes)
    assert len(held) == min(len(kept), history)
    for found, expected in zip(held, kept[-history:], strict=True):
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)
        assert not found["n"]
        assert isinstance(found["n"], optax.MaskedNode)


def test_snapshots_of_other_parameters():
    state = pdt_optax.pdt(1).init({"a": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"`params` must have .* those that `opt_state` was made"):
        pdt_optax.dynamics.snapshots(state, {"b": jnp.ones(3)})


@pytest.mark.parametrize("size", [1, 4, 9])
def test_spectral_distance_is_the_wasserstein_distance(size):
    points = RNG.normal(size=(2, size, 2))
    first, second = (xy @ np.array([1, 1j]) for xy in points)
    expected = scipy.stats.wasserstein_distance_nd(*points)
    assert abs(pdt_optax.dynamics.spectral_distance(first, second) - expected) < 1e-6
    assert pdt_optax.dynamics.spectral_distance(first, first[::-1]) < 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pdt_optax.dynamics.spectrum([np.ones(2)] * 2), "`snapshots` must be at least 3"),
        (
            lambda: pdt_optax.dynamics.spectrum([np.ones(2)] * 3, predictor="affine_dmd"),
            "`snapshots` must be at least 4",
        ),
        (
            lambda: pdt_optax.dynamics.spectrum([np.ones(2)] * 3, predictor="linear"),
            "`predictor` must be",
        ),
        (
            lambda: pdt_optax.dynamics.spectrum([np.arange(2)] * 3),
            "must have floating-point leaves",
        ),
        (
            lambda: pdt_optax.dynamics.spectrum([np.ones(2), np.ones(3), np.ones(2)]),
            r"`snapshots\[1\]` must have the shapes",
        ),
        (
            lambda: pdt_optax.dynamics.spectrum([np.ones(2), [np.ones(2)], np.ones(2)]),
            r"`snapshots\[1\]` must have the tree structure",
        ),
        (
            lambda: pdt_optax.dynamics.spectrum([np.ones(2), np.ones(2), np.array([1, np.inf])]),
            "`snapshots` must be finite",
        ),
        (
            lambda: pdt_optax.dynamics.spectrum([np.float32([1, 1e30]) * t for t in range(4)]),
            "`snapshots` must be finite, and so must be their squared norms",
        ),
        (
            lambda: pdt_optax.dynamics.predicted_path([np.ones(2)] * 3, 0),
            "`horizon` must be an int",
        ),
        (
            lambda: pdt_optax.dynamics.prediction_errors([np.ones(2)] * 5),
            "`snapshots` must be at least 6",
        ),
        (
            lambda: pdt_optax.dynamics.prediction_errors([np.ones(2)] * 5, history=2),
            "`history` must be",
        ),
        (
            lambda: pdt_optax.dynamics.spectral_distance([], [1.0]),
            "`first` must be a non-empty vector",
        ),
        (lambda: pdt_optax.dynamics.spectral_distance([1.0], [np.nan]), "`second` must be"),
        (
            lambda: pdt_optax.dynamics.spectral_distance([1.0], [1.0, 0.5]),
            "`second` must have as many eigenvalues as `first`, 1, got 2",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
