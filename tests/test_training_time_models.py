"""Predictions for flax models, and over several devices."""

import os
import pathlib
import subprocess
import sys

from flax import linen, nnx
import jax
import numpy as np
import pytest

import pdt_optax

INPUTS = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
LABELS = np.arange(11) % 3

SHARDED = """
import jax, numpy as np
from pdt_optax import training_time
assert jax.device_count() == 4
random = np.random.default_rng(0)
params = {"w": random.normal(size=(4, 5)), "v": random.normal(size=(5, 3))}
params = jax.tree.map(np.float32, params)
apply = lambda p, x: jax.numpy.tanh(x @ p["w"]) @ p["v"]
inputs = random.normal(size=(10, 4)).astype(np.float32)
for form in ("exact", "class_block", "trace"):
    kernel = training_time.empirical_kernel(apply, params, inputs, kernel=form, num_cotangents=3)
    hidden = np.tanh(inputs.astype(float) @ params["w"])
    slope = (1 - hidden**2)[:, None, :] * params["v"].T[None]
    exact = np.einsum("iah,jbh,ij->iajb", slope, slope, inputs.astype(float) @ inputs.T)
    exact += np.einsum("ij,ab->iajb", hidden @ hidden.T, np.eye(3))
    blocks = np.einsum("iaja->aij", exact)
    expected = {"exact": exact, "class_block": blocks, "trace": blocks.mean(0)}[form]
    np.testing.assert_allclose(kernel.matrix, expected, rtol=1e-4, atol=1e-4)
prediction = training_time.predict_training_time(
    apply, params, (inputs, np.arange(10) % 3), loss="softmax_cross_entropy", learning_rate=0.1,
    batch_size=4, relative=0.7, max_steps=50, linearizations=2,
)
assert prediction.status == "reached"
"""


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(6)(x))
        return linen.Dense(3)(linen.relu(x))


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
        self.last = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.norm(self.first(x))))


def linen_model():
    variables = Linen().init(jax.random.key(0), INPUTS)
    stats = variables["batch_stats"]
    return lambda p, x: Linen().apply({"params": p, "batch_stats": stats}, x), variables["params"]


def nnx_model():
    graph, params, rest = nnx.split(NNX(nnx.Rngs(0)), nnx.Param, ...)
    return lambda p, x: nnx.merge(graph, p, rest)(x), params


@pytest.mark.parametrize("model", [linen_model, nnx_model])
def test_flax_models_with_batch_norm(model):
    apply_fn, params = model()
    prediction = pdt_optax.training_time.predict_training_time(
        apply_fn,
        params,
        (INPUTS, LABELS),
        loss="softmax_cross_entropy",
        learning_rate=0.1,
        relative=0.8,
        max_steps=200,
    )
    logits = np.asarray(apply_fn(params, INPUTS), np.float64)
    shifted = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(11), LABELS]
    assert prediction.initial_loss == pytest.approx(shifted.mean(), rel=1e-5)
    assert prediction.status == "reached"
    assert prediction.sample_gradients == 33


def test_batch_norm_in_training_mode_is_refused():
    variables = Linen().init(jax.random.key(0), INPUTS)

    def apply_fn(params, x):
        all_variables = {"params": params, "batch_stats": variables["batch_stats"]}
        return Linen().apply(all_variables, x, train=True, mutable=["batch_stats"])[0]

    with pytest.raises(ValueError, match="`apply_fn` must treat every example by itself"):
        pdt_optax.training_time.empirical_kernel(apply_fn, variables["params"], INPUTS)


@pytest.mark.slow
def test_examples_are_spread_over_devices():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    result = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env=environment,
        cwd=pathlib.Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
