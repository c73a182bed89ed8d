"""Checkpoints by orbax: every kind of restore goes on bit for bit; a changed history is named."""

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from ring import anchor, in_time
from transforms import ACCEPT_ALL, extrapolating, way_back

import pdt_optax

OPTIONS = {"start": 3, "history": 4, "interval": 0, "scope": "leaf", "scheduler": way_back()}


LARGE = 16384, 8


def make_tx(**options):
    adam = optax.masked(optax.adam(0.02), {"w": True, "b": True, "n": False})
    return optax.chain(adam, extrapolating(2, **OPTIONS | options))


def initial(tx):
    """A leaf that is stored by itself, and a small one."""
    rows = jax.random.normal(jax.random.key(0), (16, 8))
    params = {"w": jnp.tile(rows, (LARGE[0] // 16, 1)), "n": jnp.arange(3)}
    params["b"] = jnp.linspace(-1, 1, 8)
    return {"params": params, "opt_state": tx.init(params)}


def loss(floats):
    return jnp.mean((floats["w"] @ jnp.tanh(floats["b"]) - 1) ** 2)


def make_step(tx):
    def step(train_state):
        params, opt_state = train_state["params"], train_state["opt_state"]
        floats = {"w": params["w"], "b": params["b"]}
        value, grads = jax.value_and_grad(loss)(floats)
        grads["n"] = jnp.zeros_like(params["n"])
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


@pytest.mark.parametrize("params", [{"w": jnp.ones(LARGE)}, {"b": jnp.ones(8)}, {"n": 1}], ids=str)
@pytest.mark.parametrize(
    "jump",
    [
        pdt_optax.Extrapolate(),
        pdt_optax.Extrapolate(history=pdt_optax.Streaming(2)),
        pdt_optax.Verify(),
        pdt_optax.Solve(),
    ],
    ids=["extrapolate", "streaming", "verify", "solve"],
)
def test_no_array_of_a_state_is_empty(jump, params):
    """Orbax refuses to save one."""
    state = jax.eval_shape(pdt_optax.pdt(1, jump).init, jax.tree.map(jnp.asarray, params))
    assert all(leaf.size for leaf in jax.tree.leaves(state))


def test_a_run_with_solved_jumps_is_saved_and_resumed(tmp_path):
    tx = optax.chain(optax.sgd(0.01), pdt_optax.pdt(2, pdt_optax.Solve(history=3)))

    def residuals(params):
        return params["w"] ** 2 - jnp.arange(4.0)

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda params: jnp.sum(residuals(params) ** 2))(params)
        updates, state = tx.update(grads, state, params, residual_fn=residuals)
        return optax.apply_updates(params, updates), state

    saved = {"params": {"w": jnp.linspace(1.0, 2.0, 4)}}
    saved["state"] = tx.init(saved["params"])
    for number in range(12):
        if number == 5:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(tmp_path / "5", saved)
        saved = dict(zip(("params", "state"), step(saved["params"], saved["state"]), strict=True))
    resumed = restore(tmp_path / "5", jax.eval_shape(lambda: saved))
    for _ in range(7):
        resumed = dict(
            zip(("params", "state"), step(resumed["params"], resumed["state"]), strict=True)
        )
    assert_same_bits(resumed, saved)
    assert pdt_optax.metrics(resumed["state"]).jumps > 2


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1), (2, 2)], ids=["fsdp on 8", "both axes on 4"])
def test_restored_onto_another_mesh(checkpoint, shape):
    path, expected = checkpoint
    mesh = jax.make_mesh(shape, ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    replicated = NamedSharding(mesh, P())
    params = initial(TX)["params"]
    shardings = {"w": NamedSharding(mesh, P("x", "y")), "b": replicated, "n": replicated}
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
    history = restored["opt_state"][-1].history
    increments = history.increments
    assert all(increment["w"].sharding == shardings["params"]["w"] for increment in increments)
    assert history.rows.ring.sharding.is_fully_replicated
    assert_same_bits(jax.device_get(restored), jax.device_get(restore_as_saved(path)))
    resumed = train(restored, 11)
    for name in ("w", "b"):
        np.testing.assert_allclose(resumed["params"][name], expected["params"][name], rtol=1e-4)


def restore_as_saved(path):
    return restore(path, jax.eval_shape(lambda: initial(TX)))


CHANGES = {
    "history": {"history": 5},
    "history_dtype": {"history_dtype": "bfloat16"},
    "scheduler": {"scheduler": None},
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


def test_a_state_of_another_jump_or_of_other_leaves():
    params = {"w": jnp.ones(3), "b": jnp.ones(3)}
    ways = {"solve": pdt_optax.Solve(history=5), "verify": pdt_optax.Verify(predictors=("dmd",))}
    states = {name: pdt_optax.pdt(2, jump).init(params) for name, jump in ways.items()}
    for name, other in (("solve", "verify"), ("verify", "solve")):
        with pytest.raises(ValueError, match="`jump` must be as it was"):
            pdt_optax.pdt(2, ways[name]).update(params, states[other], params, value_fn=jnp.sum)
    part = pdt_optax.pdt(2, ways["solve"], exclude={"w": True, "b": False})
    with pytest.raises(ValueError, match="`params`, `exclude` or `axis_name` must be as it was"):
        part.update(params, states["solve"], params, value_fn=jnp.sum)
    other = pdt_optax.pdt(2, ways["solve"], exclude={"w": False, "b": True})
    with pytest.raises(ValueError, match=r"`exclude` or .* must be as it was .* other leaves"):
        other.update(params, part.init(params), params, value_fn=jnp.sum)


def test_solve_goes_on_from_verify():
    """Without a DMD their states are alike, but that the damping of Solve is not there yet."""
    jumps = pdt_optax.Verify(start=9), pdt_optax.Solve(history=5, start=9)
    params, states = jnp.arange(1.0, 4.0), []
    for jump in jumps:
        link = pdt_optax.pdt(1, jump)
        states.append(link.init(params))
        for _ in range(3):
            _, states[-1] = link.update(-0.1 * params, states[-1], params, value_fn=jnp.sum)
            params = params - 0.1 * params
        params = jnp.arange(1.0, 4.0)
    assert [float(state.report.trust.damping) for state in states] == [0.0, np.float32(1e-3)]
    solve = pdt_optax.pdt(1, pdt_optax.Solve(history=5))
    landings = [
        solve.update(-0.1 * params, state, params, residual_fn=lambda params: params - 0.5)
        for state in states
    ]
    chex.assert_trees_all_equal(*landings)
    assert landings[0][1].report.trust.damping > 0


def test_metadata_of_a_checkpoint_that_fits(checkpoint):
    path, _ = checkpoint
    target = jax.eval_shape(lambda: initial(TX))
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata.tree
    typed = pdt_optax.state.restore_types(metadata, target)
    assert typed["opt_state"][-1].history.anchor["w"].shape == LARGE
    assert typed["opt_state"][-1].history.rows.newest.shape == (1, 128)


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
    with pytest.raises(ValueError, match=r"`scope` must be as .*operators is float32"):
        pdt_optax.pdt(2).update(params, tx.init(params), params)
    half = params | {"w": params["w"].astype("bfloat16")}
    with pytest.raises(ValueError, match=r"`params`, `exclude` or .* must .*anchor/w is float32"):
        tx.update(params, tx.init(params), half)
    half = params | {"b": params["b"].astype("float16")}
    with pytest.raises(ValueError, match=r"`params`, `exclude` or .* must .*newest is float32"):
        tx.update(params, tx.init(params), half)


@pytest.mark.parametrize("shape", [(4, 64), LARGE], ids=["small", "large"])
@pytest.mark.parametrize("dtypes", [("int8", "bfloat16"), ("int8", None), (None, "int8")])
def test_other_eight_bits(dtypes, shape):
    weights = jnp.ones(shape)
    made, now = (pdt_optax.pdt(2, history_dtype=dtype) for dtype in dtypes)
    with pytest.raises(ValueError, match="`history_dtype` must be as"):
        pdt_optax.state.restore_types(made.init(weights), now.init(weights))


@pytest.mark.parametrize("shape", [(4, 64), LARGE], ids=["small", "large"])
@pytest.mark.parametrize("dtype", [None, "int8"])
@pytest.mark.parametrize("history", [5, pdt_optax.Streaming(2), pdt_optax.Streaming(3)])
def test_another_history(history, dtype, shape):
    weights = jnp.ones(shape)
    made = extrapolating(2, history=3, history_dtype=dtype).init(weights)
    now = extrapolating(2, history=history, history_dtype=dtype).init(weights)
    for found, expected in ((made, now), (now, made)):
        with pytest.raises(ValueError, match="`history` must be as"):
            pdt_optax.state.restore_types(found, expected)


def test_scales_of_other_blocks():
    state = pdt_optax.pdt(2, history_dtype="int8").init(jnp.ones(LARGE))
    other = state._replace(history=state.history._replace(scales=()))
    with pytest.raises(ValueError, match=r"`history_dtype` must be as .*scales/0 is missing"):
        pdt_optax.state.restore_types(other, state)
    state = pdt_optax.pdt(2, history_dtype="int8").init(jnp.ones((4, 64)))
    rows = state.history.rows._replace(ring_scales=None)
    other = state._replace(history=state.history._replace(rows=rows))
    with pytest.raises(ValueError, match=r"`history_dtype` must be as .*ring_scales is missing"):
        pdt_optax.state.restore_types(other, state)


@pytest.mark.parametrize(
    "name", ["scales", "increments", "anchor", "operators", "rows", "schedule"]
)
def test_parameters_named_like_parts_of_the_state(name):
    """A moment of another dtype is no argument's fault; a history of another dtype is."""

    def made(**options):
        params = {name: jnp.ones(3)}
        return {
            "params": params,
            "state": optax.chain(optax.adam(1e-3), pdt_optax.pdt(1, **options)).init(params),
        }

    state = made()
    adam, *others = state["state"][0]
    narrow = adam._replace(mu={name: adam.mu[name].astype(jnp.bfloat16)})
    saved = state | {"state": ((narrow, *others), *state["state"][1:])}
    with pytest.raises(ValueError, match=rf"^state/0/0/mu/{name} is bfloat16\[3\] in `saved`"):
        pdt_optax.state.restore_types(saved, state)
    with pytest.raises(ValueError, match=r"`history_dtype` must be as it was"):
        pdt_optax.state.restore_types(made(history_dtype="bfloat16"), state)


def test_two_leaves_of_one_printed_path():
    params = {"a/b": jnp.ones(2), "a": {"b": jnp.zeros(3)}}
    state = {"params": params, "state": pdt_optax.pdt(1).init(params)}
    saved = jax.tree.map(np.asarray, state)
    assert_same_bits(pdt_optax.state.restore_types(saved, state), state)


def moved(tx, params, state, steps):
    """Under moves of 0.5; the places after each step, and the last state."""
    update, places = jax.jit(lambda *given: tx.update(*given, value=1.0)), []
    for _ in range(steps):
        updates, state = update(jnp.full_like(params, 0.5), state, params)
        params = optax.apply_updates(params, updates)
        places.append(float(params[0]))
    return params, state, places


LINEAR = {"history": 3, "start": 3, "interval": 0, "predictor": "linear", "criteria": ACCEPT_ALL}


@pytest.mark.parametrize("scheduler", [None, pdt_optax.Adaptive(), way_back()])
def test_in_mid_period_the_period_became_shorter(scheduler):
    """Seven steps of ten; of three the running one ends at once, the next after three."""
    options = LINEAR | {"scheduler": scheduler}
    before = extrapolating(10, **options)
    params, state, _ = moved(before, jnp.zeros(4), before.init(jnp.zeros(4)), 7)
    assert state.pdt_count == 7
    params, state, places = moved(extrapolating(3, **options), params, state, 1)
    assert (state.pdt_count, state.history.snapshots_taken) == (0, 2)
    assert places == [4.0]
    np.testing.assert_array_equal(anchor(state, params), params)
    np.testing.assert_array_equal(in_time(state, params)[-1], np.full(4, 4.0))
    params, state, places = moved(extrapolating(3, **options), params, state, 6)
    assert (state.pdt_count, state.history.snapshots_taken) == (0, 4)
    assert state.predictions == 1
    # From 5.5 the line through 0, 4 and 5.5 goes on for five periods.
    np.testing.assert_allclose(places, [4.5, 5, 5.5, 6, 6.5, 5.5 + 5 * 2.75], rtol=1e-6)
