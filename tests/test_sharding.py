"""PDT on eight devices: the same numbers, shardings of the parameters, small all-reduces only."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import optax
import pytest

import pdt_optax

MODES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
LAYOUTS = {
    "data": {"kernel": P(), "bias": P(), "out": P()},
    "fsdp": {"kernel": P(("x", "y")), "bias": P(("x", "y")), "out": P(("x", "y"))},
    "tensor": {"kernel": P(None, "y"), "bias": P("y"), "out": P("y", None)},
    "both": {"kernel": P("x", "y"), "bias": P("y"), "out": P("y", "x")},
}
TRANSFORMS = {
    "blind": {"start": 3, "history": 3},
    "verified": {"start": 3, "history": 3, "verify": pdt_optax.Verify(horizons=(2, 5))},
    "rollback": {"start": 3, "history": 3, "rollback": True, "scope": "leaf"},
    "streaming": {"start": 3, "history": pdt_optax.Streaming(2), "scope": "leaf"},
}


def initial_params():
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "kernel": jax.random.normal(keys[0], (16, 32)) / 4,
        "bias": jnp.zeros(32),
        "out": jax.random.normal(keys[1], (32, 8)) / 5,
    }


def batch():
    return (
        jax.random.normal(jax.random.key(2), (64, 16)),
        jax.random.normal(jax.random.key(3), (64, 8)),
    )


def loss_of_gathered(params, batch):
    """Explicit axes leave it to the program to gather the parameters."""
    return loss(jax.tree.map(lambda p: jax.sharding.reshard(p, P()), params), batch)


def loss(params, batch):
    inputs, targets = batch
    hidden = jnp.tanh(inputs @ params["kernel"] + params["bias"][None])
    return jnp.mean((hidden @ params["out"] - targets) ** 2)


def make_step(tx, loss):
    def step(params, state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = tx.update(
            grads, state, params, value=value, value_fn=lambda params: loss(params, batch)
        )
        return optax.apply_updates(params, updates), state

    return step


def train(tx, loss, params, state, batch, steps=8):
    step = jax.jit(make_step(tx, loss))
    for _ in range(steps):
        params, state = step(params, state, batch)
    return params, state


def collectives(compiled):
    """Kind of each collective of a compiled program, with the shapes that it moves."""
    pattern = r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)[-(]"
    found = re.findall(pattern, compiled.as_text())
    return [(kind, re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shapes)) for shapes, kind in found]


@pytest.fixture(params=MODES)
def mesh(request):
    return jax.make_mesh((2, 4), ("x", "y"), axis_types=(MODES[request.param],) * 2)


def place(mesh, layout):
    shardings = {name: NamedSharding(mesh, spec) for name, spec in LAYOUTS[layout].items()}
    return jax.device_put(initial_params(), shardings)


def make_tx(transform):
    return optax.chain(optax.adam(0.02), pdt_optax.pdt(1, **TRANSFORMS[transform]))


@functools.cache
def unsharded(transform):
    """Parameters and metrics of a run on one device."""
    tx, params = make_tx(transform), initial_params()
    params, state = train(tx, loss, params, tx.init(params), batch())
    return jax.device_get(params), pdt_optax.metrics(state)


@pytest.mark.parametrize(
    ("layout", "transform"),
    [(layout, "blind") for layout in LAYOUTS]
    + [("fsdp", "verified"), ("both", "rollback"), ("both", "streaming")],
)
def test_sharded_equals_unsharded(mesh, layout, transform):
    tx = make_tx(transform)
    params = place(mesh, layout)
    examples = jax.device_put(batch(), NamedSharding(mesh, P("x")))
    with jax.set_mesh(mesh):
        state = jax.jit(tx.init, out_shardings=pdt_optax.state.state_shardings(tx, params))(params)
        gathered = loss_of_gathered if mesh.are_all_axes_explicit else loss
        sharded, sharded_state = train(tx, gathered, params, state, examples)
    expected, expected_metrics = unsharded(transform)
    chex.assert_trees_all_close(jax.device_get(sharded), expected, rtol=1e-3, atol=1e-4)
    metrics = pdt_optax.metrics(sharded_state)
    assert metrics.predictions == expected_metrics.predictions > 1
    assert metrics.mask_ratio > 0 or transform == "verified"
    for tree in (sharded_state[-1].anchor, *sharded_state[-1].increments):
        for name, leaf in tree.items():
            assert leaf.sharding.is_equivalent_to(params[name].sharding, leaf.ndim)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_event_moves_one_matrix_of_products_and_one_vector_of_counts(mesh, layout):
    params = place(mesh, layout)
    tx = pdt_optax.pdt(1, scope="leaf")
    state = jax.jit(tx.init, out_shardings=pdt_optax.state.state_shardings(tx, params))(params)
    with jax.set_mesh(mesh):
        found = collectives(jax.jit(tx.update).lower(params, state, params).compile())
    products, masks = ("f32", f"{len(params)},{6 * 7 // 2}"), ("f32", f"{len(params)},1")
    expected = [("all-reduce", [products]), ("all-reduce", [masks])]
    assert found == ([] if layout == "data" else expected)


def test_state_of_a_mixed_tree_follows_it(mesh):
    sharding = NamedSharding(mesh, P("x"))
    params = {
        "weight": jax.ShapeDtypeStruct((8, 2), jnp.bfloat16, sharding=sharding),
        "count": jax.ShapeDtypeStruct((8,), jnp.int32, sharding=sharding),
    }
    tx = pdt_optax.pdt(1, rollback=True)
    shardings = pdt_optax.state.state_shardings(tx, params)
    assert shardings.anchor["weight"] == shardings.fallback["weight"] == sharding
    assert shardings.report.operators.is_fully_replicated
    assert jax.tree.structure(shardings) == jax.tree.structure(jax.eval_shape(tx.init, params))


def test_state_shardings_wants_shardings():
    with pytest.raises(ValueError, match="NamedSharding on every leaf"):
        pdt_optax.state.state_shardings(pdt_optax.pdt(1), {"weight": jnp.zeros(2)})
    with pytest.raises(ValueError, match="at least one leaf"):
        pdt_optax.state.state_shardings(pdt_optax.pdt(1), {})


@pytest.mark.parametrize("check_vma", [True, False])
def test_under_shard_map(check_vma):
    """With the record of what varies a leaf may also lie whole on each device."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    divided, whole = P("x"), P()
    specs = {"kernel": divided, "out": divided, "bias": whole if check_vma else divided}
    params = initial_params()

    def make(axis_name):
        return pdt_optax.pdt(
            1,
            start=3,
            history=3,
            horizon=2,
            interval=0,
            criteria=pdt_optax.criteria.path_sign(),
            axis_name=axis_name,
        )

    def run(tx):
        def body(carry, _):
            params, state = carry
            moves = jax.tree.map(lambda p: -0.1 * jnp.sin(2 * p), params)
            updates, state = tx.update(moves, state, params)
            return (optax.apply_updates(params, updates), state), None

        def program(params):
            params, state = jax.lax.scan(body, (params, tx.init(params)), length=6)[0]
            return params, pdt_optax.metrics(state)._replace(eigenvalues=None)[1:6]

        return program

    on_devices = jax.shard_map(
        run(make("x")),
        mesh=mesh,
        in_specs=(specs,),
        out_specs=(specs, (whole,) * 5),
        check_vma=check_vma,
    )
    sharded, report = jax.jit(on_devices)(params)
    expected, expected_report = jax.jit(run(make(None)))(params)
    chex.assert_trees_all_close(
        jax.device_get(sharded), jax.device_get(expected), rtol=5e-4, atol=3e-5
    )
    chex.assert_trees_all_close(
        jax.device_get(report), jax.device_get(expected_report), rtol=1e-3, atol=1e-3
    )
    assert report[0] > 1


def test_losses_that_differ_between_copies_of_a_model():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    tx = pdt_optax.pdt(1, verify=pdt_optax.Verify())

    def program(params, examples):
        def value_fn(params):
            return jnp.mean((params - examples) ** 2)

        return tx.update(params, tx.init(params), params, value_fn=value_fn)[0]

    on_devices = jax.shard_map(program, mesh=mesh, in_specs=(P(), P("x")), out_specs=P())
    with pytest.raises(ValueError, match=r"`value_fn` must be the same on all devices .* \['x'\]"):
        jax.eval_shape(on_devices, jnp.ones(8), jnp.ones(8))


def test_state_of_eight_bits_is_sharded_where_the_mesh_divides_it(mesh):
    sharding = NamedSharding(mesh, P("x", "y"))
    params = {
        "wide": jax.ShapeDtypeStruct((8, 1024), jnp.float32, sharding=sharding),
        "narrow": jax.ShapeDtypeStruct((8, 32), jnp.float32, sharding=sharding),
    }
    shardings = pdt_optax.state.state_shardings(pdt_optax.pdt(1, history_dtype="int8"), params)
    assert shardings.increments[0] == {"wide": sharding, "narrow": sharding}
    assert shardings.scales[0]["wide"] == sharding
    assert shardings.scales[0]["narrow"].spec == P("x", None)
    excluded = pdt_optax.state.state_shardings(
        pdt_optax.pdt(1, exclude={"wide": True, "narrow": False}), params
    )
    assert excluded.anchor["wide"].is_fully_replicated


def test_offloaded_equals_not_offloaded(mesh):
    """Bit for bit; increments stay in the memory of the host, all else in that of the devices."""
    params, trained = place(mesh, "both"), []
    tx = pdt_optax.pdt(1, start=3, history=3, criteria=pdt_optax.criteria.path_sign())

    def step(params, state):
        moves = jax.tree.map(lambda p: -0.1 * jnp.sin(2 * p), params)
        updates, state = tx.update(moves, state, params)
        return optax.apply_updates(params, updates), state

    for offload in (False, True):
        shardings = pdt_optax.state.state_shardings(tx, params, offload=offload)
        with jax.set_mesh(mesh):
            state = jax.jit(tx.init, out_shardings=shardings)(params)
            results = jax.tree.map(lambda p: p.sharding, params), shardings
            program = jax.jit(step, donate_argnums=1, out_shardings=results)
            weights = params
            for _ in range(6):
                weights, state = program(weights, state)
        trained.append((weights, state, pdt_optax.dynamics.snapshots(state)))
        for name, leaf in jax.tree.leaves_with_path(state._replace(increments=())):
            assert leaf.sharding.memory_kind == "device", name
        for leaf in jax.tree.leaves(state.increments):
            assert leaf.sharding.memory_kind == ("pinned_host" if offload else "device")
    assert pdt_optax.metrics(state).mask_ratio > 0
    chex.assert_trees_all_equal(*jax.device_get(trained))


def test_offload_needs_pinned_memory(monkeypatch):
    params = place(jax.make_mesh((8, 1), ("x", "y")), "data")
    monkeypatch.setattr("pdt_optax._sharding._HOST", "no such")
    with pytest.raises(ValueError, match="`offload` must be False where a device has no no such"):
        pdt_optax.state.state_shardings(pdt_optax.pdt(1), params, offload=True)
