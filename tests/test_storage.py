"""How the history is stored: eight bits with scales, and leaves that are left out."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ring import anchor, in_time
from transforms import ACCEPT_ALL, extrapolating, verifying

import pdt_optax
from pdt_optax import _quantize

_encoded = jax.jit(lambda x: _quantize.encode(x, jnp.dtype("int8")))
_decoded = jax.jit(lambda codes, scales: _quantize.decode(codes, scales, jnp.float32))


@pytest.mark.parametrize(
    ("length", "block"),
    [(1, 1), (10, 10), (256, 64), (768, 96), (1024, 64), (3072, 192), (1000, 125), (1009, 1009)],
)
def test_blocks_divide_the_axis_and_its_shards(length, block):
    assert _quantize.block_size(length) == block


@pytest.mark.parametrize("shape", [(), (7,), (3, 512), (2, 3, 1000), (0, 4), (4, 0)])
def test_error_of_eight_bits(shape):
    """Against NumPy: within half a unit of the block's largest."""
    size = jnp.exp(3 * jax.random.normal(jax.random.key(1), shape[:-1]))[..., None]
    x = jax.random.normal(jax.random.key(0), shape) * (size if shape else 1)
    stored, scales = _encoded(x)
    assert stored.dtype == jnp.int8
    assert stored.shape == x.shape
    assert scales.shape == _quantize.scales_shape(shape)
    restored = np.asarray(_decoded(stored, scales))
    x = np.asarray(x)
    if not x.size:
        return
    blocks = x.reshape(*scales.shape, -1)
    largest = np.abs(blocks).max(-1, keepdims=True) * np.ones_like(blocks)
    # A scale rounded down to bfloat16 clips the largest number by up to 2**-9 of it.
    assert (np.abs(restored - x).reshape(blocks.shape) <= largest * (0.5 / 127 + 2**-8)).all()


def test_zeros_and_what_is_not_finite():
    x = jnp.stack([jnp.zeros(64), jnp.full(64, jnp.nan), jnp.full(64, jnp.inf)])
    restored = _decoded(*_encoded(x))
    assert (restored[0] == 0).all()
    assert not jnp.isfinite(restored[1:]).any()


def initial_params():
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "table": jax.random.normal(keys[0], (300, 256)),
        "rows": jax.random.normal(keys[2], (12, 256)),
        "bias": jax.random.normal(keys[1], (8,)),
    }


def train(tx, params, steps=24):
    rates = jax.tree.map(lambda p: 0.05 + 0.3 * jnp.abs(jnp.sin(7 * p)), params)

    def body(carry, _):
        params, state = carry
        grads = jax.tree.map(lambda p, rate: rate * jnp.sin(p), params, rates)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(body, (p, tx.init(p)), length=steps)[0])(params)


def chain(**options):
    return optax.chain(optax.sgd(0.5), extrapolating(2, **options))


def test_the_history_in_eight_bits_is_that_in_full():
    """Snapshots from the stored increments lie within the rounding of the increments."""
    never = pdt_optax.criteria.magnitude_bounds(1e30)
    params, full = train(chain(criteria=never), initial_params())
    _, small = train(chain(criteria=never, history_dtype="int8"), initial_params())
    assert small[-1].history.rows.ring.dtype == jnp.int8
    assert all(leaf.dtype == jnp.int8 for leaf in jax.tree.leaves(small[-1].history.increments))
    for old, new in zip(in_time(full[-1], params), in_time(small[-1], params), strict=True):
        for name in old:
            most = np.abs(old[name]).max()
            assert most > 0
            chex.assert_trees_all_close(new[name], old[name], atol=most / 127)


@pytest.mark.parametrize(("dtype", "increment"), [(None, 4), ("bfloat16", 2), ("int8", 1 + 2 / 64)])
@pytest.mark.parametrize("history", [3, 5])
def test_bytes_of_the_history(dtype, increment, history):
    """The formula of docs/performance.md: 4 + (h - 1) b bytes a float32 parameter."""
    params = {"w": jnp.zeros((512, 1024))}
    state = extrapolating(1, history=history, history_dtype=dtype).init(params)
    expected = params["w"].size * (4 + (history - 1) * increment)
    held = (state.history.anchor, state.history.increments, state.history.scales)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(held)) == expected
    rest = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) - expected
    rest -= sum(leaf.nbytes for leaf in jax.tree.leaves(state.history.rows))
    assert rest < 1000


@pytest.mark.parametrize(("dtype", "increment"), [(None, 4), ("bfloat16", 2), ("int8", 1 + 2 / 64)])
def test_bytes_of_small_leaves(dtype, increment):
    """That of large ones, but each leaf fills its last row of 128 numbers."""
    params = {"w": jnp.zeros((30, 128)), "b": jnp.zeros(129)}
    history = extrapolating(1, history=5, history_dtype=dtype).init(params).history
    assert not jax.tree.leaves((history.anchor, history.increments, history.scales))
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(history.rows))
    assert held == 32 * 128 * (4 + 4 * increment)


@pytest.mark.parametrize("as_function", [False, True])
def test_excluded_leaves_pass_untouched_and_the_others_as_alone(as_function):
    params = initial_params()
    booleans = {"table": False, "rows": False, "bias": True}
    options = {"predictor": "linear", "criteria": ACCEPT_ALL, "horizon": 2}
    exclude = (lambda _: booleans) if as_function else booleans
    trained, state = train(chain(exclude=exclude, **options), params)
    untouched, _ = train(optax.sgd(0.5), {"bias": params["bias"]})
    chex.assert_trees_all_equal(trained["bias"], untouched["bias"])
    others = {name: params[name] for name in ("table", "rows")}
    alone, _ = train(chain(**options), others)
    for name in others:
        chex.assert_trees_all_close(trained[name], alone[name], rtol=1e-5)
    held = anchor(state[-1], params)
    assert isinstance(held["bias"], optax.MaskedNode)
    assert held["rows"].shape == (12, 256)
    ratios = pdt_optax.metrics(state).mask_ratio_per_leaf
    assert isinstance(ratios["bias"], optax.MaskedNode)
    assert min(ratios["table"], ratios["rows"]) > 0.9


def test_an_excluded_leaf_may_have_a_gradient_that_is_no_number():
    params = {"table": jnp.ones(2), "rows": jnp.arange(3)}
    gradient = jax.grad(lambda params: jnp.sum(params["table"] ** 2), allow_int=True)(params)
    tx = pdt_optax.pdt(1, exclude={"table": False, "rows": True})
    updates, _ = tx.update(gradient, tx.init(params), params)
    assert updates["rows"].dtype == jax.dtypes.float0
    assert updates["rows"].shape == (3,)


def test_history_of_parameters_of_eight_bits():
    params = jnp.linspace(1, 2, 8).astype(jnp.float8_e4m3fn)
    tx = pdt_optax.pdt(1)
    moves = jnp.full(8, -0.25).astype(params.dtype)
    _, state = jax.jit(tx.update)(moves, tx.init(params), params)
    oldest, newest = pdt_optax.dynamics.snapshots(state, params)
    np.testing.assert_array_equal(oldest, params.astype(jnp.float32))
    np.testing.assert_allclose(newest, oldest - 0.25, atol=0.0625)


def test_value_fn_sees_excluded_leaves_where_the_optimizer_left_them():
    params = {"moving": jnp.ones(3), "out": jnp.ones(3)}
    tx = verifying(1, start=3, history=3, exclude={"moving": False, "out": True})
    seen = []

    def value_fn(params):
        jax.debug.callback(seen.append, params["out"])
        return jnp.sum(params["moving"] ** 2)

    @jax.jit
    def step(params, state):
        updates = jax.tree.map(lambda p: -0.1 * p, params)
        updates, state = tx.update(updates, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(3):
        params, state = step(params, state)
    jax.effects_barrier()
    assert seen
    assert all((out == params["out"]).all() for out in seen)


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ({"table": True}, "`exclude` must fit the tree"),
        ({"table": 1, "rows": True, "bias": True}, "`exclude` must hold booleans, got 1"),
    ],
)
def test_exclude_is_checked(exclude, message):
    with pytest.raises(ValueError, match=message):
        pdt_optax.pdt(1, exclude=exclude).init(initial_params())
