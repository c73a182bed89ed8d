"""A compiled step of several devices can be exported, and comes back from the persistent cache."""

import functools

import chex
import jax
from jax import export
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import optax
import pytest
from suites import quick

import pdt_optax

WAYS = {
    "extrapolate": pdt_optax.Extrapolate(start=3, history=3, interval=0),
    "verify": pdt_optax.Verify(start=3, history=3),
}


def loss(params):
    return jnp.sum(jnp.cos(params["large"])) + jnp.sum(params["small"] ** 2)


def make_step(tx):
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params, value_fn=loss)
        return optax.apply_updates(params, updates), state

    return step


@pytest.fixture
def sharded():
    """Parameters on eight devices, one of them large."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    params = {"large": jnp.linspace(0.0, 1.0, 2**17).reshape(-1, 128), "small": jnp.arange(3.0)}
    shardings = {"large": NamedSharding(mesh, P("x")), "small": NamedSharding(mesh, P())}
    return jax.device_put(params, shardings)


@pytest.mark.parametrize("way", quick(WAYS, "extrapolate"))
def test_an_exported_step_does_what_the_step_does(sharded, way):
    tx = optax.chain(optax.sgd(0.1), pdt_optax.pdt(1, WAYS[way]))
    shardings = pdt_optax.state.state_shardings(tx, sharded)
    state = jax.jit(tx.init, out_shardings=shardings)(sharded)
    leaves, structure = jax.tree.flatten((sharded, state))

    @jax.jit
    def step(leaves):  # Of a list: jax can write no named tuples of optax.
        return jax.tree.leaves(make_step(tx)(*structure.unflatten(leaves)))

    exported = export.deserialize(export.export(step)(leaves).serialize())
    assert exported.nr_devices == 8
    here = there = leaves
    for _ in range(5):
        here, there = step(here), jax.jit(exported.call)(there)
    assert pdt_optax.metrics(structure.unflatten(here)[1]).predictions == 3
    chex.assert_trees_all_close(jax.device_get(here), jax.device_get(there), rtol=1e-5, atol=1e-6)


def test_a_step_of_several_devices_comes_from_the_persistent_cache(sharded):
    hits = []
    tx = optax.chain(optax.sgd(0.1), pdt_optax.pdt(7, WAYS["verify"]))
    state = jax.jit(tx.init, out_shardings=pdt_optax.state.state_shardings(tx, sharded))(sharded)

    def listen(event, **_):
        if event == "/jax/compilation_cache/cache_hits":
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    for _ in range(2):
        hits.clear()
        jax.clear_caches()
        jax.jit(make_step(tx), donate_argnums=(0, 1)).lower(sharded, state).compile()
    assert hits


def test_no_second_compilation(sharded):
    """Shardings, dtypes and weak types of the state stay what they were."""
    tx = optax.chain(optax.adam(0.1), pdt_optax.pdt(1, WAYS["verify"]))
    state = jax.jit(tx.init, out_shardings=pdt_optax.state.state_shardings(tx, sharded))(sharded)
    step = functools.partial(jax.jit, donate_argnums=(0, 1))(make_step(tx))
    carry = jax.tree.map(jnp.copy, (sharded, state))
    for _ in range(4):
        carry = step(*carry)
    assert step._cache_size() == 1
