"""Sums over leaves of all shapes, against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suites import AS_FOR_USERS

from pdt_optax import _basis, _sums
from pdt_optax._layout import LARGEST_SMALL, Layout

SHAPES = [(), (0,), (7,), (1024,), (4099,), (3, 5, 7), (300, 1000), (2, 50021), (100003, 1)]
GROUPS = {
    "one": [0] * len(SHAPES),
    "two": [leaf % 2 for leaf in range(len(SHAPES))],
    "small and large": [int(np.prod(shape) > LARGEST_SMALL) for shape in SHAPES],
}
LARGE = [n for n, shape in enumerate(SHAPES) if not 0 < np.prod(shape) <= 4096]  # Or empty.


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gram_of_a_leaf(shape: tuple[int, ...]):
    random = np.random.default_rng(0)
    vectors = [random.standard_normal(shape).astype(np.float32) + 1 for _ in range(4)]
    rows = np.stack([vector.reshape(-1).astype(np.float64) for vector in vectors])
    for joins in (False, True):
        layout = Layout(vectors[0], joins=joins)

        @functools.partial(jax.jit, compiler_options=AS_FOR_USERS)
        def gram(vectors, layout=layout):
            return _basis.gram(columns_of(layout, vectors), layout.ids([0]), 1)

        found = gram([[jnp.asarray(vector)] for vector in vectors])
        np.testing.assert_allclose(found[0], rows @ rows.T, rtol=2e-6, atol=1e-5)
        blocks = layout.blocks([vectors[0]])
        assert _basis.group_sizes(layout, ([0], 1), blocks, None) == [rows.shape[1]]


def columns_of(layout, vectors):
    """Of each block of the layout its arrays, from a list of leaves for each vector."""
    found = []
    for column in zip(*map(layout.blocks, vectors), strict=True):
        column = [array.astype(jnp.float32) for array in column]
        is_rows = layout.small and not found
        found.append(jnp.stack(column) if is_rows else column)
    return found


@pytest.mark.parametrize("division", GROUPS)
def test_gram_of_groups_of_small_and_large_leaves(division):
    """Small leaves of another dtype lie by themselves."""
    random, groups = np.random.default_rng(0), GROUPS[division]
    vectors = [
        [random.standard_normal(shape).astype(np.float32) + 1 for shape in SHAPES] for _ in range(3)
    ]
    for vector in vectors:
        vector[3] = vector[3].astype(jnp.bfloat16)
    layout, count = Layout(vectors[0]), len(set(groups))
    assert layout.large == sorted([3, *LARGE])

    @functools.partial(jax.jit, compiler_options=AS_FOR_USERS)
    def gram(vectors):
        return _basis.gram(columns_of(layout, vectors), layout.ids(groups), count)

    found = gram(jax.tree.map(jnp.asarray, vectors))
    sizes = _basis.group_sizes(layout, (groups, count), layout.blocks(vectors[0]), None)
    for group in range(count):
        members = [leaf for leaf, own in enumerate(groups) if own == group]
        rows = np.stack(
            [
                np.concatenate([vector[leaf].reshape(-1).astype(np.float64) for leaf in members])
                for vector in vectors
            ]
        )
        np.testing.assert_allclose(found[group], rows @ rows.T, rtol=2e-6, atol=1e-5)
        assert sizes[group] == rows.shape[1]


@pytest.mark.parametrize("joins", [False, True])
def test_counts_are_exact(joins):
    """Of each leaf by itself."""
    random = np.random.default_rng(0)
    leaves = [random.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    layout = Layout(leaves, joins=joins)
    assert layout.large == (LARGE if joins else list(range(len(SHAPES))))
    ids = layout.ids(range(len(leaves)))

    @functools.partial(jax.jit, compiler_options=AS_FOR_USERS)
    def count(leaves):
        blocks = layout.blocks(leaves)
        sums = [_sums.of_block([block > 0], of) for block, of in zip(blocks, ids, strict=True)]
        return _sums.by_group(sums, ids, len(leaves))

    assert count(leaves)[:, 0].tolist() == [np.count_nonzero(leaf > 0) for leaf in leaves]
