"""The transformation against the float64 NumPy oracle, on real training trajectories."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pydmd
import pytest
from ring import anchor, in_time
from sklearn.datasets import load_digits
from suites import quick
from transforms import ACCEPT_ALL, extrapolating

import pdt_optax
from pdt_optax import _layout

EPOCHS, BATCH_SIZE = 16, 64
HISTORY, HORIZON = 5, 5

PREDICTION_TOLERANCE = {"float64": 1e-6, "float32": 2e-2}
BOUNDARY_WIDTH = {"float64": 1e-6, "float32": 1e-3}
MAX_BOUNDARY_FRACTION = {"float64": 1e-3, "float32": 6e-2}
EIGENVALUE_TOLERANCE = {"float64": 1e-6, "float32": 1e-2}

RANKS = (-1, 0, 1, 2, 3, 0.9999)
LABELS = {
    "hidden": {"bias": "biases", "kernel": "kernels"},
    "output": {"bias": "biases", "kernel": "kernels"},
}
SCOPES = {"global": "global", "leaf": "leaf", "labels": LABELS}
LEAF_GROUPS = {"global": (0, 0, 0, 0), "leaf": (0, 1, 2, 3), "labels": (0, 1, 0, 1)}
PREDICTORS = {
    "dmd": pdt_optax.predictors.dmd,
    "affine_dmd": pdt_optax.predictors.affine_dmd,
    "linear": pdt_optax.predictors.linear,
    "last_increment": pdt_optax.predictors.last_increment,
    "average": pdt_optax.predictors.average,
}

by_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])
by_dtype_quickly = pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)]
)
by_preset = pytest.mark.parametrize("preset", oracle.PRESETS)
by_scope = pytest.mark.parametrize("scope", SCOPES)
by_rank = pytest.mark.parametrize("svd_rank", RANKS)
by_configuration = pytest.mark.parametrize(
    ("predictor", "scope"),
    [
        ("dmd", "global"),
        ("dmd", "leaf"),
        ("dmd", "labels"),
        ("affine_dmd", "global"),
        ("affine_dmd", "leaf"),
        ("affine_dmd", "labels"),
        ("linear", "global"),
        ("linear", "leaf"),
        ("last_increment", "global"),
        ("last_increment", "labels"),
    ],
)


def precision(dtype: str):
    """A context in which arrays are of the given dtype by default."""
    return jax.enable_x64(dtype == "float64")


def flat(tree: Any) -> np.ndarray:
    """The leaves of a tree, one after the other, in float64."""
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


@pytest.fixture(scope="module", autouse=True)
def release_executables():
    """A process may hold only so many memory maps, and every executable takes hundreds."""
    yield
    event_update.cache_clear()
    compiled.cache_clear()


# A real training run, step by step.


def initial_params(dtype: str, widths: tuple[int, int, int] = (64, 32, 10)) -> Any:
    rng = np.random.default_rng(0)

    def layer(n: int, m: int) -> dict[str, jax.Array]:
        kernel = rng.normal(size=(n, m)) / np.sqrt(n)
        return {"bias": jnp.zeros(m, dtype), "kernel": jnp.asarray(kernel, dtype)}

    return {"hidden": layer(*widths[:2]), "output": layer(*widths[1:])}


def loss_fn(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    hidden = jnp.tanh(images @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    logits = hidden @ params["output"]["kernel"] + params["output"]["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@functools.cache
def batches(dtype: str) -> tuple[tuple[jax.Array, jax.Array], ...]:
    """The mini-batches of an epoch."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(labels))
    count = len(labels) // BATCH_SIZE
    return tuple(
        (jnp.asarray(images[rows] / 16.0, dtype), jnp.asarray(labels[rows]))
        for rows in np.split(order[: count * BATCH_SIZE], count)
    )


def to_numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


class Period(NamedTuple):
    """The last update of a snapshot period, seen from inside the chain."""

    t: int
    snapshots: np.ndarray  # the weights kept so far, at most HISTORY, as the columns of a matrix
    before: Any  # state of the transform
    params: Any
    inner: Any  # updates of the base optimizer
    outer: Any  # updates of the chain
    after: Any  # state of the transform
    metrics: pdt_optax.Metrics

    @property
    def newest(self) -> np.ndarray:
        """w(t-1) as the state holds it."""
        return flat(anchor(self.before, self.params))

    @property
    def moved(self) -> np.ndarray:
        """w_opt(t) - w(t-1)."""
        return flat(jax.tree.map(np.add, self.params, self.inner)) - self.newest

    @property
    def merged(self) -> np.ndarray:
        """w(t)."""
        return flat(jax.tree.map(np.add, self.params, self.outer))

    @property
    def displacement(self) -> np.ndarray:
        """w(t) - w(t-1)."""
        return self.merged - self.newest

    @property
    def mask(self) -> np.ndarray:
        return flat(self.outer) != flat(self.inner)


def keep_updates() -> optax.GradientTransformation:
    """A link of a chain whose state is the updates that pass through it."""
    return optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda updates, state, params=None: (updates, updates),
    )


@functools.cache
def train(dtype: str, preset: str, largest_small: int = 2**16) -> tuple[Period, ...]:
    """Trains the network with the transformation chained to SGD with momentum."""
    with precision(dtype), mock.patch.object(_layout, "LARGEST_SMALL", largest_small):
        data = batches(dtype)
        pdt = extrapolating(len(data), criteria=preset)
        tx = optax.chain(optax.sgd(0.05, momentum=0.9), keep_updates(), pdt)

        @jax.jit
        def train_step(params, state, batch):
            updates, state = tx.update(jax.grad(loss_fn)(params, *batch), state, params)
            return optax.apply_updates(params, updates), updates, state

        params = initial_params(dtype)
        state = tx.init(params)
        snapshots, periods = [flat(params)], []
        for t in range(1, EPOCHS + 1):
            for batch in data:
                old_params, old_state = params, state
                params, updates, state = train_step(params, state, batch)
            history = np.stack(snapshots[-HISTORY:], axis=1)
            metrics = pdt_optax.metrics(state)
            observed = (old_state[-1], old_params, state[-2], updates, state[-1], metrics)
            periods.append(Period(t, history, *to_numpy(observed)))
            snapshots.append(flat(params))
        return tuple(periods)


def is_event(period: Period) -> bool:
    return int(period.after.predictions) > int(period.before.predictions)


@functools.cache
def events(dtype: str, preset: str = "paper") -> tuple[Period, ...]:
    return tuple(period for period in train(dtype, preset) if is_event(period))


@functools.cache
def event_update(dtype: str, predictor: str, svd_rank: float, scope: str) -> Any:
    """A compiled update with the criterion still to be chosen."""

    def update(choice, updates, state, params):
        criteria = [pdt_optax.criteria.all_of(preset) for preset in oracle.PRESETS]
        criteria.append(ACCEPT_ALL)
        tx = extrapolating(
            len(batches(dtype)),
            criteria=lambda proposal: jnp.stack([f(proposal) for f in criteria])[choice],
            predictor=PREDICTORS[predictor](*[svd_rank] * predictor.endswith("dmd")),
            scope=SCOPES[scope],
        )
        state = tx.init(params)._replace(**state)
        updates, state = tx.update(updates, state, params)
        return updates, state, pdt_optax.metrics(state)

    return jax.jit(update)


def repeat_events(
    dtype: str, criteria: str, predictor: str = "dmd", svd_rank: float = -1, scope: str = "global"
) -> list[Period]:
    """What another configuration does at the events of the run with the paper's preset."""
    choice = (*oracle.PRESETS, "accept_all").index(criteria)
    repeated = []
    with precision(dtype):
        update = event_update(dtype, predictor, svd_rank, scope)
        for event in events(dtype):
            fields = ("pdt_count", "history")
            state = {field: getattr(event.before, field) for field in fields}
            outer, after, metrics = to_numpy(update(choice, event.inner, state, event.params))
            repeated.append(event._replace(outer=outer, after=after, metrics=metrics))
    return repeated


# What the oracle says about it.


def coordinate_groups(scope: str) -> np.ndarray:
    sizes = [leaf.size for leaf in jax.tree.leaves(initial_params("float32"))]
    return np.repeat(LEAF_GROUPS[scope], sizes)


def oracle_path(
    event: Period, predictor: str, svd_rank: float = -1, exact: bool = True, scope: str = "global"
) -> np.ndarray:
    return oracle.predicted_path_by_group(
        predictor, event.snapshots, HORIZON, svd_rank, exact, coordinate_groups(scope)
    )


def assert_within_step(
    actual: np.ndarray, expected: np.ndarray, move: np.ndarray, tolerance: float
) -> None:
    """The error is a small part of one epoch's step, in norm and in every coordinate."""
    error = actual - expected
    assert np.linalg.norm(error) <= tolerance * np.linalg.norm(move)
    assert np.max(np.abs(error)) <= tolerance * np.max(np.abs(move))


def assert_same_mask(
    event: Period, path: np.ndarray, preset: str, scope: str, dtype: str
) -> np.ndarray:
    """The masks are equal but for a few coordinates within rounding of a bound."""
    expected, slack = oracle.mask_and_slack(preset, path, event.moved)
    groups = coordinate_groups(scope)
    square_sum = np.bincount(groups, event.moved**2)
    scale = np.sqrt(square_sum / np.bincount(groups))[groups]
    on_boundary = slack < BOUNDARY_WIDTH[dtype] * scale
    assert on_boundary.mean() <= MAX_BOUNDARY_FRACTION[dtype]
    np.testing.assert_array_equal(event.mask[~on_boundary], expected[~on_boundary])
    return expected


def assert_same_eigenvalues(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Two sets of complex numbers are equal, whatever their order."""
    assert len(actual) == len(expected)
    distance = np.abs(actual[:, None] - expected[None, :])
    assert distance.min(axis=0).max() <= tolerance
    assert distance.min(axis=1).max() <= tolerance


# The oracle alone.


def toy_steps(step: float | np.ndarray = 0.01, **options: Any) -> int:
    """Steps of the oracle's gradient descent until the toy loss is at most 0.1."""
    run = oracle.Run(oracle.TOY_START, **options)
    while oracle.toy_loss(run.weights[-1]) > 0.1:
        run.step(-step * oracle.toy_gradient(run.weights[-1]))
    return len(run.weights) - 1


def test_oracle_gradient_descent_takes_the_published_steps_on_the_toy():
    assert toy_steps(start=1000) == 53


def test_oracle_triple_step_in_three_coordinates_takes_the_published_steps_on_the_toy():
    assert toy_steps(step=0.01 * np.array([3, 3, 3, 1, 1, 1]), start=1000) == 25


TOY_RUNS = (
    ({"preset": "bounded", "history": 4, "horizon": 5, "start": 5, "interval": 0}, 27),
    ({"preset": "bounded"}, 29),
    ({"preset": "paper"}, 52),
)


@pytest.mark.parametrize(("options", "steps"), TOY_RUNS)
def test_oracle_takes_the_published_steps_on_the_toy(options, steps):
    assert toy_steps(**options) == steps


@by_rank
def test_oracle_rank_is_the_rank_of_pydmd(svd_rank):
    for event in events("float64"):
        x = event.snapshots[:, :-1]
        sigma = np.linalg.svd(x, compute_uv=False)
        rank = oracle.truncation_rank(sigma, x.shape, svd_rank)
        assert rank == pydmd.utils.compute_rank(x, svd_rank)


@pytest.mark.parametrize("exact", [True, False])
@by_rank
def test_oracle_path_is_the_evolution_of_pydmd_modes(svd_rank, exact):
    for event in events("float64"):
        newest = event.snapshots[:, -1]
        dmd = pydmd.DMD(svd_rank=svd_rank, exact=exact).fit(event.snapshots)
        amplitudes = np.linalg.lstsq(dmd.modes, newest, rcond=None)[0]
        expected = [(dmd.modes @ ((dmd.eigs**k - 1) * amplitudes)).real for k in range(1, 6)]
        actual = oracle.predicted_path("dmd", event.snapshots, 5, svd_rank, exact)
        assert_within_step(actual[-1], expected[-1], event.moved, 1e-7)


# Predictions.


@functools.cache
def compiled(predictor: str, **options: Any) -> Any:
    return jax.jit(PREDICTORS[predictor](**options), static_argnums=1)


def gram_path(event: Period, predictor: Any, dtype: str) -> np.ndarray:
    """The path of a predictor, from a Gram matrix in the given dtype."""
    trees = (*in_time(event.before, event.params), anchor(event.before, event.params))
    basis = np.stack([flat(tree) for tree in trees], axis=1).astype(dtype)
    with precision(dtype):
        gram = pdt_optax.predictors.Gram(matrix=jnp.asarray(basis.T @ basis), size=len(basis))
        coefficients = np.asarray(predictor(gram, HORIZON), np.float64)
    return coefficients @ basis.T.astype(np.float64)


@pytest.mark.parametrize(
    ("predictor", "exact", "svd_rank"),
    [("dmd", True, svd_rank) for svd_rank in RANKS]
    + [("affine_dmd", True, svd_rank) for svd_rank in RANKS]
    + [("dmd", False, -1), ("dmd", False, 2), ("affine_dmd", False, -1), ("affine_dmd", False, 2)],
)
@by_dtype
def test_decomposition_predictions(dtype, predictor, exact, svd_rank):
    for event in events(dtype):
        actual = gram_path(event, compiled(predictor, svd_rank=svd_rank, exact=exact), dtype)
        expected = oracle_path(event, predictor, svd_rank, exact)
        for k in range(HORIZON):
            assert_within_step(actual[k], expected[k], event.moved, PREDICTION_TOLERANCE[dtype])


@pytest.mark.parametrize("predictor", ["linear", "last_increment", "average"])
@by_dtype
def test_control_predictions(dtype, predictor):
    for event in events(dtype):
        actual = gram_path(event, compiled(predictor), dtype)
        expected = oracle_path(event, predictor)
        for k in range(HORIZON):
            assert_within_step(actual[k], expected[k], event.moved, PREDICTION_TOLERANCE[dtype])


@by_rank
@by_dtype_quickly
def test_unmasked_jump_lands_on_the_prediction(dtype, svd_rank):
    for event in repeat_events(dtype, "accept_all", svd_rank=svd_rank):
        expected = np.where(event.moved == 0, 0, oracle_path(event, "dmd", svd_rank)[-1])
        assert_within_step(event.displacement, expected, event.moved, PREDICTION_TOLERANCE[dtype])


@by_configuration
@by_dtype_quickly
def test_unmasked_jump_lands_on_the_prediction_of_its_group(dtype, predictor, scope):
    groups = coordinate_groups(scope)
    for event in repeat_events(dtype, "accept_all", predictor, scope=scope):
        path = oracle_path(event, predictor, scope=scope)
        actual, move = event.displacement, event.moved
        expected = np.where(move == 0, 0, path[-1])
        for group in np.unique(groups):
            member = groups == group
            assert_within_step(
                actual[member], expected[member], move[member], PREDICTION_TOLERANCE[dtype]
            )


# Masks.


@by_configuration
@by_preset
@by_dtype
def test_mask_of_every_preset(dtype, preset, predictor, scope):
    accepted = 0
    for event in repeat_events(dtype, preset, predictor, scope=scope):
        path = oracle_path(event, predictor, scope=scope)
        accepted += assert_same_mask(event, path, preset, scope, dtype).sum()
    assert accepted > 0


@by_scope
@by_dtype
def test_mask_of_the_reference_at_its_own_rank(dtype, scope):
    for event in repeat_events(dtype, "reference", svd_rank=0, scope=scope):
        path = oracle_path(event, "dmd", 0, scope=scope)
        assert_same_mask(event, path, "reference", scope, dtype)


@by_dtype
def test_mask_of_the_average_under_a_final_sign(dtype):
    for event in repeat_events(dtype, "reference", "average"):
        assert_same_mask(event, oracle_path(event, "average"), "reference", "global", dtype)


@pytest.mark.parametrize("preset", ["paper", "bounded"])
@by_dtype
def test_average_does_not_move_on_every_step_so_nothing_is_accepted(dtype, preset):
    for event in repeat_events(dtype, preset, "average"):
        expected, _ = oracle.mask_and_slack(preset, oracle_path(event, "average"), event.moved)
        assert not expected.any()
        assert not event.mask.any()
        assert event.metrics.rejected


# Whole runs.


@by_preset
@by_dtype
def test_training_predicts_when_the_oracle_does(dtype, preset):
    run = oracle.Run(train(dtype, preset)[0].snapshots[:, -1], preset=preset)
    for period in train(dtype, preset):
        assert is_event(period) == run.is_due()
        run.step(period.moved)
        assert int(period.after.last_prediction) == (run.events[-1].t if run.events else 0)


@by_preset
@by_dtype
def test_training_masks_what_the_oracle_masks(dtype, preset):
    svd_rank = 0 if preset == "reference" else -1
    for event in events(dtype, preset):
        assert_same_mask(event, oracle_path(event, "dmd", svd_rank), preset, "global", dtype)


@by_preset
@by_dtype
def test_training_moves_accepted_coordinates_to_the_prediction(dtype, preset):
    svd_rank = 0 if preset == "reference" else -1
    for event in events(dtype, preset):
        path = oracle_path(event, "dmd", svd_rank)
        expected = np.where(event.mask, path[-1], event.moved)
        assert_within_step(event.displacement, expected, event.moved, PREDICTION_TOLERANCE[dtype])


@by_preset
@by_dtype
def test_training_without_event_is_bit_identical_to_the_optimizer(dtype, preset):
    for period in train(dtype, preset):
        if not is_event(period):
            np.testing.assert_array_equal(flat(period.outer), flat(period.inner))


@by_preset
@by_dtype
def test_training_keeps_the_merged_weights_in_the_history(dtype, preset):
    eps = np.finfo(dtype).eps
    for period in train(dtype, preset)[HISTORY - 1 :]:
        snapshot = period.newest
        np.testing.assert_array_equal(snapshot, period.snapshots[:, -1])
        for j, increment in enumerate(reversed(in_time(period.before, period.params)), start=2):
            snapshot = snapshot - flat(increment)
            np.testing.assert_allclose(snapshot, period.snapshots[:, -j], atol=4 * eps)


@by_preset
@by_dtype
def test_training_reports_the_mask_ratio(dtype, preset):
    for event in events(dtype, preset):
        metrics = event.metrics
        assert float(metrics.mask_ratio) == pytest.approx(event.mask.mean(), rel=1e-6)
        sizes = [leaf.size for leaf in jax.tree.leaves(event.params)]
        per_leaf = [part.mean() for part in np.split(event.mask, np.cumsum(sizes)[:-1])]
        actual = [float(x) for x in jax.tree.leaves(metrics.mask_ratio_per_leaf)]
        assert actual == pytest.approx(per_leaf, rel=1e-6)


@by_dtype
def test_training_reports_the_error_of_the_first_predicted_step(dtype):
    for event in events(dtype):
        error = oracle_path(event, "dmd")[0] - event.moved
        expected = np.linalg.norm(error) / np.linalg.norm(event.moved)
        actual = float(event.metrics.prediction_error)
        assert actual == pytest.approx(expected, abs=PREDICTION_TOLERANCE[dtype])


@pytest.mark.parametrize("largest_small", quick([2**16, 320, 0], 0))
@by_preset
def test_replay_of_a_whole_run(preset, largest_small):
    """Of leaves that lie end to end, the largest by itself, and each by itself."""
    periods = train("float64", preset, largest_small)
    alone = len(jax.tree.leaves(periods[0].after.history.anchor))
    assert alone == {2**16: 0, 320: 1, 0: 4}[largest_small]
    run = oracle.Run(periods[0].snapshots[:, -1], preset=preset)
    for period in periods:
        before = run.weights[-1]
        after = run.step(period.moved)
        assert_within_step(period.displacement, after - before, period.moved, 1e-6)


# The spectrum.


@by_rank
@by_dtype
def test_eigenvalues_are_those_of_pydmd(dtype, svd_rank):
    for event in repeat_events(dtype, "accept_all", svd_rank=svd_rank):
        expected = pydmd.DMD(svd_rank=svd_rank, exact=True).fit(event.snapshots).eigs
        eigenvalues = event.metrics.eigenvalues
        assert eigenvalues.shape == (1, HISTORY - 1)
        actual = eigenvalues[eigenvalues != 0]
        assert_same_eigenvalues(actual, expected, EIGENVALUE_TOLERANCE[dtype])


@by_dtype
def test_spectral_radius_is_that_of_pydmd(dtype):
    for event in events(dtype):
        expected = np.abs(pydmd.DMD(svd_rank=-1, exact=True).fit(event.snapshots).eigs).max()
        actual = event.metrics.spectral_radius
        np.testing.assert_allclose(actual, [expected], atol=EIGENVALUE_TOLERANCE[dtype])


# The toy.


@pytest.mark.parametrize(("options", "steps"), TOY_RUNS)
def test_toy_takes_the_published_steps(options, steps):
    options = {"criteria" if key == "preset" else key: value for key, value in options.items()}
    assert len(toy_trajectory(**options)) - 1 == steps


@by_preset
def test_toy_follows_the_oracle(preset):
    trajectory = toy_trajectory(criteria=preset)
    run = oracle.Run(oracle.TOY_START, preset=preset)
    for weights in trajectory[1:]:
        run.step(-0.01 * oracle.toy_gradient(run.weights[-1]))
        np.testing.assert_allclose(weights, run.weights[-1], atol=1e-6)


@functools.cache
def toy_trajectory(**options: Any) -> list[np.ndarray]:
    """Weights of PDT on gradient descent until the toy loss is at most 0.1."""
    with precision("float64"):
        tx = optax.chain(optax.sgd(0.01), extrapolating(1, **options))
        update = jax.jit(tx.update)
        params = jnp.asarray(oracle.TOY_START)
        state = tx.init(params)
        trajectory = [np.asarray(params)]
        while oracle.toy_loss(trajectory[-1]) > 0.1:
            gradient = jnp.asarray(oracle.toy_gradient(trajectory[-1]))
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            trajectory.append(np.asarray(params))
        return trajectory


# Histories whose snapshots are linearly dependent.


def linear_system(dimension: int) -> np.ndarray:
    """The states, as columns, of a linear system that lives in a small subspace."""
    modes = np.random.default_rng(dimension).normal(size=(40, dimension))
    eigenvalues = np.array([1.0, 0.8, 0.5])[:dimension, None]
    return modes @ eigenvalues ** np.arange(HISTORY + HORIZON)


def continuation(states: np.ndarray) -> np.ndarray:
    return (states[:, HISTORY:] - states[:, HISTORY - 1 : HISTORY]).T


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_oracle_continues_linearly_dependent_snapshots(dimension):
    states = linear_system(dimension)
    actual = oracle.predicted_path("dmd", states[:, :HISTORY], HORIZON)
    np.testing.assert_allclose(actual, continuation(states), atol=1e-10)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_linearly_dependent_snapshots_are_continued_exactly(dimension):
    states = linear_system(dimension)
    snapshots = states[:, :HISTORY]
    basis = np.column_stack([np.diff(snapshots, axis=1), snapshots[:, -1]])
    with precision("float64"):
        gram = pdt_optax.predictors.Gram(matrix=jnp.asarray(basis.T @ basis), size=len(basis))
        coefficients = np.asarray(compiled("dmd")(gram, HORIZON))
    np.testing.assert_allclose(coefficients @ basis.T, continuation(states), atol=1e-6)
