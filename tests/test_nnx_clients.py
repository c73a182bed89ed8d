"""The recipes of docs/recipes.md for flax: nnx models of several kinds, and linen."""

import functools
from typing import Any

import chex
from flax import linen, nnx
from flax.training import train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recipes
from suites import quick

import pdt_optax

STEPS = 10
INPUTS = jnp.linspace(-1, 1, 24).reshape(8, 3)
TARGETS = jnp.sin(3 * INPUTS)


def link(jump: str) -> optax.GradientTransformationExtraArgs:
    return optax.chain(optax.adam(0.02), pdt_optax.pdt(2, recipes.JUMPS[jump]))


def loss(model, batch):
    inputs, targets = batch
    return jnp.mean((model(inputs) - targets) ** 2)


BATCH = INPUTS, TARGETS
GIVEN = {"functools": functools, "nnx": nnx, "loss": loss}


@nnx.split_rngs(splits=4)
@nnx.vmap
def four_layers(rngs):
    return nnx.Linear(3, 3, rngs=rngs)


class Plain(nnx.Module):
    """One layer, or four whose parameters are stacked."""

    def __init__(self, make=lambda rngs: nnx.Linear(3, 3, rngs=rngs)):
        self.layers, self.dropout = make(nnx.Rngs(0)), nnx.Dropout(0.0)

    def __call__(self, x):
        return self.dropout(self.layers(x))


class Scanned(Plain):
    """One after the other, by nnx.scan."""

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def forward(x, layer):
            return jnp.tanh(layer(x))

        return forward(x, self.layers)


class Ensemble(Plain):
    """Their mean, by nnx.vmap."""

    def __call__(self, x):
        return nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(self.layers, x).mean(axis=0)


def scanned(leaves, x):
    for bias, kernel in zip(*leaves, strict=True):
        x = jnp.tanh(x @ kernel + bias[None])
    return x


def averaged(leaves, x):
    return sum(x @ kernel + bias[None] for bias, kernel in zip(*leaves, strict=True)) / 4


def one_layer(leaves, x):
    bias, kernel = leaves
    return x @ kernel + bias[None]


MODELS: dict[str, tuple[Any, Any]] = {
    "plain": (Plain, one_layer),
    "scan": (lambda: Scanned(four_layers), scanned),
    "vmap": (lambda: Ensemble(four_layers), averaged),
}


def by_hand(tx, forward, leaves, jump):
    def loss_of_leaves(leaves):
        return jnp.mean((forward(leaves, INPUTS) - TARGETS) ** 2)

    return recipes.by_hand(tx, loss_of_leaves, leaves, STEPS, is_blind=jump == "extrapolate")


@pytest.mark.parametrize("kind", quick(MODELS, "plain"))
@recipes.in_short("verify")
def test_nnx_as_a_loop_by_hand(jump, kind):
    make, forward = MODELS[kind]
    model, tx = make(), link(jump)
    leaves = list(map(jnp.copy, jax.tree.leaves(nnx.state(model, nnx.Param))))
    expected, _ = by_hand(tx, forward, leaves, jump)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    step = recipes.run("nnx", recipes.passed(jump), **GIVEN)["step"]
    for _ in range(STEPS):
        step(model, optimizer, BATCH, BATCH)
    found = jax.tree.leaves(nnx.state(model, nnx.Param))
    chex.assert_trees_all_close(found, expected, atol=recipes.CLOSE[jump])
    assert pdt_optax.metrics(optimizer.opt_state).predictions > 0


@recipes.in_short("solve")
def test_nnx_model_and_optimizer(jump):
    tx = link(jump)
    optimizer = nnx.ModelAndOptimizer(Plain(), tx)
    leaves = list(map(jnp.copy, jax.tree.leaves(nnx.state(optimizer.model, nnx.Param))))
    expected, _ = by_hand(tx, one_layer, leaves, jump)

    @functools.partial(nnx.jit, donate_argnums=0)
    def step(optimizer):
        graph, _, rest = nnx.split(optimizer.model, nnx.Param, ...)

        def value_fn(params):
            return loss(nnx.merge(graph, params, rest, copy=True), BATCH)

        extra = {} if jump == "extrapolate" else {"value_fn": value_fn}
        optimizer.update(nnx.grad(loss)(optimizer.model, BATCH), **extra)

    for _ in range(STEPS):
        step(optimizer)
    found = jax.tree.leaves(nnx.state(optimizer.model, nnx.Param))
    chex.assert_trees_all_close(found, expected, atol=recipes.CLOSE[jump])


@recipes.in_short("solve")
def test_lora_by_a_filter(jump):
    """The base stays bit for bit and has no history; the product goes as by hand.

    The factors themselves are free up to a matrix between them.
    """
    model, tx = nnx.LoRALinear(3, 3, lora_rank=2, rngs=nnx.Rngs(0)), link(jump)
    model.lora.lora_b[...] = 0.1 * jnp.ones((2, 3))
    base = {"kernel": np.array(model.kernel), "bias": np.array(model.bias)}
    factors = [jnp.copy(model.lora.lora_a[...]), jnp.copy(model.lora.lora_b[...])]

    def forward(factors, x):
        return x @ base["kernel"] + base["bias"][None] + x @ factors[0] @ factors[1]

    expected, _ = by_hand(tx, forward, factors, jump)
    given = GIVEN | {"model": model, "tx": tx}
    names = recipes.run("LoRA, or any other filter", recipes.passed(jump), **given)
    for _ in range(STEPS):
        names["step"](model, names["optimizer"], BATCH)
    found = model.lora.lora_a[...] @ model.lora.lora_b[...]
    chex.assert_trees_all_close(found, expected[0] @ expected[1], atol=recipes.CLOSE[jump])
    assert (model.kernel[...] == base["kernel"]).all()
    assert (model.bias[...] == base["bias"]).all()
    state = names["optimizer"].opt_state
    assert pdt_optax.metrics(state).predictions > 0
    names = jax.tree_util.keystr([path for path, _ in jax.tree.leaves_with_path(state)])
    assert "lora_a" in names
    assert "kernel" not in names


@recipes.in_short("verify")
def test_linen_train_state(jump):
    given = {"train_state": train_state, "optax": optax}
    TrainState = recipes.run("linen's `TrainState`", **given)["TrainState"]
    model, tx = linen.Dense(3), link(jump)
    params = model.init(jax.random.key(0), INPUTS)["params"]
    expected, _ = by_hand(tx, one_layer, [params["bias"], params["kernel"]], jump)
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def step(state):
        def value_fn(params):
            return jnp.mean((state.apply_fn({"params": params}, INPUTS) - TARGETS) ** 2)

        extra = {} if jump == "extrapolate" else {"value_fn": value_fn}
        return state.apply_gradients(grads=jax.grad(value_fn)(state.params), **extra)

    for _ in range(STEPS):
        state = step(state)
    found = [state.params["bias"], state.params["kernel"]]
    chex.assert_trees_all_close(found, expected, atol=recipes.CLOSE[jump])
    assert state.step == STEPS
    assert pdt_optax.metrics(state).predictions > 0


def test_eight_bits_of_named_kernels_under_jit():
    """Outside of jit flax gives the scales the kernel's names, as it does what Adafactor holds."""
    names = nnx.with_partitioning(nnx.initializers.ones_init(), (None, "x"))
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

    @nnx.jit
    def make():
        model = nnx.Linear(512, 96, kernel_init=names, rngs=nnx.Rngs(0))
        tx = optax.chain(optax.sgd(0.1), pdt_optax.pdt(1, history_dtype="int8"))
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda model: jnp.sum(model.kernel[...] ** 2))(model))

    with jax.set_mesh(mesh):
        model, optimizer = make()
        for _ in range(5):
            step(model, optimizer)
    assert pdt_optax.metrics(optimizer.opt_state).predictions == 1
