"""The small SVD against SciPy in float64, far beyond the range of ordinary ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from pdt_optax import _svd


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 11])
@pytest.mark.parametrize("grade", [0, 6, 12])
def test_every_singular_value_to_its_own_accuracy(size, grade):
    """Columns spread over `grade` orders; LAPACK in float32 loses all beyond seven."""
    rng = np.random.default_rng(size)
    scales = np.logspace(0, -grade, size)
    matrix = (rng.normal(size=(size + 1, size)) * scales).astype(np.float32)
    u, s, v = jax.jit(_svd.svd)(matrix)
    expected = scipy.linalg.qr(matrix.astype(float), mode="r")[0][:size]
    expected = scipy.linalg.svdvals(expected.T.astype(np.longdouble).astype(float))
    np.testing.assert_allclose(s, expected, rtol=1e-5 if grade < 12 else 1e-3)
    np.testing.assert_allclose(u.T @ u, np.eye(size), atol=2e-6)
    np.testing.assert_allclose(v.T @ v, np.eye(size), atol=2e-6)
    rebuilt = np.asarray(u, float) * np.asarray(s, float) @ np.asarray(v, float).T
    np.testing.assert_allclose(rebuilt / scales, matrix / scales, atol=1e-5)


def test_float64():
    matrix = np.random.default_rng(0).normal(size=(6, 5))
    with jax.enable_x64(True):
        _, s, _ = _svd.svd(jnp.asarray(matrix))
    np.testing.assert_allclose(s, scipy.linalg.svdvals(matrix), rtol=1e-14)


def test_rank_deficient():
    column = np.arange(1.0, 5.0, dtype=np.float32)[:, None]
    u, s, _ = _svd.svd(jnp.asarray(np.hstack([column, 2 * column, 0 * column])))
    np.testing.assert_allclose(s, [np.sqrt(5 * 30), 0, 0], atol=1e-5)
    assert np.isfinite(u).all()


def test_least_squares():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 4)) * [1e4, 1, 1, 1e-4], rng.normal(size=6)
    result = _svd.least_squares(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    np.testing.assert_allclose(result, scipy.linalg.lstsq(a, b)[0], rtol=1e-4)
