"""JAX's strict modes: nothing of PDT makes a nan, an inf, a promotion, a leak or a transfer."""

import contextlib
from typing import Any

import chex
import jax
from jax.experimental import checkify
import jax.numpy as jnp
import optax
import pytest
from transforms import way_back

import pdt_optax

QUICK = {"history": 3, "start": 3}
JUMPS = {
    "extrapolate": pdt_optax.Extrapolate(**QUICK, interval=0),
    "rollback": pdt_optax.Extrapolate(**QUICK, interval=0, scheduler=way_back()),
    "streaming": pdt_optax.Extrapolate(history=pdt_optax.Streaming(2), start=3, interval=0),
    "verify": pdt_optax.Verify(**QUICK),
    "solve residuals": pdt_optax.Solve(history=3),
    "solve a loss": pdt_optax.Solve(history=3),
}
MODES = {
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "checkify": contextlib.nullcontext,
    "leaks": jax.checking_leaks,
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "x64": lambda: jax.enable_x64(True),
    "transfers": lambda: jax.transfer_guard("disallow"),
    "disable_jit": jax.disable_jit,
}
INPUTS = jnp.linspace(-1, 1, 12).reshape(4, 3)


def residuals(params):
    return jnp.tanh(INPUTS @ params["w"]) @ params["v"] - 1.0


def loss(params):
    return jnp.sum(residuals(params) ** 2)


def functions(name):
    if name == "solve residuals":
        return {"residual_fn": residuals}
    return {"value_fn": loss} if name in ("verify", "solve a loss") else {}


def initial_params() -> Any:
    keys = jax.random.split(jax.random.key(0))
    shapes = {"w": (3, 5), "v": (5,)}
    return {
        name: jax.random.normal(key, shape, jnp.float32)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def make_step(tx, name):
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value, **functions(name))
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        pytest.param(
            mode, name, marks=() if (mode, name) == ("leaks", "verify") else pytest.mark.slow
        )
        for mode in MODES
        for name in JUMPS
    ],
)
def test_strict_mode(mode, name):
    """No mode needs an exception here; those at its edges have tests of their own below."""
    tx, params = optax.chain(optax.sgd(0.05), pdt_optax.pdt(1, JUMPS[name])), initial_params()
    step, init = make_step(tx, name), jax.jit(tx.init)
    if mode == "checkify":
        step = checkify.checkify(step, errors=checkify.float_checks)
    with contextlib.ExitStack() as stack:
        stack.enter_context(MODES[mode]())
        if mode == "disable_jit":
            stack.enter_context(jax.debug_nans(True))
            stack.enter_context(jax.debug_infs(True))
        state, step = init(params), jax.jit(step)
        for _ in range(4):
            found = step(params, state)
            if mode == "checkify":
                error, found = found
                error.throw()
            params, state = found
    assert pdt_optax.metrics(state).predictions >= 2


@pytest.mark.parametrize("history_dtype", [None, "int8"])
@pytest.mark.parametrize("name", JUMPS)
def test_parameters_of_several_dtypes_without_implicit_promotion(name, history_dtype):
    """Two of them large, two of them small; and the default int is that of 64 bits."""
    kinds = {
        "half": (5000, jnp.bfloat16),
        "single": (5000, jnp.float32),
        "double": (7, jnp.float64),
        "narrow": (3, jnp.float32),
    }

    def squares(params):
        return [leaf.astype(jnp.float64) ** 2 for leaf in jax.tree.leaves(params)]

    extra: Any = {"value_fn": lambda params: sum(map(jnp.sum, squares(params)))}
    if name == "solve residuals":
        extra = {"residual_fn": lambda params: params}
    tx = pdt_optax.pdt(1, JUMPS[name], history_dtype=history_dtype)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        params = {
            leaf: jax.ShapeDtypeStruct((size,), dtype) for leaf, (size, dtype) in kinds.items()
        }
        state = jax.eval_shape(tx.init, params)
        value = jax.ShapeDtypeStruct((), jnp.float64)
        after = jax.eval_shape(
            lambda updates, state, params, value: tx.update(
                updates, state, params, value=value, **extra
            ),
            params, state, params, value,
        )  # fmt: skip
    chex.assert_trees_all_equal_shapes_and_dtypes(after, (params, state))


@pytest.mark.slow
def test_a_nan_of_the_user_is_not_blamed_on_pdt():
    """JAX then runs the step operation by operation, and stops at the first nan that it makes."""
    tx = optax.chain(optax.sgd(0.05), pdt_optax.pdt(2, JUMPS["rollback"]))
    step = make_step(tx, "rollback")

    def with_metric(params, state):
        params, state = step(params, state)
        return params, state, jnp.log(-loss(params))

    params = initial_params()
    with pytest.raises(FloatingPointError, match="nan") as found, jax.debug_nans(True):
        jax.jit(with_metric)(params, tx.init(params))
    assert not any("pdt_optax" in str(entry.path) for entry in found.traceback)


def test_an_eager_init_transfers_as_that_of_optax_does():
    """The exception: `jnp.zeros` outside of `jit` is a transfer, in optax's Adam as well."""
    params = initial_params()
    for tx in (optax.adam(0.1), pdt_optax.pdt(1)):
        with (
            pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"),
            jax.transfer_guard("disallow"),
        ):
            tx.init(params)


FORWARD = ["extrapolate", "streaming", "verify"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode(name):
    """Beside the finite difference, with the same coordinates jumping."""
    settings = {"horizon": 2, "criteria": "bounded"} if name != "verify" else {"horizons": (2,)}
    jump = type(JUMPS[name])(history=JUMPS[name].history, start=3, interval=0, **settings)
    tx = optax.chain(optax.sgd(0.01), pdt_optax.pdt(1, jump))
    step = make_step(tx, name)

    def end(scale):
        params = jax.tree.map(lambda leaf: leaf * (1 + scale), initial_params())

        def body(carry, _):
            return step(*carry), None

        (params, state), _ = jax.lax.scan(body, (params, tx.init(params)), None, 5)
        return loss(params), state[-1].jumps

    _, found, jumps = jax.jit(lambda at: jax.jvp(end, (at,), (1.0,), has_aux=True))(0.0)
    shifted = [jax.jit(end)(shift)[0] for shift in (-2e-3, 2e-3)]
    assert jumps > 0
    assert found == pytest.approx(float(shifted[1] - shifted[0]) / 4e-3, rel=0.02)
