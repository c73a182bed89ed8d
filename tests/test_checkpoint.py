"""Checkpoints by orbax: every kind of restore goes on bit for bit; a changed history is named."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import pdt_optax

OPTIONS = {"start": 3, "history": 4, "interval": 0, "rollback": True, "scope": "leaf"}


def make_tx(**options):
    adam = optax.masked(optax.adam(0.02), {"w": True, "n": False})
    return optax.chain(adam, pdt_optax.pdt(2, **OPTIONS | options))


def initial(tx):
    params = {"w": jax.random.normal(jax.random.key(0), (16, 8)), "n": jnp.arange(3)}
    return {"params": params, "opt_state": tx.init(params)}


def loss(w):
    return jnp.mean((w @ jnp.linspace(-1, 1, 8) - 1) ** 2)


def make_step(tx):
    def step(train_state):
        params, opt_state = train_state["params"], train_state["opt_state"]
        value, grad = jax.value_and_grad(loss)(params["w"])
        grads = {"w": grad, "n": jnp.zeros_like(params["n"])}
        updates, opt_state = tx.update(grads, opt_state, params, value=value)
        return {"params": optax.apply_updates(params, updates), "opt_state": opt_state}

    return step


TX = make_tx()
STEP = jax.jit(make_step(TX))


def train(train_state, steps):
    for _ in range(steps):
        train_state = STEP(train_state)
    return train_state


def assert_same_bits(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Saved after 9 of 20 steps, in the middle of a period, between two jumps."""
    path = tmp_path_factory.mktemp("checkpoint") / "step_9"
    saved = train(initial(TX), 9)
    assert pdt_optax.metrics(saved["opt_state"]).mask_ratio > 0
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, saved)
    return path, train(saved, 11)


def restore(path, *target):
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, *target)


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "untyped"])
def test_resumed_run_is_bit_identical(checkpoint, typed):
    path, expected = checkpoint
    abstract = jax.eval_shape(lambda: initial(TX))
    restored = restore(path, abstract) if typed else restore(path)
    resumed = train(pdt_optax.state.restore_types(restored, abstract), 11)
    assert_same_bits(resumed, expected)
    assert pdt_optax.metrics(resumed["opt_state"]).predictions > 4


@pytest.mark.parametrize("shape", [(8, 1), (2, 2)], ids=["fsdp on 8", "both axes on 4"])
def test_restored_onto_another_mesh(checkpoint, shape):
    path, expected = checkpoint
    mesh = jax.make_mesh(shape, ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    replicated = NamedSharding(mesh, P())
    params = initial(TX)["params"]
    shardings = {"w": NamedSharding(mesh, P("x", "y")), "n": replicated}
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        params,
        shardings,
    )
    shardings = {"params": shardings, "opt_state": pdt_optax.state.state_shardings(TX, placed)}
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(lambda: initial(TX)),
        shardings,
    )
    restored = restore(path, target)
    history = restored["opt_state"][-1].increments
    assert all(increment["w"].sharding == shardings["params"]["w"] for increment in history)
    assert_same_bits(jax.device_get(restored), jax.device_get(restore_as_saved(path)))
    resumed = train(restored, 11)
    np.testing.assert_allclose(resumed["params"]["w"], expected["params"]["w"], rtol=1e-4)


def restore_as_saved(path):
    return restore(path, jax.eval_shape(lambda: initial(TX)))


CHANGES = {
    "history": {"history": 5},
    "history_dtype": {"history_dtype": "bfloat16"},
    "rollback": {"rollback": False},
}


@pytest.mark.parametrize("argument", CHANGES)
def test_checkpoint_of_other_arguments(checkpoint, argument):
    """Named by the metadata before anything is read, by what was read, and by `update`."""
    path, _ = checkpoint
    tx = make_tx(**CHANGES[argument])
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata.tree
    target = jax.eval_shape(lambda: initial(tx))
    message = f"`{argument}` must be as it was when the state was made: "
    with pytest.raises(ValueError, match=message):
        pdt_optax.state.restore_types(metadata, target)
    with pytest.raises(ValueError, match=message):
        pdt_optax.state.restore_types(restore(path), target)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(make_step(tx), restore_as_saved(path))


def test_metadata_of_a_checkpoint_that_fits(checkpoint):
    path, _ = checkpoint
    target = jax.eval_shape(lambda: initial(TX))
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata.tree
    typed = pdt_optax.state.restore_types(metadata, target)
    assert typed["opt_state"][-1].anchor["w"].shape == (16, 8)


def test_a_python_number_beside_the_state_may_have_other_bits():
    state = pdt_optax.pdt(2).init(jnp.ones(3))
    target = jax.eval_shape(lambda: {"state": state, "epoch": 0})
    saved = {"state": state, "epoch": np.asarray(7, np.int64)}
    assert pdt_optax.state.restore_types(saved, target)["epoch"] == 7
    for wrong in (np.asarray([7]), np.asarray(7.0)):
        with pytest.raises(ValueError, match="epoch is "):
            pdt_optax.state.restore_types(saved | {"epoch": wrong}, target)
    with pytest.raises(ValueError, match="epoch is missing in `saved`"):
        pdt_optax.state.restore_types({"state": state}, {"state": state, "epoch": 0.5})


def test_other_groups_and_other_parameters():
    params = initial(TX)["params"]
    tx = pdt_optax.pdt(2, scope="leaf")
    two = {"w": params["w"], "n": params["w"]}
    with pytest.raises(ValueError, match=r"`scope` must be as .*operators is float32"):
        pdt_optax.pdt(2).update(two, tx.init(two), two)
    half = {"w": params["w"].astype("bfloat16"), "n": params["n"]}
    with pytest.raises(ValueError, match=r"`params` must be as .*anchor/w is float32"):
        tx.update(params, tx.init(params), half)


@pytest.mark.parametrize("dtypes", [("int8", "float8_e4m3fn"), ("int8", None), (None, "int8")])
def test_other_eight_bits(dtypes):
    weights = jnp.ones((4, 64))
    made, now = (pdt_optax.pdt(2, history_dtype=dtype) for dtype in dtypes)
    with pytest.raises(ValueError, match="`history_dtype` must be as"):
        pdt_optax.state.restore_types(made.init(weights), now.init(weights))


def test_scales_of_other_blocks():
    state = pdt_optax.pdt(2, history_dtype="int8").init(jnp.ones((4, 64)))
    with pytest.raises(ValueError, match=r"`history_dtype` must be as .*scales/0 is missing"):
        pdt_optax.state.restore_types(state._replace(scales=()), state)
