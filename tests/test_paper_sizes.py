"""The published sizes: the whole step with PDT has sound shapes and lowers, on a mesh as well."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
import numpy as np
import optax
import pytest

from experiments import training, workloads
from experiments.data import ArrayDataset, Examples
from experiments.models import MODELS
import pdt_optax


def placeholder(shape: tuple[int, ...], num_classes: int) -> ArrayDataset:
    """One example a split, of the shape of the published data."""
    dtype = np.int32 if len(shape) == 1 else np.float32
    one = Examples(np.zeros((1, *shape), dtype), np.zeros(1, np.int32))
    return ArrayDataset(one, one, one, num_classes)


def lowered(name, shape, num_classes, batch_size, base, resolution=None, shard=lambda tree: tree):
    workload = workloads.create(MODELS[name], placeholder(shape, num_classes), resolution)
    tx = optax.chain(base, pdt_optax.pdt(100, verify=pdt_optax.Verify()))
    params, model_state = jax.eval_shape(functools.partial(workload.init, 0))
    params, model_state = shard((params, model_state))
    state = training.TrainState(params, model_state, shard(jax.eval_shape(tx.init, params)))
    inputs = (2, *shape) if name == "simsiam" else shape
    batch = Examples(
        jax.ShapeDtypeStruct((batch_size, *inputs), jnp.int32 if name == "lstm" else jnp.float32),
        jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    )
    step = training.train_step(workload, tx)
    after = jax.eval_shape(step, state, batch, batch)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, after)
    assert jax.tree.all(same)
    return jax.jit(step, donate_argnums=0).lower(state, batch, batch)


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "batch_size", "base", "resolution"),
    [
        ("fc2", (32, 32, 3), 10, 256, optax.sgd(0.01), 128),
        ("fc4", (32, 32, 3), 10, 256, optax.sgd(0.01), 128),
        ("fc6", (32, 32, 3), 10, 256, optax.sgd(0.01), 128),
        ("fully_convolutional", (32, 32, 3), 10, 256, optax.sgd(0.01), 128),
        ("alexnet", (32, 32, 3), 10, 256, optax.sgd(0.05), 128),
        ("resnet18", (32, 32, 3), 10, 256, optax.sgd(0.1), None),
        ("resnet50", (224, 224, 3), 1000, 1800, optax.sgd(0.1, momentum=0.9), None),
        ("simsiam", (32, 32, 3), 10, 256, optax.sgd(0.03, momentum=0.9), None),
        ("lstm", (50,), 4, 128, optax.sgd(0.1), None),
        ("vit_base", (224, 224, 3), 1000, 1800, optax.adamw(1e-3), None),
    ],
)
def test_a_step_of_the_published_size_lowers(
    name, shape, num_classes, batch_size, base, resolution
):
    assert lowered(name, shape, num_classes, batch_size, base, resolution).as_text()


def test_vit_huge_lowers_on_a_mesh():
    """Parameters and the whole state cut in eight along their longest axis; batch as well."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def cut(leaf: Any) -> jax.ShapeDtypeStruct:
        spec: list[str | None] = [None] * leaf.ndim
        if leaf.ndim and max(leaf.shape) % 8 == 0:
            spec[int(np.argmax(leaf.shape))] = "data"
        sharding = NamedSharding(mesh, jax.P(*spec))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    program = lowered(
        "vit_huge",
        (224, 224, 3),
        1000,
        1024,
        optax.adamw(1e-3),
        shard=functools.partial(jax.tree.map, cut),
    )
    state, _, _ = program.args_info[0]
    params = state.params
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == 632_045_800
    assert "mhlo.num_partitions = 8" in program.as_text()
