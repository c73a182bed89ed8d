"""The studies of the paper at its own sizes: whole steps have sound shapes and lower.

The largest networks only with PDT_SMOKE=1.
"""

import functools
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
import numpy as np
import pytest

from experiments.configs import paper
from experiments.data import ArrayDataset, Examples
from experiments.models import MODELS
from experiments.runs import training, workloads
from experiments.runs.arms import build_arms
from experiments.runs.step import TrainState, train_step

pytestmark = pytest.mark.slow
SHAPES = {
    "cifar10": ((32, 32, 3), 10),
    "imagenet2012": ((224, 224, 3), 1000),
    "ag_news_subset": ((50,), 4),
}
RUNS = [(study, run) for study, runs in paper.STUDIES.items() for run in runs]
LARGE = ("resnet50", "simsiam", "vit_base", "vit_huge") if not os.environ.get("PDT_SMOKE") else ()
LOWERED = [
    (study, run)
    for study, run in RUNS
    if study in ("table1", "table3", "figure2") and run not in LARGE
]
NUMBERS = {"vit_base": 86_567_656, "vit_huge": 632_045_800, "alexnet": 57_044_810}


class Placeholder(ArrayDataset):
    """One example a split, and as many steps as a large data set has."""

    def steps_per_epoch(self, batch_size: int) -> int:
        return 50_000 // batch_size


def published(study: str, run: str) -> tuple[workloads.Workload, list[training.Arm], int]:
    """What the configuration of a run says, on data of the right shape; its batch size."""
    config = paper.STUDIES[study][run]
    shape, num_classes = SHAPES[config.dataset]
    dtype = np.int32 if len(shape) == 1 else np.float32
    one = Examples(np.zeros((1, *shape), dtype), np.zeros(1, np.int32))
    data = Placeholder(one, one, one, num_classes)
    workload = workloads.create(MODELS[config.model], data, config.resolution)
    return workload, build_arms(config, workload), config.batch_size


def lowered(study: str, run: str, shard: Any = lambda tree: tree) -> Any:
    """The step with PDT, from shapes alone; all that it changes keeps its shape and type."""
    workload, arms, batch_size = published(study, run)
    (arm,) = [arm for arm in arms if arm.name == "reference"]
    shape = workload.dataset.input_shape
    inputs = (2, *shape) if run == "simsiam" else shape
    batch = Examples(
        jax.ShapeDtypeStruct((batch_size, *inputs), workload.dataset.train.inputs.dtype),
        jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    )
    params, model_state = shard(jax.eval_shape(functools.partial(workload.init, 0)))
    opt_state = shard(jax.eval_shape(arm.optimizer.init, params))
    state = TrainState(params, model_state, opt_state)
    step = train_step(workload.loss, arm.optimizer, workload.score)
    after = jax.eval_shape(step, state, batch, batch)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, after)
    assert jax.tree.all(same)
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert size == NUMBERS.get(run, size)
    return jax.jit(step, donate_argnums=0).lower(state, batch, batch)


@pytest.mark.parametrize(("study", "run"), RUNS)
def test_configurations_have_arms(study, run):
    _, arms, _ = published(study, run)
    names = {arm.name for arm in arms}
    assert names == {"base", "random_subset"} or {"base", "reference"} <= names


@pytest.mark.parametrize(
    ("study", "run"), [pair for pair in LOWERED if pair != ("table1", "vit_huge")]
)
def test_a_step_of_the_published_size_lowers(study, run):
    assert lowered(study, run).as_text()


@pytest.mark.skipif("vit_huge" in LARGE, reason="takes a minute; set PDT_SMOKE=1")
def test_vit_huge_lowers_on_a_mesh():
    """Parameters and the whole state cut in eight along their longest axis."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def cut(leaf: Any) -> jax.ShapeDtypeStruct:
        spec: list[str | None] = [None] * leaf.ndim
        if leaf.ndim and max(leaf.shape) % 8 == 0:
            spec[int(np.argmax(leaf.shape))] = "data"
        sharding = NamedSharding(mesh, jax.P(*spec))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    program = lowered("table1", "vit_huge", functools.partial(jax.tree.map, cut))
    assert "mhlo.num_partitions = 8" in program.as_text()
