"""Refreshed running statistics are those of the current parameters."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest

from experiments import batch_norm
from experiments.runs import records


class Model(nnx.Module):
    def __init__(self):
        self.layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(2, momentum=0.9, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.norm(self.layer(x))


def test_refreshed_statistics_are_means_over_the_batches():
    model = Model()
    model.eval()
    batches = np.random.default_rng(0).normal(size=(4, 8, 3)).astype(np.float32)
    kernel = np.asarray(model.layer.kernel[...])
    batch_norm.refresh_statistics(model, map(jnp.asarray, batches))
    outputs = batches @ kernel
    np.testing.assert_allclose(model.norm.mean[...], outputs.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(model.norm.var[...], outputs.var(axis=1).mean(axis=0), rtol=1e-5)
    assert model.norm.use_running_average
    assert model.norm.momentum == 0.9
    np.testing.assert_array_equal(model.layer.kernel[...], kernel)


def test_no_batches():
    model = Model()
    before = jax.tree.map(jnp.copy, nnx.state(model))
    with pytest.raises(ValueError, match="`inputs` must hold at least one batch"):
        batch_norm.refresh_statistics(model, [])
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, nnx.state(model)))
    assert not model.norm.use_running_average


def test_a_jump_makes_stale_statistics_useless_and_refreshed_ones_not():
    jumps = [row for row in records.read_rows(pages.RESULTS / "batch_norm") if row["jumped"]]
    assert max(row["stale"] for row in jumps) > 5
    assert max(row["refreshed"] for row in jumps) < 1
