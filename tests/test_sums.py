"""Sums over leaves of all shapes, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdt_optax import _history, _sums

SHAPES = [(), (0,), (7,), (1024,), (4099,), (3, 5, 7), (300, 1000), (2, 50021), (100003, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gram_of_a_leaf(shape: tuple[int, ...]):
    random = np.random.default_rng(0)
    vectors = [random.standard_normal(shape).astype(np.float32) + 1 for _ in range(4)]
    gram = jax.jit(lambda column: _history.gram([column], [0], 1))(list(map(jnp.asarray, vectors)))
    rows = np.stack([vector.reshape(-1).astype(np.float64) for vector in vectors])
    np.testing.assert_allclose(gram.matrix[0], rows @ rows.T, rtol=2e-6, atol=1e-5)
    assert gram.size[0] == rows.shape[1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_counts_are_exact(shape: tuple[int, ...]):
    leaf = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    @jax.jit
    def count(leaf):
        return _sums.over_groups(
            lambda column: [(column[0] > 0).astype(jnp.int32)], [[leaf]], [0], 1
        )

    assert count(leaf).tolist() == [[np.count_nonzero(leaf > 0)]]
