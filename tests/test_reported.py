"""What people reported of similar software, tried here; each test names the report.

Reports are of public repositories at GitHub, as owner/name#number.
"""

import functools
from typing import Any

import chex
import equinox as eqx
from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
import numpy as np
import optax
import optimistix
import orbax.checkpoint as ocp
import pytest
import recipes
from suites import quick

import pdt_optax

PARAMS: Any = {"a": jnp.arange(1.0, 4.0), "b": jnp.ones((2, 2))}


def loss(params):
    def term(p):
        return jnp.sum(p.astype(jnp.float32) ** 2 * (1.0 + jnp.arange(p.size)).reshape(p.shape))

    return sum(map(term, jax.tree.leaves(params)))


def link(jump="verify", every=2, **options):
    return optax.chain(optax.sgd(0.05), pdt_optax.pdt(every, recipes.JUMPS[jump], **options))


def run(tx, params, steps=14, grad_dtype=None, value_fn=loss):
    def step(carry, _):
        params, state = carry
        grads = optax.tree.cast(jax.grad(value_fn)(params), grad_dtype)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return (optax.apply_updates(params, updates), state), None

    scan = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[0])
    return scan((params, tx.init(params)))


def accumulating(jump, is_outside):
    """With MultiSteps around the chain, or before the link."""
    if is_outside:
        return optax.MultiSteps(link(jump), 2).gradient_transformation()
    inner = optax.MultiSteps(optax.sgd(0.05), 2).gradient_transformation()
    return optax.chain(inner, pdt_optax.pdt(4, recipes.JUMPS[jump]))


OUTSIDE = pytest.mark.parametrize("is_outside", [True, False], ids=["outside", "inside"])
JUMP = pytest.mark.parametrize("jump", recipes.JUMPS)


@pytest.mark.slow
@OUTSIDE
@JUMP
def test_accumulation_of_wide_gradients_of_narrow_parameters(jump, is_outside):
    """google-deepmind/optax#377, #1038: branches of MultiSteps that differ in dtype."""
    narrow = optax.tree.cast(PARAMS, jnp.bfloat16)
    params, state = run(accumulating(jump, is_outside), narrow, grad_dtype=jnp.float32)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, narrow)
    assert pdt_optax.metrics(state).predictions == (3 if jump == "solve" else 1)
    assert loss(params) < loss(narrow)


@pytest.mark.slow
@OUTSIDE
@JUMP
def test_accumulation_inside_shard_map(jump, is_outside):
    """jax-ml/jax#23693: no replication rule for the conditional of MultiSteps."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    tx, rows = accumulating(jump, is_outside), jnp.arange(8.0)
    specs = PartitionSpec(), PartitionSpec(), PartitionSpec("data")

    def of_rows(params, rows):
        return loss(params) + jnp.mean(rows) * params["a"][0] / 10

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=specs, out_specs=specs[:2])
    def step(params, state, rows):
        def value_fn(params):
            return jax.lax.pmean(of_rows(params, rows), "data")

        updates, state = tx.update(jax.grad(value_fn)(params), state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(14):
        params, state = step(params, state, rows)
    expected, _ = run(tx, PARAMS, value_fn=lambda params: of_rows(params, rows))
    chex.assert_trees_all_close(params, expected, atol=recipes.CLOSE[jump])
    assert pdt_optax.metrics(state).predictions > 0


def test_state_of_an_nnx_optimizer_in_a_checkpoint(tmp_path):
    """google/flax#4423: the variables of an nnx optimizer's state could not be saved."""
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, link("extrapolate"), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(lambda model: jnp.sum(model.kernel[...] ** 2))(model))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "opt_state", optimizer.opt_state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "opt_state", optimizer.opt_state)
    chex.assert_trees_all_equal(restored, optimizer.opt_state)


def test_checkpoint_of_a_model_of_more_layers():
    """google/orbax#2972: a part of a larger model is restored silently."""

    def saved(layers):
        params = {f"layer{n}": jnp.ones(3) for n in range(layers)}
        return {"params": params, "state": link().init(params)}

    for theirs, ours in ((4, 3), (3, 4)):
        with pytest.raises(ValueError, match=r"params/layer3 is (missing|float32)"):
            pdt_optax.state.restore_types(saved(theirs), saved(ours))


def as_lists(tree):
    if isinstance(tree, tuple) and not hasattr(tree, "_fields"):
        return [as_lists(part) for part in tree]
    return type(tree)(*map(as_lists, tree)) if isinstance(tree, tuple) else tree


def as_tuples(tree):
    return tuple(map(as_tuples, tree)) if isinstance(tree, tuple) else tree


@pytest.mark.parametrize("read", [as_lists, as_tuples])
def test_state_that_lost_its_types_in_a_file(read):
    """google-deepmind/ferminet#105 (lists), jax-ml/jax#3759 (plain tuples)."""
    params = {"a": jnp.ones(2**13)}
    tx = pdt_optax.pdt(2)
    state = tx.init(params)
    with pytest.raises(ValueError, match="restore_types"):
        tx.update(params, read(state), params)
    restored = pdt_optax.state.restore_types(as_lists(state), state)
    chex.assert_trees_all_equal(tx.update(params, restored, params)[1].pdt_count, 1)


class Model(eqx.Module):
    """A module that can be called, with a leaf that is no array."""

    weight: jax.Array
    function: Any = jnp.tanh

    def __call__(self, x):
        return self.function(self.weight * x)


def test_a_model_that_is_not_filtered():
    """patrick-kidger/equinox#590, #853: an error from deep inside of the wrapper."""
    model, tx = Model(jnp.ones(3)), pdt_optax.pdt(2)
    with pytest.raises(ValueError, match=r"`params` must hold arrays, got .*tanh.* at \.function"):
        tx.init(model)
    filtered = eqx.filter(model, eqx.is_array)
    state = tx.init(filtered)
    with pytest.raises(ValueError, match="`updates` must have the tree structure of `params`"):
        tx.update(filtered, state, model)


def test_a_module_is_minimised_by_optimistix():
    """patrick-kidger/optimistix#26: solvers and modules did not go together."""
    model = Model(jnp.ones(3))
    params, static = eqx.partition(model, eqx.is_array)

    def fn(params, target):
        return jnp.sum((eqx.combine(params, static)(jnp.ones(3)) - target) ** 2)

    solver = optimistix.OptaxMinimiser(link("solve"), rtol=1e-5, atol=1e-5)
    found = optimistix.minimise(fn, solver, params, 0.5, max_steps=2000).value
    np.testing.assert_allclose(found.weight, np.arctanh(0.5), rtol=1e-3)
    assert isinstance(found, Model)


def test_trees_of_labels_that_can_be_called():
    """google-deepmind/optax#913: a mask that is a module was called instead of read."""
    params = eqx.filter(eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0)), eqx.is_array)
    assert callable(params)
    matrices = jax.tree.map(lambda leaf: leaf.ndim == 2, params)
    state = link("extrapolate", exclude=matrices).init(params)
    assert state[-1].history.rows.newest.shape == (2, 128)  # The two biases.
    state = pdt_optax.pdt(2, scope=matrices).init(params)
    assert pdt_optax.metrics(state).spectral_radius.shape == (2,)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("make", quick([nnx.jit, lambda make: make], nnx.jit), ids=["jit", "eager"])
def test_stacked_layers_with_partition_names(kind, make):
    """google/flax#5112: the axis that nnx.vmap adds is missing in the state's sharding."""
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(kind, kind))
    init = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("x", "y"))

    @nnx.split_rngs(splits=3)
    @nnx.vmap(transform_metadata={nnx.PARTITION_NAME: None})
    def layers(rngs):
        return nnx.Linear(64, 64, kernel_init=init, rngs=rngs)

    @make
    def create():
        model = layers(nnx.Rngs(0))
        return model, nnx.Optimizer(model, link("extrapolate"), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.sum(model.kernel[...] ** 2))(model)
        optimizer.update(model, grads)

    with jax.set_mesh(mesh):
        model, optimizer = create()
        for _ in range(6):
            step(model, optimizer)
        expected = PartitionSpec(None, "x", "y")
        assert model.kernel[...].sharding.spec == expected
        history = optimizer.opt_state[-1].history
        for tree in (history.anchor, *history.increments):
            assert [leaf.sharding.spec for leaf in jax.tree.leaves(tree)] == [expected]
        assert pdt_optax.metrics(optimizer.opt_state).predictions == 1


class Mapping(dict):
    """A node whose leaves have no names."""


jax.tree_util.register_pytree_node(
    Mapping,
    lambda node: ([node[key] for key in sorted(node)], tuple(sorted(node))),
    lambda keys, leaves: Mapping(zip(keys, leaves, strict=True)),
)


def test_parameters_in_a_node_of_ones_own():
    """google-deepmind/dm-haiku#191: optimizers that take dictionaries apart by hand."""
    params, state = run(link(), Mapping(PARAMS))
    expected, _ = run(link(), PARAMS)
    assert isinstance(params, Mapping)
    chex.assert_trees_all_equal(dict(params), expected)
    chex.assert_trees_all_equal(pdt_optax.state.restore_types(state, state), state)


def test_another_optimizer_takes_over_the_history():
    """NVIDIA/physicsnemo-sym#249: Adam first, then another optimizer from its checkpoint."""
    params, state = run(link("solve"), PARAMS, steps=8)
    history = state[-1]
    second = optax.chain(optax.adam(0.01), pdt_optax.pdt(2, recipes.JUMPS["solve"]))
    fresh: Any = second.init(params)
    state = (*fresh[:-1], history)
    updates, state = jax.jit(functools.partial(second.update, value_fn=loss))(
        jax.grad(loss)(params), state, params
    )
    assert pdt_optax.metrics(state).snapshots == pdt_optax.metrics(history).snapshots == 4
    assert state[-1].pdt_count == 1
    chex.assert_trees_all_close(updates["a"], -0.01 * jnp.sign(params["a"]), rtol=0.01)
    other = pdt_optax.pdt(2, pdt_optax.Solve(history=6))
    with pytest.raises(ValueError, match="`history` must be as it was"):
        other.update(params, history, params, value_fn=loss)


def test_state_is_mapped_whatever_the_values():
    """erfanzar/EasyDeL#279: optax.tree.map_params of states with values in their structure."""
    tx = link()
    _, state = run(tx, PARAMS)
    doubled = optax.tree.map_params(tx, lambda leaf: 2 * leaf, state)
    assert jax.tree.structure(doubled) == jax.tree.structure(state)
    assert doubled[-1].history.snapshots_taken == state[-1].history.snapshots_taken
