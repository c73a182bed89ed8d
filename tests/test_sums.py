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


def test_gram_of_groups_of_small_and_large_leaves():
    random = np.random.default_rng(0)
    columns = [
        [random.standard_normal(shape).astype(np.float32) + 1 for _ in range(3)] for shape in SHAPES
    ]
    columns[3] = [vector.astype(jnp.bfloat16) for vector in columns[3]]
    groups = [leaf % 2 for leaf in range(len(SHAPES))]

    def vectors(column):
        return [vector.astype(jnp.float32) for vector in column]

    @jax.jit
    def grams(columns):
        fast = _history.gram(columns, groups, 2, vectors=vectors)
        return fast, _history.gram_of_many(list(map(vectors, columns)), groups, 2)

    for gram in grams(jax.tree.map(jnp.asarray, columns)):
        for group in range(2):
            rows = np.concatenate(
                [
                    np.stack([vector.reshape(-1).astype(np.float64) for vector in column])
                    for column in columns[group::2]
                ],
                axis=1,
            )
            np.testing.assert_allclose(gram.matrix[group], rows @ rows.T, rtol=2e-6, atol=1e-5)
            assert gram.size[group] == rows.shape[1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_counts_are_exact(shape: tuple[int, ...]):
    leaf = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    @jax.jit
    def count(leaf):
        return _sums.over_groups(lambda column: [column[0] > 0], [[leaf]], [0], 1)

    assert count(leaf).tolist() == [[np.count_nonzero(leaf > 0)]]
