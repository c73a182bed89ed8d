"""A citizen of optax: inside and outside of its wrappers, under every transformation of jax."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from suites import quick
from transforms import ACCEPT_ALL, OPTIMIZERS, extrapolating, verifying, way_back

from experiments.runs.shampoo import scale_by_shampoo
import pdt_optax
from pdt_optax import _layout

VERIFY = pytest.mark.parametrize("verify", [False, True], ids=["blind", "verified"])
CURVATURE = {"a": jnp.array([1.0, 2.0, 3.0]), "b": {"c": jnp.array([[4.0], [0.5]])}}

NAMES = sorted(OPTIMIZERS.keys() - {"nesterov", "adagrad"})
TRIED = {name: OPTIMIZERS[name] for name in NAMES}
TRIED["shampoo"] = optax.chain(scale_by_shampoo(), optax.scale(-0.05))


def initial_params():
    return {"a": jnp.arange(1.0, 4.0), "b": {"c": jnp.full((2, 1), 2.0, jnp.float32)}}


def loss(params):
    terms = jax.tree.map(lambda p, c: jnp.sum(c.astype(p.dtype) * p**2), params, CURVATURE)
    return sum(map(jnp.float32, jax.tree.leaves(terms))) / 2


def link(verify, every=2, **options):
    settings = {"history": 3, "start": 3, "interval": 0}
    if verify:
        settings |= {"horizons": (2,), "predictors": ("linear",)}
        return verifying(every, **settings | options)
    settings |= {"horizon": 2, "predictor": "linear", "criteria": pdt_optax.criteria.path_sign()}
    return extrapolating(every, **settings | options)


def run(tx, steps=12, params=None, value_fn=loss):
    params = initial_params() if params is None else params

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(
            grads, state, params, value=value, grad=grads, value_fn=value_fn, unknown=1
        )
        return (optax.apply_updates(params, updates), state), None

    scan = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[0])
    return scan((params, tx.init(params)))


@pytest.mark.parametrize(
    ("name", "verify"),
    [
        pytest.param(
            name,
            verify,
            marks=pytest.mark.slow if verify and name not in ("adamw", "shampoo") else (),
        )
        for name in TRIED
        for verify in (False, True)
    ],
)
def test_last_link_of_a_chain(name, verify):
    """A scan over steps raises if a shape, dtype or weak type of the state changes."""
    params, state = run(optax.chain(TRIED[name], link(verify)))
    assert pdt_optax.metrics(state).predictions == 4
    chex.assert_trees_all_equal_shapes_and_dtypes(params, initial_params())
    assert jnp.isfinite(loss(params))
    assert not verify or loss(params) < loss(initial_params())


def flat_loss(flat):
    return loss(jax.flatten_util.ravel_pytree(initial_params())[1](flat))


LABELS = {"a": "x", "b": "x"}
SGD = optax.sgd(0.05)
WRAPPERS = {
    "masked": (lambda tx: optax.masked(tx, True), 1),
    "empty group": (lambda tx: optax.partition({"x": tx, "y": optax.adam(1.0)}, LABELS), 1),
    "named_chain": (lambda tx: optax.named_chain(("all", tx)), 1),
    "apply_if_finite": (lambda tx: optax.apply_if_finite(tx, 3), 1),
    "flatten": (optax.flatten, 1),
    "MultiSteps": (lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(), 2),
}


@pytest.mark.parametrize(
    ("name", "verify"),
    [
        pytest.param(
            name, verify, marks=pytest.mark.slow if verify and name != "MultiSteps" else ()
        )
        for name in WRAPPERS
        for verify in (False, True)
    ],
)
def test_wrapped_as_unwrapped(name, verify):
    wrap, mini_steps = WRAPPERS[name]
    tx = optax.chain(SGD, link(verify))
    params, state = run(
        wrap(tx), 12 * mini_steps, value_fn=flat_loss if name == "flatten" else loss
    )
    expected, plain_state = run(tx)
    chex.assert_trees_all_close(params, expected, rtol=1e-5)
    assert pdt_optax.metrics(state).predictions == pdt_optax.metrics(plain_state).predictions == 4
    assert pdt_optax.metrics(plain_state).mask_ratio > 0


@VERIFY
def test_after_multi_steps(verify):
    """Then a step of PDT is a mini-step."""
    inner = optax.MultiSteps(SGD, 2).gradient_transformation()
    params, _ = run(optax.chain(inner, link(verify, every=4)), 24)
    chex.assert_trees_all_close(params, run(optax.chain(SGD, link(verify)))[0], rtol=1e-5)


@VERIFY
def test_inject_hyperparams_around_a_factory(verify):
    @optax.inject_hyperparams
    def make(learning_rate):
        return optax.chain(optax.sgd(learning_rate), link(verify))

    params, _ = run(make(learning_rate=0.05))
    chex.assert_trees_all_close(params, run(optax.chain(SGD, link(verify)))[0], rtol=1e-6)


def test_groups_of_a_partition_as_alone():
    tx = optax.chain(SGD, link(False))
    parts = optax.multi_transform({"x": tx, "y": tx}, {"a": "x", "b": "y"})
    whole = optax.chain(SGD, link(False, scope="leaf"))
    chex.assert_trees_all_close(run(parts)[0], run(whole)[0], rtol=1e-5)


def test_verify_inside_masked_fills_the_masked_tree():
    """`value_fn` gets optax.MaskedNode for the others: the recipe of docs/compatibility.md."""
    params = initial_params()
    tx = optax.chain(SGD, optax.masked(link(True), {"a": True, "b": False}))

    @jax.jit
    def step(params, state):
        def value_fn(part):
            return loss(
                jax.tree.map(
                    lambda new, old: old if is_masked(new) else new,
                    part,
                    params,
                    is_leaf=is_masked,
                )
            )

        updates, state = tx.update(jax.grad(loss)(params), state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(12):
        params, state = step(params, state)
    np.testing.assert_allclose(params["b"]["c"][:, 0], 2 * np.array([0.8, 0.975]) ** 12, rtol=1e-5)
    assert (params["a"] < jnp.arange(1.0, 4.0) * (1 - 0.05 * CURVATURE["a"]) ** 12).any()


@VERIFY
def test_vmap_and_cond(verify):
    tx = optax.chain(SGD, link(verify))
    scales = jnp.array([0.5, 1.0])

    def scaled(scale):
        return run(tx, params=jax.tree.map(lambda p: scale * p, initial_params()))[0]

    each = jax.jit(jax.vmap(scaled))(scales)
    chex.assert_trees_all_close(jax.tree.map(lambda p: p[1], each), scaled(1.0), rtol=1e-5)
    either = jax.jit(lambda yes: jax.lax.cond(yes, lambda: scaled(1.0), initial_params))
    chex.assert_trees_all_close(either(True), scaled(1.0), rtol=1e-5)


@VERIFY
def test_no_recompilation_in_1000_steps(verify):
    tx, traces = optax.chain(OPTIMIZERS["adam"], link(verify)), []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        traces.append(1)
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value, value_fn=loss)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.copy, initial_params())
    state = tx.init(params)
    for _ in range(1000):
        params, state = step(params, state)
    assert pdt_optax.metrics(state).predictions == 498
    assert len(traces) == step._cache_size() == 1


@VERIFY
@pytest.mark.parametrize(
    "dtype",
    quick(["bfloat16", "float16", "float32", "float64", "mixed"], "bfloat16", "float64", "mixed"),
)
def test_dtypes(dtype, verify):
    with jax.enable_x64(dtype in ("float64", "mixed")):
        params = initial_params()
        dtypes = ("bfloat16", "float64") if dtype == "mixed" else (dtype, dtype)
        params = {
            "a": params["a"].astype(dtypes[0]),
            "b": {"c": params["b"]["c"].astype(dtypes[1])},
        }
        dmd = {"predictors": ("dmd",)} if verify else {"predictor": "dmd"}
        tx = optax.chain(SGD, link(verify, **dmd))
        trained, state = jax.eval_shape(lambda params: run(tx, params=params), params)
        chex.assert_trees_all_equal_shapes_and_dtypes(trained, params)
        wide = "float64" if "float64" in dtypes else "float32"
        assert state[-1].report.operators.dtype == wide
        if dtype == "mixed":
            assert pdt_optax.metrics(run(tx, params=params)[1]).predictions == 4


@VERIFY
def test_map_params_with_leaves_that_are_not_floating(verify):
    params = {"w": jnp.ones((2, 3)), "large": jnp.ones(2**17), "n": jnp.arange(4)}
    params["key"] = jax.random.key(0)
    names = {"w": "W", "large": "L", "n": "N", "key": "K"}
    tx = link(verify, **{} if verify else {"scheduler": way_back()})
    state = tx.init(params)
    mapped = optax.tree.map_params(
        tx,
        lambda leaf, name: leaf if is_masked(leaf) else name,
        state,
        names,
        transform_non_params=lambda _: None,
        is_leaf=is_masked,  # As for a state of optax.masked.
    )
    history = mapped.history
    masked = optax.MaskedNode()
    large = {"w": _layout.SmallLeaf(), "large": "L", "n": masked, "key": masked}
    assert history.anchor == history.increments[0] == history.increments[1] == large
    assert verify or mapped.schedule.fallback == names | {"n": masked, "key": masked}
    held = state.history.anchor
    assert jax.tree.structure(held, is_leaf=is_masked) == jax.tree.structure(params)
    assert held["large"].shape == (2**17,)
    assert isinstance(held["w"], _layout.SmallLeaf)


def is_masked(node):
    return isinstance(node, optax.MaskedNode)


def test_every_name_in_the_state_is_found_once():
    scheduler = pdt_optax.Adaptive(rollback=True)
    jumps = link(False, scheduler=scheduler, history=pdt_optax.Streaming(), history_dtype="int8")
    tx = optax.chain(optax.adam(optax.constant_schedule(0.1)), jumps)
    state = tx.init(initial_params())
    pdt_state = state[-1]
    names = [*pdt_state._fields, *pdt_state.history._fields, *pdt_state.history.rows._fields]
    names += [*pdt_state.history.stream._fields]
    names += [*pdt_state.schedule._fields, *pdt_state.report._fields]
    assert {
        name: len(optax.tree.get_all_with_path(state, name)) for name in names
    } == dict.fromkeys(names, 1)
    assert optax.tree.get(state, "jump_horizon") == 2
    assert optax.tree.get(optax.tree.set(state, jump_horizon=1.5), "jump_horizon") == 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"criteria": pdt_optax.criteria.path_sign},
            "`criteria` must be .* got pdt_optax.criteria.path_sign itself",
        ),
        (
            {"criteria": pdt_optax.criteria.all_of},
            "`criteria` must be .* got pdt_optax.criteria.all_of itself",
        ),
        (
            {"predictor": pdt_optax.predictors.dmd},
            "`predictor` must be .* got pdt_optax.predictors.dmd itself",
        ),
        (
            {"predictor": pdt_optax.predictors.linear},
            "`predictor` must be .* got pdt_optax.predictors.linear itself",
        ),
        ({"history": jnp.array(5)}, "`history` must be a Python int .* name it in `static_args`"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        extrapolating(1, **options)


@pytest.mark.parametrize("mask", [lambda proposal: proposal.move, lambda proposal: lambda: True])
def test_criteria_that_return_no_mask(mask):
    with pytest.raises(ValueError, match="`criteria` must return a boolean array"):
        run(link(False, criteria=mask))


def test_resetting_the_own_state_after_a_jump():
    """The recipe of docs/compatibility.md: Adam starts anew after each of four jumps."""
    tx = optax.chain(optax.adam(0.05), link(False))

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        own, pdt_state = state[:-1], state[-1]
        ended = pdt_state.pdt_count == 0
        jumped = ended & (pdt_state.last_prediction == pdt_state.history.snapshots_taken - 1)
        reset = jumped & (pdt_state.report.mask_ratio > 0)
        fresh = tx.init(params)[:-1]
        own = jax.tree.map(lambda new, old: jnp.where(reset, new, old), fresh, own)
        return params, (*own, pdt_state)

    params, counts = initial_params(), []
    state = tx.init(params)
    for _ in range(12):
        params, state = step(params, state)
        counts.append(int(optax.tree.get(state[0], "count")))
        assert (optax.tree.get(state[0], "mu")["a"] == 0).all() == (counts[-1] == 0)
    assert counts == [1, 2, 3, 4, 5, 0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("recipe", quick([True, False], True))
def test_a_line_search_that_keeps_value_and_gradient(recipe):
    """The recipe of docs/compatibility.md; without it what is kept is that of before the jump."""
    search = optax.scale_by_backtracking_linesearch(10, store_grad=True)
    tx = optax.chain(optax.sgd(0.05), search, link(True, every=1))
    value_and_grad = optax.value_and_grad_from_state(loss)

    @jax.jit
    def step(params, state):
        value, grads = value_and_grad(params, state=state)
        jumps = optax.tree.get(state, "jumps")
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
        if recipe:
            jumped = optax.tree.get(state, "jumps") != jumps
            kept = optax.tree.get(state, "value")
            state = optax.tree.set(state, value=jnp.where(jumped, jnp.inf, kept))
        return value, optax.apply_updates(params, updates), state

    params, errors = initial_params(), []
    state = tx.init(params)
    for _ in range(8):
        before = loss(params)
        value, params, state = step(params, state)
        errors.append(abs(float(value - before)))
    assert pdt_optax.metrics(state).jumps > 0
    assert (max(errors) < 1e-4) == recipe


@pytest.mark.parametrize(
    ("nest", "place"),
    [
        (lambda link: optax.chain(optax.apply_if_finite(optax.sgd(1.0), 5), link), 3.0),
        (lambda link: optax.apply_if_finite(optax.chain(optax.sgd(1.0), link), 5), 7.0),
    ],
    ids=["optimizer alone", "chain"],
)
def test_a_way_back_and_apply_if_finite(nest, place):
    """Around the chain PDT is not asked where a gradient is not finite, and stays where it is."""
    options = {"predictor": "linear", "criteria": ACCEPT_ALL, "horizon": 5}
    tx = nest(link(False, every=1, scheduler=way_back(), **options))
    params = jnp.zeros(3)
    state, update = tx.init(params), jax.jit(tx.update)
    for gradient, value in [(-1.0, 1.0)] * 3 + [(jnp.nan, jnp.nan)]:
        updates, state = update(jnp.full(3, gradient), state, params, value=value)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, jnp.full(3, place), rtol=1e-6)
