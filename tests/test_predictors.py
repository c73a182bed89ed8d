"""Predictors against closed forms: systems whose future is known exactly."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pydmd
import pytest
from transforms import extrapolating

import pdt_optax


def history(snapshots):
    """Basis and Gram matrix of snapshots, one a row, computed in float64."""
    snapshots = np.asarray(snapshots, np.float64)
    basis = np.vstack([np.diff(snapshots, axis=0), snapshots[-1]])
    gram = pdt_optax.predictors.Gram(
        jnp.asarray(basis @ basis.T, jnp.float32), jnp.array(basis.shape[1], jnp.float32)
    )
    return basis, gram


def displacements(predictor, snapshots, horizon):
    basis, gram = history(snapshots)
    coefficients = np.asarray(jax.jit(predictor, static_argnums=1)(gram, horizon), np.float64)
    assert coefficients.shape == (horizon, len(snapshots))
    return coefficients @ basis


def linear_system(eigenvalues, steps, size=30, offset=0.0):
    """Trajectory of a linear map with the given real eigenvalues, about `offset`."""
    modes = np.random.default_rng(0).normal(size=(len(eigenvalues), size))
    powers = np.asarray(eigenvalues)[None] ** np.arange(steps)[:, None]
    return powers @ modes + offset


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("svd_rank", [-1, 2])
def test_dmd_continues_a_linear_system(svd_rank, exact):
    path = linear_system([0.97, 0.6], steps=12)
    snapshots = path[:3] if svd_rank == -1 else path[:5]
    predictor = pdt_optax.predictors.dmd(svd_rank, exact=exact)
    expected = path[len(snapshots) : len(snapshots) + 5] - snapshots[-1]
    error = displacements(predictor, snapshots, 5) - expected
    assert np.abs(error).max() < 2e-4 * np.abs(expected).max()


@pytest.mark.parametrize("svd_rank", [-1, 2])
def test_affine_dmd_continues_a_linear_system_about_any_point(svd_rank):
    path = linear_system([0.9, 0.5], steps=12, offset=50.0)
    snapshots = path[:4] if svd_rank == -1 else path[:6]
    expected = path[len(snapshots) : len(snapshots) + 4] - snapshots[-1]
    error = displacements(pdt_optax.predictors.affine_dmd(svd_rank), snapshots, 4) - expected
    assert np.abs(error).max() < 1e-3 * np.abs(expected).max()


def test_rotating_modes_have_complex_eigenvalues():
    angle, modes = 0.3, np.random.default_rng(0).normal(size=(2, 30))
    phases = angle * np.arange(10)
    path = 0.9 ** np.arange(10)[:, None] * (
        np.cos(phases)[:, None] * modes[0] + np.sin(phases)[:, None] * modes[1]
    )
    predictor = pdt_optax.predictors.dmd()
    expected = path[3:8] - path[2]
    np.testing.assert_allclose(displacements(predictor, path[:3], 5), expected, atol=1e-4)
    eigenvalues = np.linalg.eigvals(predictor.solve(history(path[:3])[1], 1)[1])
    np.testing.assert_allclose(np.abs(eigenvalues), [0.9, 0.9], rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.angle(eigenvalues)), [0.3, 0.3], rtol=1e-4)


@pytest.mark.parametrize(
    ("predictor", "expected"),
    [
        (pdt_optax.predictors.linear(), [2.0, 4.0]),
        (pdt_optax.predictors.last_increment(), [3.0, 6.0]),
        (pdt_optax.predictors.average(), [-3.0, -3.0]),
    ],
)
def test_controls_by_hand(predictor, expected):
    """Snapshots 1, 2, 4, 7: mean 3.5, slope 2, last step 3; the second coordinate is doubled."""
    snapshots = np.outer([1.0, 2.0, 4.0, 7.0], [1.0, 2.0])
    if expected[0] < 0:
        expected = [-3.5, -3.5]
    result = displacements(predictor, snapshots, 2)
    np.testing.assert_allclose(result, np.outer(expected, [1.0, 2.0]), rtol=1e-6)


def test_singular_directions_by_energy():
    """Singular values 2 and 1: the first holds 4/5 of the energy."""
    orthogonal = np.zeros((3, 6))
    orthogonal[0, 0], orthogonal[1, 1], orthogonal[2, 2] = 2.0, 1.0, 1.0
    _, gram = history(orthogonal)
    for energy, rank in ((0.5, 1), (0.79, 1), (0.81, 2), (0.999, 2)):
        operator = np.asarray(pdt_optax.predictors.dmd(energy, exact=False).solve(gram, 1)[1])
        assert np.linalg.matrix_rank(operator + 10 * np.diag(np.abs(np.diag(operator)) > 0)) <= rank
        assert np.count_nonzero(np.abs(operator).sum(axis=0) + np.abs(operator).sum(axis=1)) <= rank


@pytest.mark.parametrize(
    "predictor", [pdt_optax.predictors.dmd(), pdt_optax.predictors.affine_dmd()]
)
@pytest.mark.parametrize(
    "snapshots",
    [
        np.zeros((5, 4)),
        np.ones((5, 4)),
        np.vstack([np.ones((4, 4)), np.zeros((1, 4))]),
        np.vstack([np.arange(4.0)[None]] * 3 + [np.ones((1, 4))] * 2),
        np.outer(np.arange(5.0), np.ones(4)),
        np.arange(5.0)[:, None],
    ],
    ids=["zero", "constant", "then zero", "one jump", "straight line", "one coordinate"],
)
def test_degenerate_histories_give_finite_coefficients(predictor, snapshots):
    coefficients = displacements(predictor, snapshots, 3)
    chex.assert_tree_all_finite(coefficients)
    assert np.abs(coefficients).max() < 1e4


def test_far_from_the_origin_float32_is_as_good_as_near():
    """Increments 1e6 times smaller than the weights, as late in a decayed schedule."""
    rng = np.random.default_rng(1)
    increments = rng.normal(size=(4, 500))
    for distance in (1e2, 1e6):
        start = distance * rng.normal(size=500)
        snapshots = np.vstack([start, start + np.cumsum(increments, axis=0)])
        basis, gram = history(snapshots)
        exact = pdt_optax.predictors.Gram(np.asarray(basis @ basis.T), np.array(500.0))
        with jax.enable_x64(True):
            expected = (
                np.asarray(pdt_optax.predictors.dmd()(jax.tree.map(jnp.asarray, exact), 5)) @ basis
            )
        result = np.asarray(pdt_optax.predictors.dmd()(gram, 5), np.float64) @ basis
        assert np.linalg.norm(result - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "snapshots", [[[3, 1], [1, 2], [0, 1], [0, 0]], [[3, 1], [1, 2], [1, 2], [0, 1]]]
)
def test_units_do_not_matter_where_a_column_of_the_basis_is_zero(snapshots):
    """Weights that end at the origin, and a snapshot that repeats the one before."""
    snapshots = np.array(snapshots, np.float64)
    large = displacements(pdt_optax.predictors.dmd(), snapshots, 3)
    small = displacements(pdt_optax.predictors.dmd(), 2.0**-30 * snapshots, 3)
    assert np.abs(large).max() > 0
    np.testing.assert_array_equal(small, 2.0**-30 * large)


def test_rounding_of_parallel_snapshots_is_no_direction():
    """Found by fuzzing: a history that moved once and ended at the origin."""
    matrix = np.zeros((7, 7))
    matrix[4, 4] = 9928599987016.908 * 2**20
    with jax.enable_x64(True):
        gram = pdt_optax.predictors.Gram(jnp.asarray(matrix), jnp.asarray(7.0))
        coefficients = np.asarray(jax.jit(pdt_optax.predictors.dmd(), static_argnums=1)(gram, 50))
    np.testing.assert_allclose(coefficients, 0, atol=1e-12)


@pytest.mark.parametrize("horizon", [5, 7, 13, 14, 15, 30])
def test_the_last_point_of_a_path_is_the_horizon_itself(horizon):
    """Along a straight line the jump is just as far as the bound of `paper` asks for."""
    tx = extrapolating(1, horizon=horizon, predictor="last_increment")
    params = jnp.zeros(2)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(5):
        updates, state = update(jnp.ones(2), state, params)
        params = optax.apply_updates(params, updates)
    assert pdt_optax.metrics(state).mask_ratio == 1
    np.testing.assert_array_equal(params, np.full(2, 4 + horizon))


@pytest.mark.parametrize(
    "call",
    [
        lambda short: pdt_optax.dynamics.predicted_path([jnp.ones(2)] * 3, 3, predictor=short),
        lambda short: pdt_optax.dynamics.prediction_errors(
            [jnp.ones(2)] * 6, horizon=3, predictor=short
        ),
    ],
)
def test_coefficients_of_another_shape(call):
    def short(gram, horizon):
        return jnp.zeros((horizon - 1, gram.matrix.shape[-1]))

    with pytest.raises(ValueError, match=r"coefficients of shape \(horizon, h\) = \(3, "):
        call(short)


@pytest.mark.parametrize(("size", "count"), [(1, 5), (2, 5), (3, 9), (4, 5), (6, 12), (40, 5)])
@pytest.mark.filterwarnings("ignore:SVD optimal rank is 0")
def test_gavish_donoho_of_few_coordinates_is_that_of_pydmd(size, count):
    """Of n coordinates and h - 1 snapshots the median is taken of min(n, h - 1) values."""
    rng = np.random.default_rng(0)
    snapshots = np.cumsum(rng.normal(size=(count, size)) * 3 + 1, axis=0)
    mixed = snapshots[:, :1] * rng.normal(size=size - 1)
    snapshots[:, 1:] = mixed + 0.05 * rng.normal(size=(count, size - 1))
    expected = pydmd.utils.compute_rank(snapshots[:-1].T, 0)
    found = pdt_optax.dynamics.spectrum(
        list(jnp.asarray(snapshots, jnp.float32)), predictor=pdt_optax.predictors.dmd(0)
    )
    assert found.rank[0] == expected
