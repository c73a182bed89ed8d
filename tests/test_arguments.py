"""Every bad argument gives an error that names it, what it must be and what it was."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ring import anchor
from transforms import extrapolating

import pdt_optax


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snapshot_every": 0}, "`snapshot_every` must be an int of at least 1, got 0"),
        ({"snapshot_every": -3}, "`snapshot_every` must be an int of at least 1, got -3"),
        ({"snapshot_every": 2.5}, r"`snapshot_every` must be an int of at least 1, got 2\.5"),
        ({"snapshot_every": True}, "`snapshot_every` must be an int of at least 1, got True"),
        ({"history": 2}, "`history` must be an int of at least 3, got 2"),
        ({"horizon": 0}, "`horizon` must be an int of at least 1, got 0"),
        ({"start": 0}, "`start` must be an int of at least 1, got 0"),
        ({"interval": -1}, "`interval` must be an int of at least 0, got -1"),
        ({"criteria": "papr"}, "`criteria` must be 'paper', 'bounded', 'reference', .* got 'papr'"),
        ({"criteria": None}, "`criteria` must be .* got None"),
        ({"predictor": "dmdd"}, "`predictor` must be one of 'dmd', .* got 'dmdd'"),
        ({"predictor": 3}, "`predictor` must be one of 'dmd', .* got 3"),
        ({"scope": "layer"}, "`scope` must be 'global', 'leaf', .* got 'layer'"),
        ({"history_dtype": "int8"}, None),
        (
            {"history_dtype": "int4"},
            "`history_dtype` must be None, a floating .* or 'int8'; got 'int4'",
        ),
        ({"axis_name": ()}, r"`axis_name` must be None, the name of a mesh axis .* got \(\)"),
        ({"axis_name": 0}, "`axis_name` must be None, the name of a mesh axis .* got 0"),
        *[
            (
                {"history_dtype": name},
                "`history_dtype` must be None, a floating dtype of 16 bits or",
            )
            for name in ("float8_e4m3fn", "float8_e5m2", "int16", "bool")
        ],
        ({"scheduler": 1}, r"`scheduler` must be None or a pdt_optax\.Adaptive, got 1"),
        (
            {"scheduler": pdt_optax.Adaptive},
            r"`scheduler` must be None or a pdt_optax\.Adaptive, got <class",
        ),
        ({"history_dtype": "half"}, None),
        ({"history_dtype": "what"}, "`history_dtype` must be None, a floating .* got 'what'"),
    ],
)
def test_construction(options, message):
    options = {"every": options.pop("snapshot_every", 4)} | options
    if message is None:
        extrapolating(**options)
        return
    with pytest.raises(ValueError, match=message):
        extrapolating(**options)


@pytest.mark.parametrize("jump", [True, "paper", pdt_optax.Verify, pdt_optax.Adaptive(), None])
def test_jumps(jump):
    with pytest.raises(
        ValueError, match=r"`jump` must be a way of jumping, such as pdt_optax\.Sol"
    ):
        pdt_optax.pdt(4, jump)


def test_a_class_in_the_place_of_a_jump():
    with pytest.raises(ValueError, match=r"Call it: pdt_optax\.Verify\(\)"):
        pdt_optax.pdt(4, pdt_optax.Verify)


OPTIMIZER = optax.sgd(0.1)


@pytest.mark.parametrize("given", [(OPTIMIZER, 10), (10, OPTIMIZER), (OPTIMIZER,)])
def test_an_optimizer_that_is_to_be_wrapped(given):
    with pytest.raises(ValueError, match=r"write optax\.chain\(optimizer, pdt_optax\.pdt\("):
        pdt_optax.pdt(*given)


def test_a_quotient_that_is_no_int():
    with pytest.raises(ValueError, match=r"got 4\.0\. Divide integers by //"):
        pdt_optax.pdt(64 / 16)


COUNTS = {
    "snapshot_every": pdt_optax.pdt,
    "start": lambda count: pdt_optax.Extrapolate(start=count),
    "interval": lambda count: pdt_optax.Verify(interval=count),
    "horizon": lambda count: pdt_optax.Extrapolate(horizon=count),
    "horizons": lambda count: pdt_optax.Verify(horizons=(count,)),
    "history": lambda count: pdt_optax.Solve(history=count),
    "chunk": lambda count: pdt_optax.Solve(chunk=count),
    "rank": pdt_optax.Streaming,
    "max_interval": lambda count: pdt_optax.Adaptive(max_interval=count),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_beyond_int32(name):
    with pytest.raises(ValueError, match=f"`{name}` must be .*2147483648"):
        COUNTS[name](2**31)


@pytest.mark.parametrize("jump", [pdt_optax.Verify(), pdt_optax.Solve()])
@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_losses_that_are_not_floating(jump, dtype):
    tx, params = pdt_optax.pdt(1, jump), jnp.ones(2)

    def update():
        return tx.update(params, tx.init(params), params, value_fn=lambda p: p.sum().astype(dtype))

    with pytest.raises(ValueError, match="`value_fn` must be a floating-point scalar"):
        jax.eval_shape(update)


@pytest.mark.parametrize("rank", [-2, 1.0, 1.5, float("nan"), float("inf"), "0"])
@pytest.mark.parametrize("make", [pdt_optax.predictors.dmd, pdt_optax.predictors.affine_dmd])
def test_ranks(make, rank):
    with pytest.raises(ValueError, match=rf"`svd_rank` must be -1 .* got {re.escape(repr(rank))}"):
        make(rank)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rollback": "yes"}, "`rollback` must be a bool, got 'yes'"),
        (
            {"value_tolerance": "a"},
            "`value_tolerance` must be a finite number of at least 0, got 'a'",
        ),
    ],
)
def test_schedulers(options, message):
    with pytest.raises(ValueError, match=message):
        pdt_optax.Adaptive(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": 2}, "`history` must be an int of at least 3, got 2"),
        ({"start": 0}, "`start` must be an int of at least 1, got 0"),
        ({"start": True}, "`start` must be an int of at least 1, got True"),
        ({"interval": -1}, "`interval` must be an int of at least 0, got -1"),
    ],
)
def test_verified_jumps(options, message):
    with pytest.raises(ValueError, match=message):
        pdt_optax.Verify(**options)


def test_complex_parameters():
    params = {"layer": {"kernel": jnp.ones(2, jnp.complex64)}}
    with pytest.raises(ValueError, match=r"must be real, got complex64 at \['layer'\]\['kernel'\]"):
        pdt_optax.pdt(1).init(params)


def test_ints_made_traced_by_inject_hyperparams():
    params = jnp.ones(2)
    injected = optax.inject_hyperparams(pdt_optax.pdt)
    tx = injected(snapshot_every=2)
    with pytest.raises(ValueError, match=r"`snapshot_every` .* name it in `static_args`"):
        jax.jit(tx.update)(params, tx.init(params), params)
    static = ("snapshot_every", "jump")
    tx = optax.inject_hyperparams(pdt_optax.pdt, static_args=static)(snapshot_every=2)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    np.testing.assert_array_equal(updates, params)


@pytest.mark.parametrize(
    "options",
    [
        {"interval": np.int64(1), "scheduler": pdt_optax.Adaptive(max_error=np.float64(2))},
        {"scheduler": pdt_optax.Adaptive(max_interval=np.int64(8), min_horizon=np.float64(1))},
        {"history": pdt_optax.Streaming(np.int64(2), np.float64(0.9))},
    ],
)
def test_numbers_of_numpy_leave_the_types_of_the_state_alone(options):
    with jax.enable_x64(True):
        tx, params = extrapolating(np.int64(1), **options), jnp.ones(2, jnp.float32)
        types = jax.tree.map(jax.typeof, tx.init(params))
        state = jax.eval_shape(tx.update, params, tx.init(params), params)[1]
        assert jax.tree.map(jax.typeof, state) == types


def test_a_module_that_can_be_called_is_a_tree_of_labels():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Linear:
        kernel: Any
        bias: Any

        def __call__(self, inputs):
            return inputs @ self.kernel + self.bias

    params = Linear(jnp.ones((2, 2)), jnp.ones(2))
    tx = pdt_optax.pdt(1, exclude=Linear(False, True), scope=Linear("a", "b"))
    held = anchor(tx.init(params), params)
    assert isinstance(held.bias, optax.MaskedNode)
    assert held.kernel.shape == (2, 2)
    assert len(tx.init(params).report.operators) == 1


def test_missing_params():
    tx = optax.chain(optax.sgd(0.1), pdt_optax.pdt(1))
    state = tx.init(jnp.ones(2))
    with pytest.raises(ValueError, match="`params` must be passed to `update`"):
        tx.update(jnp.ones(2), state)


def test_labels_that_do_not_fit():
    with pytest.raises(ValueError, match=r"`scope` must label every leaf .* got \{'b': 'x'\}"):
        pdt_optax.pdt(1, scope={"b": "x"}).init({"a": jnp.ones(2)})
    with pytest.raises(ValueError, match="`scope` must give labels such as str: unhashable"):
        pdt_optax.pdt(1, scope={"a": jnp.array(0)}).init({"a": jnp.ones(2)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pdt_optax.criteria.magnitude_bounds(-1.0),
            "`lower` must be a factor >= 0 .* got -1.0",
        ),
        (
            lambda: pdt_optax.criteria.magnitude_bounds(0.0, "a"),
            "`upper` must be a factor >= 0 .* got 'a'",
        ),
        (
            lambda: pdt_optax.criteria.magnitude_bounds(3.0, 2.0),
            "`lower` must be at most `upper`, got 3.0",
        ),
        (
            lambda: pdt_optax.criteria.random_mask("a", None),
            r"`ratio` must be in \[0, 1\], got 'a'",
        ),
        (
            lambda: pdt_optax.criteria.random_mask(1.5, None),
            r"`ratio` must be in \[0, 1\], got 1.5",
        ),
        (lambda: pdt_optax.criteria.all_of(), "`all_of` needs at least one criterion"),
        (lambda: pdt_optax.criteria.all_of("paper", "x"), "`criteria` must be 'paper', .* got 'x'"),
        (lambda: pdt_optax.predictors.dmd(0.0 - 5), "`svd_rank` must be -1"),
    ],
)
def test_building_blocks(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("updates", "params", "message"),
    [
        ({"a": None, "b": jnp.ones(2)}, None, "`updates` must have the tree structure of `params`"),
        ([jnp.ones(2)] * 2, None, "`updates` must have the tree structure of `params`"),
        (
            {"a": jnp.ones(2)},
            {"a": jnp.ones(2)},
            "`params` must have the tree structure of those given to `init`",
        ),
        (
            {"a": jnp.ones(2), "c": jnp.ones(2)},
            {"a": jnp.ones(2), "c": jnp.ones(2)},
            "`params` must have the tree structure of those given to `init`",
        ),
    ],
)
def test_trees_that_do_not_fit(updates, params, message):
    initial = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = pdt_optax.pdt(1)
    with pytest.raises(ValueError, match=message):
        tx.update(updates, tx.init(initial), params or initial)


@pytest.mark.parametrize(
    ("jump", "given", "message"),
    [
        (
            pdt_optax.Extrapolate(scheduler=pdt_optax.Adaptive()),
            {"value": jnp.ones(1)},
            r"`value` must be a scalar, .* shape \(1,\)",
        ),
        (
            pdt_optax.Verify(),
            {"value_fn": lambda params: params},
            r"`value_fn` must be a scalar, .* shape \(2,\)",
        ),
        (
            pdt_optax.Verify(),
            {"value_fn": lambda params: (params.sum(), {"logits": params})},
            "`value_fn` must be a scalar, without auxiliary data",
        ),
        (
            pdt_optax.Solve(),
            {"value_fn": lambda params: params.sum()[None]},
            r"`value_fn` must be a scalar, .* shape \(1,\)",
        ),
        (
            pdt_optax.Extrapolate(scheduler=pdt_optax.Adaptive()),
            {"value": jnp.int32(1)},
            "`value` must be a floating-point scalar",
        ),
        (
            pdt_optax.Verify(),
            {},
            "`value_fn` must be passed .* TrainState: call its `tx.update` .* docs/recipes.md",
        ),
        (
            pdt_optax.Verify(),
            {"residual_fn": lambda params: params},
            "`value_fn` must be passed .* `residual_fn`, which is there, is for pdt_optax.Solve",
        ),
        (pdt_optax.Verify(), {"value_fn": jnp.ones([])}, "`value_fn` must be a function .* `loss`"),
        (pdt_optax.Solve(), {"residual_fn": [1.0]}, "`residual_fn` must be a function .* got list"),
        (
            pdt_optax.Solve(),
            {"residual_fn": jnp.sum},
            "`residual_fn` must return the residuals, .* Pass a loss as `value_fn`",
        ),
        (
            pdt_optax.Solve(),
            {},
            "got neither.* TrainState: call its `tx.update` .* docs/recipes.md",
        ),
    ],
)
def test_functions_and_values_that_cannot_be_used(jump, given, message):
    tx, params = pdt_optax.pdt(1, jump), jnp.ones(2)
    state = tx.init(params)
    with pytest.raises(ValueError, match=message):
        tx.update(params, state, params, **given)
