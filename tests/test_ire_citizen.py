"""What optax users expect of a transform, of `scale_by_ire`."""

import functools

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from transforms import OPTIMIZERS, extrapolating

import pdt_optax
from pdt_optax.ire import _threshold
from pdt_optax.ire._threshold import kth_smallest

INPUTS = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 4, 32)
NAMES = sorted(OPTIMIZERS.keys() - {"nesterov", "adagrad", "muon"})


def apply_fn(params, inputs):
    hidden = jnp.tanh(inputs @ params["kernel"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"][None]


def initial_params(dtype=jnp.float32):
    draws = np.random.default_rng(2).standard_normal((6 * 8 + 8 * 4,))
    return {
        "kernel": jnp.asarray(draws[:48].reshape(6, 8) / 3, dtype),
        "out": {
            "kernel": jnp.asarray(draws[48:].reshape(8, 4) / 3, dtype),
            "bias": jnp.zeros(4, dtype),
        },
    }


def loss(params):
    logits = apply_fn(params, INPUTS)
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()


def fisher(**options):
    return pdt_optax.ire.sampled_label_fisher(apply_fn, jax.random.key(0), **options)


def link(kappa=4.0, **options):
    options = {"warmup_steps": 2, "update_interval": 3, "curvature_fn": fisher()} | options
    return pdt_optax.ire.scale_by_ire(kappa, **options)


def train(tx, steps=8, params=None):
    tx = optax.with_extra_args_support(tx)
    params = initial_params() if params is None else params
    state = tx.init(params)
    gradient, update = jax.jit(jax.grad(loss)), jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(gradient(params), state, params, inputs=INPUTS)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("name", NAMES)
def test_kappa_zero_is_the_optimizer_bit_for_bit(name):
    base = OPTIMIZERS[name]
    expected, _ = train(base)
    result, state = train(optax.chain(base, link(0.0)))
    chex.assert_trees_all_equal(result, expected)
    assert 0.5 < optax.tree.get(state, "flat_fraction") < 0.7


def test_first_step_that_differs_is_the_first_after_the_warm_up():
    base = OPTIMIZERS["adamw"]
    chex.assert_trees_all_equal(train(optax.chain(base, link()), 2)[0], train(base, 2)[0])
    differs = jax.tree.map(
        lambda a, b: bool((a != b).any()),
        train(optax.chain(base, link()), 3)[0],
        train(base, 3)[0],
    )
    assert any(jax.tree.leaves(differs))


@pytest.mark.parametrize("gamma", [0.25, 0.6, 0.99, 1.0])
@pytest.mark.parametrize("scope", ["global", "leaf"])
def test_mask_and_threshold_as_numpy_sorts_them(gamma, scope):
    random = np.random.default_rng(3)
    curvature = {
        "a": random.lognormal(0, 8, (13, 7, 3)).astype(np.float32),
        "b": random.lognormal(0, 8, 41).astype(np.float32),
        "c": np.float32(1e-3),
    }
    params = jax.tree.map(jnp.ones_like, curvature)
    tx = pdt_optax.ire.scale_by_ire(
        2.5, gamma=gamma, warmup_steps=0, scope=scope, curvature_fn=pdt_optax.ire.given_curvature()
    )
    updates, state = jax.jit(tx.update)(params, tx.init(params), params, curvature=curvature)
    leaves = [np.ravel(leaf) for leaf in curvature.values()]
    groups = [np.concatenate(leaves)] * 3 if scope == "global" else leaves
    for leaf, group, update, flat in zip(
        curvature.values(), groups, updates.values(), state.flat.values(), strict=True
    ):
        threshold = np.sort(group)[max(1, int(gamma * group.size)) - 1]
        np.testing.assert_array_equal(flat, leaf <= threshold)
        np.testing.assert_array_equal(update, np.where(leaf <= threshold, 3.5, 1))


@pytest.mark.parametrize("entries", [_threshold._INT32_ENTRIES, 0])
def test_smallest_of_hostile_numbers(monkeypatch, entries):
    """Of arrays that are counted in one sum, and axis by axis."""
    monkeypatch.setattr(_threshold, "_INT32_ENTRIES", entries)
    random = np.random.default_rng(4)
    arrays = [
        np.zeros((3, 50), np.float32),
        random.choice([1e-45, 1e-38, 1.0, 3.4e38], (2, 5, 11)).astype(np.float32),
        np.float32(np.inf),
    ]
    ordered = np.sort(np.concatenate([np.ravel(a) for a in arrays]))
    find = jax.jit(lambda arrays, rank: kth_smallest([arrays], [rank]), static_argnums=1)
    for rank in (1, 150, 151, 200, len(ordered)):
        np.testing.assert_array_equal(find(arrays, rank), ordered[rank - 1 : rank])


def test_count_of_more_than_an_int32_holds():
    @jax.jit
    def pair(one):
        return _threshold._count(jnp.broadcast_to(one, (2**22, 2**9)))

    high, low = pair(jnp.array(True))
    assert (int(high) << 10) + int(low) == 2**31


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_degenerate_estimate_is_dropped(bad):
    tx = pdt_optax.ire.scale_by_ire(
        4.0,
        gamma=0.5,
        update_interval=1,
        warmup_steps=0,
        beta=0.5,
        curvature_fn=pdt_optax.ire.given_curvature(),
    )
    params = jnp.ones(4)
    update = jax.jit(tx.update)
    _, state = update(params, tx.init(params), params, curvature=jnp.array([1.0, 4.0, 2.0, 3.0]))
    np.testing.assert_array_equal(state.flat, [True, False, True, False])
    average = np.asarray(state.curvature)
    wrong = jnp.full(4, bad) if bad == 0 else jnp.array([1.0, bad, 3.0, 4.0])
    _, state = update(params, state, params, curvature=wrong)
    np.testing.assert_array_equal(state.flat, [True, False, True, False])
    if bad:
        np.testing.assert_array_equal(state.curvature, average)


def test_fisher_is_the_gauss_newton_diagonal():
    """Against the sum over classes in float64 of softmax regression, and its spread."""
    params = jnp.asarray(np.random.default_rng(5).standard_normal((6, 4)) / 2, jnp.float32)
    logits = INPUTS.astype(np.float64) @ np.asarray(params, np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = (INPUTS.astype(np.float64) ** 2).T @ (p * (1 - p)) / len(INPUTS)
    relative = {}
    for num_chunks in (1, 16):

        @jax.jit
        def draw(key, num_chunks=num_chunks):
            tx = pdt_optax.ire.sampled_label_fisher(lambda w, x: x @ w, key, num_chunks=num_chunks)
            return tx.update(params, tx.init(params), params, inputs=INPUTS)[0]

        draws = np.asarray(jax.lax.map(draw, jax.random.split(jax.random.key(6), 2000)))
        np.testing.assert_allclose(draws.mean(0), expected, rtol=0.15)
        relative[num_chunks] = np.median(draws.std(0) / expected)
    assert relative[1] == pytest.approx(np.sqrt(2), rel=0.15)
    assert relative[16] < 0.6


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes_stay(dtype):
    params = initial_params(dtype)
    tx = optax.chain(optax.sgd(0.1), link(beta=0.5))

    def step(params, state):
        updates, state = tx.update(params, state, params, inputs=INPUTS)
        return optax.apply_updates(params, updates), state

    result, state = jax.eval_shape(step, params, tx.init(params))
    chex.assert_trees_all_equal_shapes_and_dtypes(result, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))
    assert state[-1].curvature["kernel"].dtype == jnp.float32


def test_donation_and_one_compilation_and_no_weak_types():
    tx = optax.chain(optax.adamw(1e-2), link(beta=0.9))
    params = jax.tree.map(jnp.copy, initial_params())
    state = tx.init(params)
    expected = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)
    traces = []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        traces.append(1)
        updates, state = tx.update(jax.grad(loss)(params), state, params, inputs=INPUTS)
        return optax.apply_updates(params, updates), state

    for _ in range(6):
        params, state = step(params, state)
    assert len(traces) == 1
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state) == expected
    assert not any(x.weak_type for x in jax.tree.leaves(state))


def test_init_on_shapes():
    tx = link(beta=0.5)
    shapes = jax.eval_shape(initial_params)
    chex.assert_trees_all_equal(tx.init(shapes), tx.init(initial_params()))


def test_scan_and_vmap():
    tx = optax.chain(optax.adam(1e-2), link())

    def run(scale):
        params = jax.tree.map(lambda p: p * scale, initial_params())

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params, inputs=INPUTS)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=8)[0][0]

    chex.assert_trees_all_close(jax.jit(run)(1.0), train(tx)[0], rtol=1e-4, atol=1e-6)
    several = jax.jit(jax.vmap(run))(jnp.array([0.5, 1.0]))
    chex.assert_trees_all_close(
        jax.tree.map(lambda p: p[1], several), jax.jit(run)(1.0), rtol=1e-4, atol=1e-6
    )


def multi_steps(tx):
    multi = optax.MultiSteps(tx, 2)
    return optax.GradientTransformationExtraArgs(multi.init, multi.update)


def test_multi_steps_counts_real_updates():
    """Ten mini-steps on the same batch are five steps."""
    result, state = train(multi_steps(optax.chain(optax.sgd(0.1), link())), 10)
    assert optax.tree.get(state, "ire_count") == 5
    expected, _ = train(optax.chain(optax.sgd(0.1), link()), 5)
    chex.assert_trees_all_close(result, expected, rtol=1e-5)


def test_masked_and_own_mask_agree():
    curvature = jax.tree.map(jnp.abs, initial_params())
    options = {"warmup_steps": 0, "curvature_fn": pdt_optax.ire.given_curvature()}
    mask = {"kernel": True, "out": False}
    params = initial_params()
    results = []
    for tx in (
        pdt_optax.ire.scale_by_ire(4.0, mask=mask, **options),
        pdt_optax.ire.scale_by_ire(4.0, mask=lambda params: mask, **options),
        optax.masked(
            pdt_optax.ire.scale_by_ire(4.0, **options), mask, mask_compatible_extra_args=True
        ),
    ):
        updates, state = jax.jit(tx.update)(params, tx.init(params), params, curvature=curvature)
        assert optax.tree.get(state, "flat_fraction") == pytest.approx(28 / 48)
        results.append(updates)
    chex.assert_trees_all_equal(*results)
    chex.assert_trees_all_equal(results[0]["out"], params["out"])


def test_inject_hyperparams():
    static = ("gamma", "update_interval", "warmup_steps", "beta")
    make = optax.inject_hyperparams(pdt_optax.ire.scale_by_ire, static_args=static)
    options = {"warmup_steps": 2, "update_interval": 3, "curvature_fn": fisher()}
    result, _ = train(optax.chain(optax.sgd(0.1), make(4.0, **options)))
    chex.assert_trees_all_close(result, train(optax.chain(optax.sgd(0.1), link()))[0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"`gamma` must be a Python float.*static_args"):
        train(optax.inject_hyperparams(pdt_optax.ire.scale_by_ire)(4.0, **options))


def test_kappa_schedule():
    params = jnp.ones(2)
    tx = pdt_optax.ire.scale_by_ire(
        lambda count: count / 2,
        gamma=0.5,
        warmup_steps=0,
        curvature_fn=pdt_optax.ire.given_curvature(),
    )
    state, curvature = tx.init(params), jnp.array([1.0, 2.0])
    for expected in (1.0, 1.5, 2.0):
        updates, state = jax.jit(tx.update)(params, state, params, curvature=curvature)
        np.testing.assert_array_equal(updates, [expected, 1.0])


def test_leaves_that_are_not_floating_point_pass_through():
    params = {"step": jnp.array(3), "weights": jnp.array([1.0, 2.0]), "nothing": None}
    tx = pdt_optax.ire.scale_by_ire(
        1.0, gamma=0.5, warmup_steps=0, curvature_fn=pdt_optax.ire.given_curvature()
    )
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params, curvature=params)
    assert updates["step"] == 3
    np.testing.assert_array_equal(updates["weights"], [2.0, 2.0])


def test_signed_estimators_rank_by_absolute_value():
    """Hutchinson's estimate is exact for a diagonal Hessian."""
    scales = jnp.array([-10.0, 1.0, 5.0, -0.1])
    tx = pdt_optax.ire.scale_by_ire(
        1.0,
        gamma=0.5,
        warmup_steps=0,
        curvature_fn=optax.contrib.hutchinson_estimator_diag_hessian(jax.random.key(0)),
    )
    params = jnp.ones(4)
    _, state = jax.jit(functools.partial(tx.update, obj_fn=lambda p: jnp.sum(scales * p**2)))(
        params, tx.init(params), params
    )
    np.testing.assert_array_equal(state.flat, [False, True, False, True])


@pytest.mark.slow
def test_before_and_after_pdt():
    """IRE then PDT: its moves are what PDT sees. PDT then IRE: the jump is enlarged as well."""
    base, pdt = optax.sgd(0.1), extrapolating(1, history=4, interval=0, criteria="bounded")
    _, state = train(optax.chain(base, link(), pdt), 12)
    assert pdt_optax.metrics(state).predictions > 0
    plain, _ = train(optax.chain(base, link(0.0), pdt), 12)
    chex.assert_trees_all_equal(plain, train(optax.chain(base, pdt), 12)[0])

    params, grads = initial_params(), jax.grad(loss)(initial_params())
    before, after = optax.chain(base, pdt), optax.chain(base, pdt, link(4.0, warmup_steps=0))
    expected, _ = before.update(grads, before.init(params), params)
    updates, state = jax.jit(after.update)(grads, after.init(params), params, inputs=INPUTS)
    chex.assert_trees_all_close(
        updates,
        jax.tree.map(lambda u, flat: np.where(flat, 5, 1) * u, expected, state[-1].flat),
        rtol=1e-6,
    )


def test_sam_as_base():
    """The recipe of the docs: only the descent is enlarged."""
    sam = optax.contrib.sam(
        optax.sgd(0.1), optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), opaque_mode=True
    )

    def sam_update(updates, state, params=None, *, grad_fn, **extra_args):
        del extra_args
        return sam.update(updates, state, params, grad_fn=grad_fn)

    base = optax.GradientTransformationExtraArgs(sam.init, sam_update)
    tx = optax.chain(base, link(4.0, warmup_steps=0))
    params = initial_params()

    def step(params, tx):
        updates, state = tx.update(
            jax.grad(loss)(params),
            tx.init(params),
            params,
            grad_fn=lambda p, _: jax.grad(loss)(p),
            inputs=INPUTS,
        )
        return updates, state

    expected, _ = jax.jit(lambda p: step(p, base))(params)
    updates, state = jax.jit(lambda p: step(p, tx))(params)
    chex.assert_trees_all_close(
        updates,
        jax.tree.map(lambda u, flat: np.where(flat, 5, 1) * u, expected, state[-1].flat),
        rtol=1e-5,
    )


def test_nnx_optimizer():
    model = nnx.Linear(6, 4, rngs=nnx.Rngs(0))
    graph = nnx.graphdef(model)

    def logits(params, inputs):
        return nnx.merge(graph, params)(inputs)

    curvature = pdt_optax.ire.sampled_label_fisher(logits, jax.random.key(0))
    tx = pdt_optax.ire.ire(optax.adam(1e-2), 4.0, warmup_steps=1, curvature_fn=curvature)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        def loss_fn(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(INPUTS), LABELS).mean()

        value, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads, inputs=INPUTS)
        return value

    losses = [float(step(model, optimizer)) for _ in range(20)]
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kappa": -1.0}, "`kappa` must be a finite number of at least 0 or .* got -1.0"),
        ({"kappa": float("nan")}, "`kappa` must be a finite number .* got nan"),
        ({"gamma": 0.0}, r"`gamma` must be in \(0, 1\], got 0.0"),
        ({"gamma": 1.1}, r"`gamma` must be in \(0, 1\], got 1.1"),
        ({"beta": 1.0}, r"`beta` must be in \[0, 1\), got 1.0"),
        ({"update_interval": 0}, "`update_interval` must be an int of at least 1, got 0"),
        ({"warmup_steps": -1}, "`warmup_steps` must be an int of at least 0, got -1"),
        ({"scope": "layer"}, "`scope` must be 'global', 'leaf', .* got 'layer'"),
        ({"kappa": jnp.float32(-2)}, "`kappa` must be a finite number .* got .*-2"),
        (
            {"curvature_fn": pdt_optax.ire.given_curvature},
            "`curvature_fn` must be an optax.GradientTransformation",
        ),
    ],
)
def test_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        link(**options)


@pytest.mark.parametrize(
    ("tx", "given", "message"),
    [
        (fisher(), {}, "`params` and `inputs` must be passed"),
        (fisher(num_chunks=5), {"inputs": INPUTS}, "a multiple of `num_chunks`, 5; got 32"),
        (fisher(), {"inputs": INPUTS[:0]}, "`inputs` must be arrays .* not empty"),
        (
            pdt_optax.ire.sampled_label_fisher(
                lambda params, inputs: apply_fn(params, inputs)[:, :1], jax.random.key(0)
            ),
            {"inputs": INPUTS},
            "`apply_fn` must return logits of two or more classes",
        ),
        (
            pdt_optax.ire.gauss_newton(
                lambda params, inputs: apply_fn(params, inputs)[:, 0], jax.random.key(0)
            ),
            {"inputs": INPUTS},
            r"`apply_fn` must return outputs of shape \(\.\.\., outputs\)",
        ),
        (pdt_optax.ire.given_curvature(), {}, "`curvature` must be passed"),
        (pdt_optax.ire.given_curvature(), {"curvature": [1]}, "`curvature` must have the tree"),
    ],
)
def test_extra_arguments(tx, given, message):
    params = initial_params()
    tx = link(warmup_steps=0, curvature_fn=tx)
    with pytest.raises(ValueError, match=message):
        tx.update(params, tx.init(params), params, **given)


def test_more_coordinates_than_an_int32_counts():
    given = pdt_optax.ire.given_curvature()
    tx = link(warmup_steps=0, update_interval=1, curvature_fn=given)
    params = [jax.ShapeDtypeStruct((2**16, 2**15), jnp.float32)] * 2
    state = jax.eval_shape(tx.init, params)
    updates, _ = jax.eval_shape(tx.update, params, state, params, curvature=params)
    assert updates == params


def test_estimates_of_zero_leave_the_average_alone():
    given = pdt_optax.ire.given_curvature()
    tx = link(warmup_steps=0, update_interval=1, beta=0.5, curvature_fn=given)
    params = jnp.ones(2)
    _, state = tx.update(params, tx.init(params), params, curvature=jnp.array([1.0, 2.0]))
    _, state = tx.update(params, state, params, curvature=jnp.zeros(2))
    np.testing.assert_array_equal(state.curvature, [0.5, 1.0])


def test_map_params_with_a_mask():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    tx = link(curvature_fn=pdt_optax.ire.given_curvature(), mask={"a": True, "b": False})
    state = optax.tree.map_params(tx, lambda leaf: leaf + 1, tx.init(params))
    assert state.flat["b"].shape == (3,)


def test_wrong_parameters():
    with pytest.raises(ValueError, match="`num_chunks` must be an int of at least 1, got 0"):
        fisher(num_chunks=0)
    with pytest.raises(ValueError, match="`params` must be real, got complex64"):
        link().init(jnp.ones(2, jnp.complex64))
    with pytest.raises(ValueError, match="`mask` must fit the tree of the parameters"):
        link(mask={"x": True}).init({"a": jnp.ones(2)})
    with pytest.raises(ValueError, match="`mask` must hold booleans, got 'no'"):
        link(mask={"a": "no"}).init({"a": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"`updates` must have the shapes .* got \(\)"):
        link().update(jnp.ones(()), link().init(jnp.ones(2)), jnp.ones(2))
    with pytest.raises(ValueError, match="`params` must be passed to `update`"):
        link().update(jnp.ones(2), link().init(jnp.ones(2)))
    tx = link(curvature_fn=pdt_optax.ire.given_curvature())
    state = tx.init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"`curvature` must have the shapes .* got \(3,\)"):
        tx.update(jnp.ones(2), state, jnp.ones(2), curvature=jnp.ones(3))
