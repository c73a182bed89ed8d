"""IRE on eight devices equals IRE on one, with the same mask on all; and through a checkpoint."""

import functools

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import pdt_optax

LAYOUTS = {
    "data": {"kernel": P(), "bias": P(), "out": P()},
    "fsdp": {"kernel": P(("x", "y")), "bias": P(("x", "y")), "out": P(("x", "y"))},
    "both": {"kernel": P("x", "y"), "bias": P("y"), "out": P("y", "x")},
}
INPUTS = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 8, 64)


def initial_params():
    random = np.random.default_rng(2)
    return {
        "kernel": jnp.asarray(random.standard_normal((16, 32)) / 4, jnp.float32),
        "bias": jnp.zeros(32),
        "out": jnp.asarray(random.standard_normal((32, 8)) / 5, jnp.float32),
    }


def apply_fn(params, inputs):
    return jnp.tanh(inputs @ params["kernel"] + params["bias"][None]) @ params["out"]


def apply_gathered(params, inputs):
    """Explicit axes leave it to the program to gather the parameters."""
    return apply_fn(jax.tree.map(lambda p: jax.sharding.reshard(p, P()), params), inputs)


def make_tx(apply_fn):
    fisher = pdt_optax.ire.sampled_label_fisher(apply_fn, jax.random.key(0))
    ire = pdt_optax.ire.scale_by_ire(4.0, update_interval=3, warmup_steps=1, curvature_fn=fisher)
    return optax.chain(optax.adamw(0.02), ire)


def train(apply_fn, params, state, inputs, labels, steps=8):
    tx = make_tx(apply_fn)

    def loss(params):
        logits = apply_fn(params, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params, inputs=inputs)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params, state


@functools.cache
def on_one_device():
    params = initial_params()
    return train(apply_fn, params, make_tx(apply_fn).init(params), INPUTS, LABELS)


@pytest.mark.parametrize(
    ("layout", "axis_type"),
    [("data", AxisType.Auto), ("fsdp", AxisType.Auto), ("both", AxisType.Explicit)],
)
def test_sharded_equals_unsharded(layout, axis_type):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(axis_type,) * 2)
    shardings = {name: NamedSharding(mesh, spec) for name, spec in LAYOUTS[layout].items()}
    params = jax.device_put(initial_params(), shardings)
    batch = jax.device_put((INPUTS, LABELS), NamedSharding(mesh, P("x")))
    apply = apply_gathered if axis_type is AxisType.Explicit else apply_fn
    with jax.set_mesh(mesh):
        tx = make_tx(apply)
        state = jax.jit(tx.init, out_shardings=pdt_optax.state.state_shardings(tx, params))(params)
        sharded, state = train(apply, params, state, *batch)

    expected, expected_state = on_one_device()
    chex.assert_trees_all_close(
        jax.device_get(sharded), jax.device_get(expected), rtol=1e-3, atol=1e-4
    )
    chex.assert_trees_all_equal(
        jax.device_get(state[-1].flat), jax.device_get(expected_state[-1].flat)
    )
    for name, flat in state[-1].flat.items():
        assert flat.sharding.is_equivalent_to(shardings[name], flat.ndim)
        pieces = {}
        for shard in flat.addressable_shards:
            first = pieces.setdefault(str(shard.index), np.asarray(shard.data))
            np.testing.assert_array_equal(np.asarray(shard.data), first)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    params = initial_params()
    state = make_tx(apply_fn).init(params)
    expected = on_one_device()
    half = train(apply_fn, params, state, INPUTS, LABELS, steps=5)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", half)
        checkpointer.wait_until_finished()
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, (params, state))
        restored = checkpointer.restore(tmp_path / "state", shapes)
    chex.assert_trees_all_equal(train(apply_fn, *restored, INPUTS, LABELS, steps=3), expected)
