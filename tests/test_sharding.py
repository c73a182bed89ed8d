"""PDT on eight devices: the same numbers, shardings of the parameters, small all-reduces only."""

import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import optax
import pytest
from ring import anchor, in_time
from transforms import extrapolating, verifying, way_back

import pdt_optax

MODES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
LAYOUTS = {
    "data": {"kernel": P(), "bias": P(), "out": P()},
    "fsdp": {"kernel": P(("x", "y")), "bias": P(("x", "y")), "out": P(("x", "y"))},
    "tensor": {"kernel": P(None, "y"), "bias": P("y"), "out": P("y", None)},
    "both": {"kernel": P("x", "y"), "bias": P("y"), "out": P("y", "x")},
}
COMMON = {"start": 3, "history": 3}
TRANSFORMS = {
    "blind": lambda: extrapolating(1, **COMMON),
    "verified": lambda: verifying(1, horizons=(2, 5), interval=1, **COMMON),
    "rollback": lambda: extrapolating(1, scheduler=way_back(), scope="leaf", **COMMON),
    "streaming": lambda: extrapolating(1, start=3, history=pdt_optax.Streaming(2), scope="leaf"),
}
COPIES = 32, 8  # Of inputs and of hidden units: a small network with a leaf of 2**17 numbers.


def initial_params():
    """A leaf that is stored by itself, and two small ones."""
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "kernel": jnp.tile(jax.random.normal(keys[0], (16, 32)) / 4, COPIES),
        "bias": jnp.zeros(32 * COPIES[1]),
        "out": jnp.tile(jax.random.normal(keys[1], (32, 8)) / 5, (COPIES[1], 1)),
    }


def batch():
    inputs = jax.random.normal(jax.random.key(2), (64, 16))
    return jnp.tile(inputs, (1, COPIES[0])), jax.random.normal(jax.random.key(3), (64, 8))


def loss_of_gathered(params, batch):
    """Explicit axes leave it to the program to gather the parameters."""
    return loss(jax.tree.map(lambda p: jax.sharding.reshard(p, P()), params), batch)


def loss(params, batch):
    inputs, targets = batch
    hidden = jnp.tanh(inputs @ params["kernel"] / COPIES[0] + params["bias"][None])
    return jnp.mean((hidden @ params["out"] / COPIES[1] - targets) ** 2)


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
    """Kind of each collective of a compiled program, with the bytes of what it gives."""
    pattern = r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)[-(]"
    found = re.findall(pattern, compiled.as_text())
    return [(kind, sum(map(size, re.findall(r"[a-z]+\d*\[[\d,]*\]", s)))) for s, kind in found]


def size(shape):
    """Bytes of an array of a compiled program, such as f32[3,4]."""
    bits, numbers = re.fullmatch(r"[a-z]+(\d*)\[([\d,]*)\]", shape).groups()
    return int(bits or 8) // 8 * math.prod(map(int, filter(None, numbers.split(","))))


def make_mesh(mode="auto"):
    return jax.make_mesh((2, 4), ("x", "y"), axis_types=(MODES[mode],) * 2)


def place(mesh, layout, *, divides_small=True):
    params, specs = initial_params(), LAYOUTS[layout]
    shardings = {
        name: NamedSharding(mesh, specs[name] if divides_small or name == "kernel" else P())
        for name in params
    }
    return jax.device_put(params, shardings)


def make_tx(transform):
    return optax.chain(optax.adam(0.02), TRANSFORMS[transform]())


@functools.cache
def unsharded(transform):
    """Parameters and metrics of a run on one device."""
    tx, params = make_tx(transform), initial_params()
    params, state = train(tx, loss, params, tx.init(params), batch())
    return jax.device_get(params), pdt_optax.metrics(state)


@pytest.mark.parametrize(
    ("mode", "layout", "transform"),
    [
        ("auto", "tensor", "blind"),
        ("auto", "fsdp", "verified"),
        ("auto", "both", "rollback"),
        ("explicit", "both", "blind"),
        *[
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("auto", "data", "blind"),
                ("auto", "fsdp", "blind"),
                ("auto", "both", "blind"),
                ("auto", "both", "streaming"),
                ("explicit", "both", "streaming"),
                ("explicit", "fsdp", "verified"),
                ("explicit", "tensor", "rollback"),
            )
        ],
    ],
)
def test_sharded_equals_unsharded(mode, layout, transform):
    mesh = make_mesh(mode)
    tx = make_tx(transform)
    params = place(mesh, layout)
    examples = jax.device_put(batch(), NamedSharding(mesh, P("x")))
    with jax.set_mesh(mesh):
        state = jax.jit(tx.init, out_shardings=pdt_optax.state.state_shardings(tx, params))(params)
        gathered = loss_of_gathered if AxisType.Explicit in mesh.axis_types else loss
        sharded, sharded_state = train(tx, gathered, params, state, examples)
    expected, expected_metrics = unsharded(transform)
    chex.assert_trees_all_close(jax.device_get(sharded), expected, rtol=1e-3, atol=1e-4)
    metrics = pdt_optax.metrics(sharded_state)
    assert metrics.predictions == expected_metrics.predictions > 1
    assert metrics.mask_ratio > 0 or transform == "verified"
    history = sharded_state[-1].history
    for tree in (history.anchor, *history.increments):
        assert tree["kernel"].sharding.is_equivalent_to(params["kernel"].sharding, 2)
        assert not jax.tree.leaves((tree["bias"], tree["out"]))
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(history.rows))
    held = jax.device_get(anchor(sharded_state[-1], params))
    chex.assert_trees_all_equal(held, jax.device_get(sharded))
    assert transform == "streaming" or len(in_time(sharded_state[-1], params)) == 2


EVENTS = [
    (mode, layout, transform, divides_small)
    for mode, layout in [*[("auto", layout) for layout in LAYOUTS], ("explicit", "both")]
    for transform in ("blind", "verified")
    for divides_small in (False, True)
]
QUICK_EVENTS = [
    ("auto", "data", "blind", True),
    ("auto", "fsdp", "verified", False),
    ("auto", "tensor", "blind", True),
    ("auto", "both", "blind", False),
    ("explicit", "both", "blind", True),
]


@pytest.mark.parametrize(
    ("mode", "layout", "transform", "divides_small"),
    [
        pytest.param(*case, marks=() if case in QUICK_EVENTS else pytest.mark.slow)
        for case in EVENTS
    ],
)
def test_an_event_moves_sums_and_no_large_leaf(mode, layout, transform, divides_small):
    """At most four sums, of less than 64 KiB in all; small leaves that are divided are joined.

    Before it, in the first step of the period, two numbers are summed over each axis.
    """
    mesh = make_mesh(mode)
    params = place(mesh, layout, divides_small=divides_small)
    tx = {
        "blind": lambda: pdt_optax.pdt(1, scope="leaf"),
        "verified": lambda: pdt_optax.pdt(1, pdt_optax.Verify(), scope="leaf"),
    }[transform]()
    state = jax.jit(tx.init, out_shardings=pdt_optax.state.state_shardings(tx, params))(params)
    update = jax.jit(functools.partial(tx.update, value_fn=lambda _: 1.0))
    with jax.set_mesh(mesh):
        found = collectives(update.lower(params, state, params).compile())
    sums = [moved for kind, moved in found if kind == "all-reduce"]
    others = [moved for kind, moved in found if kind != "all-reduce"]
    assert len([moved for moved in sums if moved != 8]) <= 4
    assert len(sums) <= 6
    assert sum(sums) < 2**16
    assert (layout == "data") == (not found)
    assert all(moved <= 2**14 for moved in others)
    assert divides_small or not others


def test_state_of_a_mixed_tree_follows_it():
    mesh = make_mesh()
    sharding = NamedSharding(mesh, P("x"))
    params = {
        "weight": jax.ShapeDtypeStruct((2**16, 2), jnp.bfloat16, sharding=sharding),
        "bias": jax.ShapeDtypeStruct((8,), jnp.bfloat16, sharding=sharding),
        "count": jax.ShapeDtypeStruct((8,), jnp.int32, sharding=sharding),
    }
    tx = extrapolating(1, scheduler=way_back())
    shardings = pdt_optax.state.state_shardings(tx, params)
    assert shardings.history.anchor["weight"] == sharding
    assert shardings.schedule.fallback["weight"] == sharding
    assert shardings.schedule.fallback["bias"] == sharding
    assert shardings.report.operators.is_fully_replicated
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(shardings.history.rows))
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
        return extrapolating(
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
        jax.device_get(sharded), jax.device_get(expected), rtol=1e-3, atol=3e-5
    )
    chex.assert_trees_all_close(
        jax.device_get(report), jax.device_get(expected_report), rtol=2e-3, atol=1e-3
    )
    assert report[0] > 1


def test_losses_that_differ_between_copies_of_a_model():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    tx = pdt_optax.pdt(1, pdt_optax.Verify())

    def program(params, examples):
        def value_fn(params):
            return jnp.mean((params - examples) ** 2)

        return tx.update(params, tx.init(params), params, value_fn=value_fn)[0]

    on_devices = jax.shard_map(program, mesh=mesh, in_specs=(P(), P("x")), out_specs=P())
    with pytest.raises(ValueError, match=r"`value_fn` must be the same on all devices .* \['x'\]"):
        jax.eval_shape(on_devices, jnp.ones(8), jnp.ones(8))


def test_state_of_eight_bits_is_sharded_where_the_mesh_divides_it():
    sharding = NamedSharding(make_mesh(), P("x", "y"))
    params = {
        "wide": jax.ShapeDtypeStruct((512, 1024), jnp.float32, sharding=sharding),
        "narrow": jax.ShapeDtypeStruct((8192, 32), jnp.float32, sharding=sharding),
    }
    shardings = pdt_optax.state.state_shardings(pdt_optax.pdt(1, history_dtype="int8"), params)
    assert shardings.history.increments[0] == {"wide": sharding, "narrow": sharding}
    assert shardings.history.scales[0]["wide"] == sharding
    assert shardings.history.scales[0]["narrow"].spec == P("x", None)
    excluded = pdt_optax.state.state_shardings(
        pdt_optax.pdt(1, exclude={"wide": True, "narrow": False}), params
    )
    assert isinstance(excluded.history.anchor["wide"], optax.MaskedNode)
    assert excluded.history.anchor["narrow"] == sharding


EIGHT_BITS = {
    "blind": COMMON,
    "streaming": {"start": 3, "history": pdt_optax.Streaming(2)},
    "rollback": {"scheduler": way_back(), **COMMON},
}


@pytest.mark.parametrize("transform", EIGHT_BITS)
@pytest.mark.parametrize(
    "spec", [P(None, "y"), P("x", "y"), P(None, "x", None), P(None, None, "y")]
)
@pytest.mark.slow
def test_eight_bits_on_a_mesh_of_typed_shardings(spec, transform):
    """As on one device; the scales lie as those of a new increment do."""
    shape = (16, 1024) if len(spec) == 2 else (4, 8, 512)
    values = jax.random.normal(jax.random.key(0), shape)
    link = extrapolating(1, history_dtype="int8", **EIGHT_BITS[transform])

    def train(params):
        tx = optax.chain(optax.sgd(0.05), link)
        state = jax.jit(tx.init)(params)
        step = jax.jit(make_step(tx, lambda params, _: jnp.sum(jnp.sin(params["w"]) ** 2)))
        for _ in range(5):
            params, state = step(params, state, None)
        return params, state

    mesh = make_mesh("explicit")
    expected, _ = train({"w": values})
    with jax.set_mesh(mesh):
        found, state = train({"w": jax.device_put(values, NamedSharding(mesh, spec))})
    assert pdt_optax.metrics(state).predictions > 0
    assert state[-1].history.scales[0]["w"].sharding.spec == spec
    apart = jnp.abs(jax.device_get(found["w"]) - expected["w"])
    if transform == "streaming":  # Directions are rounded anew; a few coordinates leave the mask.
        assert jnp.quantile(apart, 0.99) < 5e-3
    else:
        assert apart.max() < 1e-5
