"""Whole events on hostile histories: nothing leaves the transform that the optimizer did not send.

`make fuzz` runs every configuration on more cases and prints how many.
"""

import os

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from suites import AS_FOR_USERS
from transforms import ACCEPT_ALL, extrapolating, verifying, way_back

import pdt_optax
from pdt_optax import _layout

CASES = 256
LONG = "PDT_FUZZ" in os.environ
VERIFIED = {"horizons": (2, 50), "criteria": ACCEPT_ALL}
GROUPS = {"global": [slice(7)], "leaf": [slice(3), slice(3, 7)]}
BLIND = {"criteria": ACCEPT_ALL}
DMD = pdt_optax.predictors.dmd
EVERYTHING = {"scheduler": pdt_optax.Adaptive(rollback=True), "horizon": 20} | BLIND
SHORT_CONFIGS = [
    ("float32", {"history": 3, "horizon": 50} | BLIND),
    ("bfloat16", {"history": 5} | VERIFIED),
    ("bfloat16", {"history": 5} | EVERYTHING),
    ("float32", {"history": pdt_optax.Streaming(2), "horizon": 20, "scope": "leaf"} | BLIND),
]
LONG_CONFIGS = [
    ("float16", {"history": 5, "horizon": 5, "predictor": "affine_dmd"} | BLIND),
    ("float32", {"history": 12, "horizon": 50, "predictor": DMD(0), "scope": "leaf"} | BLIND),
    ("float32", {"history": 8, "horizon": 20, "criteria": "bounded"}),
    ("float32", {"history": 4, "history_dtype": "bfloat16", "scheduler": way_back()} | BLIND),
    ("float32", {"history": 4, "history_dtype": "int8", "scope": "leaf"} | BLIND),
    (
        "float32",
        {
            "history": 6,
            "horizon": 7,
            "predictor": DMD(0.9),
            "scheduler": pdt_optax.Adaptive(),
            "scope": "leaf",
        },
    ),
    ("bfloat16", {"history": 12, "horizon": 50, "predictor": DMD(2)} | BLIND),
    ("float16", {"history": 3} | VERIFIED),
    ("float16", {"history": 3} | EVERYTHING),
    ("float32", {"history": 5, "scope": "leaf"} | VERIFIED),
    ("float32", {"history": 5} | EVERYTHING),
    ("bfloat16", {"history": pdt_optax.Streaming(3)} | VERIFIED),
    ("bfloat16", {"history": pdt_optax.Streaming(3)} | EVERYTHING),
    (
        "float32",
        {"history": pdt_optax.Streaming(8, 1.0), "horizon": 50, "scheduler": way_back()} | BLIND,
    ),
]


def histories(rng, steps, dtype):
    """Moves ``(CASES, steps, 7)`` of every kind, and where they start ``(CASES, 7)``."""
    limit = float(jnp.finfo(dtype).max)
    denormal = float(jnp.finfo(dtype).smallest_normal) / 8
    scales = np.array([0.0, denormal, 1e-30, 1e-6, 1.0, 1e6, limit / 64, limit / 2])
    starts = rng.normal(size=(CASES, 7)) * rng.choice(scales, (CASES, 1))
    moves = rng.normal(size=(CASES, steps, 7)) * rng.choice(scales, (CASES, 1, 1))
    decay = rng.choice([0.0, 0.5, 1.0, 2.0], (CASES, 1, 1)) ** np.arange(steps)[None, :, None]
    kind = rng.integers(6, size=CASES)[:, None, None]
    moves = np.where(kind == 1, moves[:, :1] * decay, moves)
    moves = np.where(kind == 2, moves * (rng.random(moves.shape[:2]) < 0.5)[:, :, None], moves)
    moves = np.where(
        kind == 3, np.where(np.arange(steps)[:, None] % 2, -1, 1) * moves[:, :1], moves
    )
    bad = rng.choice([np.nan, np.inf, -np.inf], moves.shape)
    moves = np.where((kind == 4) & (rng.random(moves.shape) < 0.02), bad, moves)
    with np.errstate(over="ignore"):
        return jnp.asarray(starts, dtype), jnp.asarray(moves, dtype)


def make_run(options):
    make = verifying if "horizons" in options else extrapolating
    tx = make(1, start=1, interval=0, **options)

    def tree(flat):
        return {"a": flat[:3], "b": flat[3:].reshape(2, 2)}

    def flat(tree):
        return jnp.concatenate([tree["a"], tree["b"].ravel()])

    def score(params):
        return jnp.sum(flat(params).astype(jnp.float32) ** 2)

    def run(start, moves):
        def step(carry, move):
            params, state = carry
            updates, state = tx.update(tree(move), state, params, value=1.0, value_fn=score)
            after = optax.apply_updates(params, updates)
            own = optax.apply_updates(params, tree(move))
            seen = flat(params), flat(updates), flat(own), flat(after), state.report.mask_ratio
            return (after, state), seen

        return jax.lax.scan(step, (tree(start), tx.init(tree(start))), moves)[1]

    return jax.jit(jax.vmap(run), compiler_options=AS_FOR_USERS)


def bits(array):
    return array.view(np.dtype(f"u{array.dtype.itemsize}"))


@pytest.mark.parametrize(("dtype", "options"), SHORT_CONFIGS + LONG_CONFIGS * LONG)
@pytest.mark.parametrize(
    "largest_small", [pytest.param(2**16, marks=() if LONG else pytest.mark.slow), 3, *[0] * LONG]
)
def test_hostile_histories(dtype, options, largest_small, monkeypatch):
    """Of leaves that lie end to end, and by themselves."""
    monkeypatch.setattr(_layout, "LARGEST_SMALL", largest_small)
    run, counted = make_run(options), []
    steps = 3 + getattr(options["history"], "rank", options["history"])
    rolls_back = getattr(options.get("scheduler"), "rollback", False)

    @settings(
        max_examples=5 if LONG else 2,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**32 - 1))
    @example(seed=0)
    def check(seed):
        start, moves = histories(np.random.default_rng(seed), steps, dtype)
        weights, updates, own, after, mask_ratio = map(np.asarray, run(start, moves))
        moves = np.asarray(moves)
        assert updates.dtype == moves.dtype
        finite = np.isfinite(own.astype(np.float32))
        assert np.isfinite(after.astype(np.float32))[finite].all()
        same = bits(updates) == bits(moves)
        rolled_back = np.full(mask_ratio.shape, rolls_back)
        assert same[(mask_ratio == 0) & ~rolled_back].all()
        spoilt = ~np.isfinite(weights.astype(np.float32))
        for leaves in GROUPS[options.get("scope", "global")]:
            unusable = spoilt[..., leaves].any(axis=2) & ~rolled_back
            assert same[..., leaves][unusable].all()
        counted.append(CASES)

    check()
    print(f"\n{sum(counted)} cases of {dtype} {options}")


PREDICTORS = {
    "full": pdt_optax.predictors.dmd(),
    "threshold": pdt_optax.predictors.dmd(0),
    "two": pdt_optax.predictors.dmd(2, exact=False),
    "energy": pdt_optax.predictors.dmd(0.9),
    "affine": pdt_optax.predictors.affine_dmd(),
    "affine, threshold": pdt_optax.predictors.affine_dmd(0, exact=False),
}


def grams(rng, history, compute):
    """Gram matrices ``(CASES, h, h)`` of hostile histories, whose entries have a dtype each."""
    dtypes = [np.float16, jnp.bfloat16, np.float32, compute]
    columns = []
    for dtype in dtypes:
        start, moves = histories(rng, history - 1, dtype)
        newest = np.asarray(start, compute)[:, None]
        columns.append(np.concatenate([np.asarray(moves, compute), newest], axis=1))
    columns = np.concatenate(columns)
    kind = rng.integers(4, size=len(columns))[:, None, None]
    columns = np.where(kind == 1, columns[:, :1] * np.ones((1, history, 1), compute), columns)
    columns[:, -1] = np.where(kind[:, 0] == 2, columns[:, 0], columns[:, -1])
    return columns @ np.swapaxes(columns, 1, 2)


@pytest.mark.parametrize("history", range(3, 13) if LONG else [4])
@pytest.mark.parametrize("dtype", ["float32", "float64"] if LONG else ["float32"])
def test_hostile_gram_matrices(dtype, history):
    """Coefficients are finite, and bit for bit those of the same history in other units.

    The latter not where they are so large that underflow of the smallest terms shows in them.
    """
    with jax.enable_x64(dtype == "float64"):

        def fit(matrix):
            gram = pdt_optax.predictors.Gram(matrix, jnp.asarray(7, dtype))
            return {name: predictor(gram, 50) for name, predictor in predictors.items()}

        predictors = PREDICTORS if LONG else {"full": PREDICTORS["full"]}
        fit, counted = jax.jit(jax.vmap(fit), compiler_options=AS_FOR_USERS), 0
        for seed in range(2 if LONG else 1):
            rng = np.random.default_rng([seed, history])
            with np.errstate(all="ignore"):
                matrices = grams(rng, history, dtype)
            sizes = np.diagonal(matrices, axis1=1, axis2=2)
            limits = np.finfo(dtype)
            inside = (sizes == 0) | ((sizes > limits.tiny * 1e20) & (sizes < limits.max * 1e-20))
            moderate = np.isfinite(matrices).all(axis=(1, 2)) & inside.all(axis=1)
            assert moderate.mean() > 0.5
            found = fit(jnp.asarray(matrices))
            scaled = fit(2.0**20 * jnp.asarray(matrices))
            for name, coefficients in found.items():
                ours = np.asarray(coefficients)[moderate]
                assert np.isfinite(ours[:, 0]).all()
                steady = np.abs(ours[:, 0]).max(axis=1) < 1e4
                assert steady.mean() > 0.5
                theirs = np.asarray(scaled[name])[moderate]
                np.testing.assert_array_equal(theirs[steady], ours[steady])
            counted += len(matrices)
    print(f"\n{counted} cases of {dtype} Gram matrices, history {history}")
