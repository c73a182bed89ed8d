"""Predictions of training time against real training with optax and plain NumPy."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from suites import quick

import pdt_optax

N, C, D, STEPS = 12, 2, 30, 60
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(N, D)) / np.sqrt(D)
TARGETS = RANDOM.normal(size=(N, C))
LABELS = np.arange(N) % C
WEIGHTS = RANDOM.normal(size=(D, C))
SCHEDULE = optax.cosine_decay_schedule(4.0, 50)


def linear(weights, inputs):
    return inputs @ weights


def squared(weights, chosen):
    return jnp.sum((jnp.asarray(INPUTS)[chosen] @ weights - jnp.asarray(TARGETS)[chosen]) ** 2) / (
        2 * len(chosen)
    )


def cross_entropy(weights, chosen):
    logits = jnp.asarray(INPUTS)[chosen] @ weights
    return optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.asarray(LABELS)[chosen]
    ).mean()


def train(loss, tx, batches):
    """Losses over all examples of real training, before each step and after the last."""
    everything = np.arange(N)

    def step(carry, batch):
        weights, state = carry
        updates, state = tx.update(jax.grad(loss)(weights, batch), state, weights)
        return (optax.apply_updates(weights, updates), state), loss(weights, everything)

    with jax.enable_x64(True):
        start = jnp.asarray(WEIGHTS), tx.init(jnp.asarray(WEIGHTS))
        (weights, _), losses = jax.jit(lambda b: jax.lax.scan(step, start, b))(batches)
        return np.append(losses, loss(weights, everything))


def predict(loss, **options):
    targets = TARGETS if loss == "mse" else LABELS
    options = {"learning_rate": 3.0, "max_steps": STEPS, "relative": 0.5} | options
    with jax.enable_x64(True):
        return pdt_optax.training_time.predict_training_time(
            linear, jnp.asarray(WEIGHTS), (INPUTS, targets), loss=loss, **options
        )


def optimizer(learning_rate=3.0, momentum=0.0, nesterov=False, weight_decay=0.0, decoupled=False):
    decay = optax.add_decayed_weights(weight_decay)
    trace = optax.trace(momentum, nesterov) if momentum else optax.identity()
    parts = (trace, decay) if decoupled else (decay, trace)
    return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate))


OPTIMIZERS = [
    {},
    {"momentum": 0.9, "learning_rate": 0.5},
    {"momentum": 0.9, "nesterov": True, "learning_rate": 0.5},
    {"weight_decay": 0.02},
    {"weight_decay": 0.02, "momentum": 0.8},
    {"weight_decay": 0.02, "momentum": 0.8, "nesterov": True, "learning_rate": 0.5},
    {"weight_decay": 0.02, "decoupled": True},
    {"weight_decay": 0.02, "decoupled": True, "momentum": 0.8},
    {
        "weight_decay": 0.02,
        "decoupled": True,
        "momentum": 0.8,
        "nesterov": True,
        "learning_rate": 0.5,
    },
    {"learning_rate": SCHEDULE},
    {"learning_rate": SCHEDULE, "momentum": 0.5, "weight_decay": 0.01},
]


def describe(options):
    return ", ".join(
        f"{name}={'cosine' if callable(value) else value}" for name, value in options.items()
    )


@pytest.mark.parametrize("options", OPTIMIZERS, ids=describe)
def test_closed_forms_are_real_training(options):
    everything = np.broadcast_to(np.arange(N), (STEPS, N))
    expected = train(squared, optimizer(**options), everything)
    prediction = predict("mse", **options)
    np.testing.assert_allclose(prediction.loss, expected, rtol=1e-10)
    assert prediction.steps == np.argmax(expected <= 0.5 * expected[0])
    curve = pdt_optax.training_time.mse_curve(
        pdt_optax.training_time.EmpiricalKernel(INPUTS @ INPUTS.T),
        INPUTS @ WEIGHTS - TARGETS,
        origin=INPUTS @ WEIGHTS,
        **{"learning_rate": 3.0} | options,
    )
    with jax.enable_x64(True):  # One step, by its roots.
        np.testing.assert_allclose(curve(STEPS), expected[-1], rtol=1e-10)


@pytest.mark.parametrize("options", quick(OPTIMIZERS, *OPTIMIZERS[::3]), ids=describe)
def test_function_space_sgd_is_real_training(options):
    key = jax.random.key(1)
    prediction = predict("softmax_cross_entropy", batch_size=5, key=key, **options)
    batches = pdt_optax.training_time.sample_batches(
        jax.random.split(key)[0], N, 5, STEPS, "reshuffle"
    )
    expected = train(cross_entropy, optimizer(**options), batches)
    np.testing.assert_allclose(prediction.loss, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "options", quick([OPTIMIZERS[i] for i in (1, 8, 10)], OPTIMIZERS[8]), ids=describe
)
def test_linearising_a_linear_network_anew_changes_nothing(options):
    options = {"batch_size": 4, "relative": 0.3} | options
    once = predict("softmax_cross_entropy", **options)
    often = predict("softmax_cross_entropy", linearizations=3, **options)
    np.testing.assert_allclose(often.loss, once.loss, rtol=1e-9)
    assert often.sample_gradients > once.sample_gradients


def test_kernel_is_interpolated_in_the_logarithm_of_the_loss():
    """Against a loop over steps in NumPy, with momentum."""
    random = np.random.default_rng(3)
    factors = random.normal(size=(3, 6, 6)) * np.array([1.0, 1.5, 2.0])[:, None, None]
    matrices = factors @ factors.swapaxes(1, 2)
    batches = random.integers(6, size=(40, 2))
    f, q, targets = np.zeros((6, 2)), np.zeros((6, 2)), random.normal(size=(6, 2))
    level = 0.5 * np.mean(np.sum(targets**2, axis=1))
    losses, shown = [level], [level, 0.7 * level, 0.5 * level]
    for batch in batches:
        place = np.interp(-np.log(losses[-1]), -np.log(shown), [0, 1, 2])
        low = min(int(place), 1)
        matrix = (low + 1 - place) * matrices[low] + (place - low) * matrices[low + 1]
        q = 0.8 * q + matrix[:, batch] @ (f - targets)[batch] / 2
        f = f - 0.01 * q
        losses.append(0.5 * np.mean(np.sum((f - targets) ** 2, axis=1)))
    assert losses[-1] < shown[-1]
    path = pdt_optax.training_time.function_space_sgd(
        list(map(pdt_optax.training_time.EmpiricalKernel, matrices)),
        np.zeros((6, 2)),
        targets,
        loss="mse",
        learning_rate=0.01,
        momentum=0.8,
        steps=40,
        batches=batches,
        kernel_losses=shown,
    )
    np.testing.assert_allclose(path.loss, losses, rtol=1e-12)


@pytest.mark.parametrize("losses", [(), (1.0,), (1.0, 1.0), (1.0, 0.0)])
def test_losses_of_kernels(losses):
    kernels = [pdt_optax.training_time.EmpiricalKernel(np.eye(2))] * 2
    with pytest.raises(ValueError, match="`kernel_losses` must be a positive loss for each"):
        pdt_optax.training_time.function_space_sgd(
            kernels, np.zeros((2, 1)), np.ones((2, 1)), loss="mse", learning_rate=0.1, steps=3,
            kernel_losses=losses,
        )  # fmt: skip


def test_a_kernel_that_grows_is_followed():
    """Two linear layers of one unit, the last one at first zero: real descent in NumPy."""
    x, rate, steps = np.linspace(0.5, 1.5, 5)[:, None].astype(np.float32), 0.02, 400
    targets, (a, b) = 2 * x, (1.0, 0.0)
    losses = []
    for _ in range(steps + 1):
        residual = a * b * x - targets
        losses.append(0.5 * np.mean(residual**2))
        slope = np.mean(residual * x)
        a, b = a - rate * b * slope, b - rate * a * slope
    real = int(np.argmax(np.array(losses) <= 0.05 * losses[0]))
    once, twice, often = (
        pdt_optax.training_time.predict_training_time(
            lambda w, x: x * w[0] * w[1],
            np.array([1.0, 0.0], np.float32),
            (x, targets),
            loss="mse",
            learning_rate=rate,
            relative=0.05,
            max_steps=steps,
            linearizations=number,
        )
        for number in (1, 2, 4)
    )
    assert once.steps > 1.4 * real
    assert twice.steps == pytest.approx(real, rel=0.15)
    assert often.steps == pytest.approx(real, rel=0.1)
    costs = [prediction.sample_gradients for prediction in (once, twice, often)]
    assert costs == [5, 20, 50]
    assert any("too slow" in warning for warning in once.warnings)


def test_mean_of_sgd_is_the_exact_second_moment():
    """Sampling with replacement: the recursion of the residual's second moment, in NumPy."""
    rate, batch, steps, runs = 2.0, 3, 30, 200
    theta = np.einsum("ij,ab->iajb", INPUTS @ INPUTS.T, np.eye(C)).reshape(N * C, N * C)
    residual = (INPUTS @ WEIGHTS - TARGETS).ravel()
    moment, expected = np.outer(residual, residual), []
    mask = np.kron(np.eye(N), np.ones((C, C)))
    step = np.eye(N * C) - rate * theta / N
    for _ in range(steps + 1):
        expected.append(np.trace(moment) / (2 * N))
        noise = theta @ (moment * mask) @ theta / N - theta @ moment @ theta / N**2
        moment = step @ moment @ step + rate**2 / batch * noise
    kernel = pdt_optax.training_time.EmpiricalKernel(theta.reshape(N, C, N, C))
    keys = jax.random.split(jax.random.key(0), runs)
    draws = [
        pdt_optax.training_time.sample_batches(k, N, batch, steps, "replacement") for k in keys
    ]
    predicted = np.array(
        [
            pdt_optax.training_time.function_space_sgd(
                kernel, INPUTS @ WEIGHTS, TARGETS, loss="mse", learning_rate=rate,
                steps=steps, batches=batches,
            ).loss
            for batches in draws
        ]
    )  # fmt: skip
    error = predicted.std(axis=0, ddof=1) / np.sqrt(runs)
    assert np.all(np.abs(predicted.mean(axis=0) - expected) <= 3 * error + 1e-12)


def mlp(params, inputs):
    hidden = jnp.tanh(inputs @ params["w"] + params["b"][None])
    return hidden @ params["v"]


def mlp_case(examples=9, outputs=3):
    random = np.random.default_rng(3)
    shapes = {"w": (4, 7), "b": (7,), "v": (7, outputs)}
    params = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return params, random.normal(size=(examples, 4)).astype(np.float32)


def jacobian(params, inputs):
    """By NumPy, for :func:`mlp`; (N, C, D) in float64."""
    w, b, v = (params[name].astype(np.float64) for name in "wbv")
    inputs = inputs.astype(np.float64)
    hidden = np.tanh(inputs @ w + b)
    slope = (1 - hidden**2)[:, None, :] * v.T[None]
    to_w = np.einsum("ni,nch->ncih", inputs, slope)
    to_v = np.einsum("nh,ca->ncha", hidden, np.eye(v.shape[1]))
    parts = (slope, to_w, to_v)
    return np.concatenate([p.reshape(len(inputs), v.shape[1], -1) for p in parts], axis=-1)


def test_kernels_of_a_network():
    params, inputs = mlp_case()
    jac = jacobian(params, inputs)
    exact = np.einsum("iad,jbd->iajb", jac, jac)
    by_class = np.einsum("iaja->aij", exact)
    expected = {"exact": exact, "class_block": by_class, "trace": by_class.mean(axis=0)}
    for form, matrix in expected.items():
        kernel = pdt_optax.training_time.empirical_kernel(
            mlp, params, inputs, kernel=form, num_cotangents=3
        )
        np.testing.assert_allclose(kernel.matrix, matrix, rtol=1e-4, atol=1e-4)
        assert kernel.sample_gradients == 27


def test_one_kernel_serves_several_predictions():
    kernel = pdt_optax.training_time.empirical_kernel(linear, WEIGHTS, INPUTS)
    for rate in (1.0, 3.0):
        computed = predict("mse", learning_rate=rate, kernel="exact")
        given = predict("mse", learning_rate=rate, kernel=kernel)
        np.testing.assert_allclose(given.loss, computed.loss, rtol=1e-5)
    other = pdt_optax.training_time.empirical_kernel(linear, WEIGHTS, INPUTS[1:])
    with pytest.raises(ValueError, match=r"`outputs` must be .* \(11, 2, 11, 2\), got \(12, 2\)"):
        predict("mse", kernel=other)
    with pytest.raises(ValueError, match="`max_samples` must be None where `kernel` is one"):
        predict("mse", kernel=kernel, max_samples=6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"num_cotangents": 2}, {"projection_dim": 16}])
def test_random_signs_and_projections_are_right_on_average(options):
    params, inputs = mlp_case()
    jac = jacobian(params, inputs)
    expected = np.einsum("iad,jad->ij", jac, jac) / 3
    options = {"kernel": "trace", "num_cotangents": 3} | options
    draws = np.array(
        [
            pdt_optax.training_time.empirical_kernel(
                mlp, params, inputs, key=jax.random.key(k), **options
            ).matrix
            for k in range(16)
        ]
    )
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - expected) < 5 * error + 1e-5)
    assert draws.std(axis=0).max() < np.diag(expected).max()


def test_parts_of_the_gradients_make_the_same_kernel(monkeypatch):
    params, inputs = mlp_case()
    whole = [
        pdt_optax.training_time.empirical_kernel(mlp, params, inputs, kernel=form).matrix
        for form in ("exact", "class_block", "trace")
    ]
    monkeypatch.setattr("pdt_optax.training_time._kernel.GRADIENT_BYTES", 16 * 3 * 56 * 2)
    monkeypatch.setattr("pdt_optax.training_time._gradients._CHUNK_SAMPLES", 4)
    for form, matrix in zip(("exact", "class_block", "trace"), whole, strict=True):
        kernel = pdt_optax.training_time.empirical_kernel(mlp, params, inputs, kernel=form)
        np.testing.assert_allclose(kernel.matrix, matrix, rtol=1e-5, atol=1e-5)
        assert kernel.sample_gradients > {"trace": 18}.get(form, 27)


def test_statuses():
    edge = 2 * N / np.linalg.eigvalsh(INPUTS @ INPUTS.T)[-1]
    assert predict("mse", learning_rate=1.2 * edge).status == "unstable"
    assert predict("mse", learning_rate=1.2 * edge).stability == pytest.approx(1.2)
    assert predict("mse", relative=1.5).steps == 0
    late = predict("mse", relative=1e-9)
    assert (late.status, late.steps) == ("not_reached", None)
    assert any("too slow" in warning for warning in late.warnings)
    assert predict("mse", relative=0.2, weight_decay=1.0, learning_rate=0.5).status == "never"
    final = predict("mse", relative=1.5, reference="final")
    assert final.threshold == pytest.approx(1.5 * final.loss[-1])
    momentum = predict("mse", momentum=0.9, learning_rate=0.5)
    assert momentum.effective_learning_rate == pytest.approx(5.0)


def test_steps_on_a_function_are_those_on_its_values():
    kernel = pdt_optax.training_time.EmpiricalKernel(np.diag([3.0, 0.5, 0.01]))
    curve = pdt_optax.training_time.mse_curve(kernel, np.ones((3, 1)), learning_rate=0.5)
    losses = (
        0.5
        / 3
        * np.sum(
            (1 - 0.5 / 3 * np.array([[3.0, 0.5, 0.01]])) ** (2 * np.arange(301)[:, None]), axis=1
        )
    )
    for threshold in (0.6, 0.5, 0.3, 0.17, 0.1, 1e-9):
        expected = next((t for t, loss in enumerate(losses) if loss <= threshold), None)
        assert pdt_optax.training_time.steps_to_threshold(curve, threshold, 300) == expected
        assert pdt_optax.training_time.steps_to_threshold(losses, threshold, 300) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "`learning_rate` must be positive or a schedule, got 0.0"),
        ({"learning_rate": optax.adam(1e-3)}, "`learning_rate` must be .* got an optimizer: only"),
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "`weight_decay` must be at least 0, got -1.0"),
        ({"nesterov": 1}, "`nesterov` must be a bool, got 1"),
        ({"batch_size": 0}, "`batch_size` must be None or an int from 1 to the 12 .* got 0"),
        ({"batch_size": 13}, "`batch_size` must be .* got 13"),
        ({"max_steps": 0}, "`max_steps` must be an int of at least 1, got 0"),
        ({"relative": None}, "exactly one of `threshold` and `relative`, got None and None"),
        ({"threshold": 0.1}, "exactly one of `threshold` and `relative`, got 0.1 and 0.5"),
        ({"relative": 0.0}, "`relative` must be positive, got 0.0"),
        ({"reference": "final"}, "`relative` must be at least 1 .* got 0.5"),
        ({"reference": "last"}, "`reference` must be .* got 'last'"),
        ({"kernel": "ntk"}, "`kernel` must be one of 'exact', .* got 'ntk'"),
        ({"projection_dim": 0}, "`projection_dim` must be None or .* got 0"),
        ({"num_cotangents": 0}, "`num_cotangents` must be an int of at least 1, got 0"),
        ({"linearizations": 0}, "`linearizations` must be an int of at least 1, got 0"),
        ({"max_samples": 1}, "`max_samples` must be None or .* got 1"),
        ({"sampling": "epoch"}, "`sampling` must be one of .* got 'epoch'"),
        ({"loss": "mae"}, "`loss` must be one of 'mse', .* got 'mae'"),
        ({"loss": optax.l2_loss}, r"`loss` must return a scalar .* shape \(2,\): sum"),
        ({"kernel": np.eye(2)}, "`kernel` must be a name or .* got ndarray"),
        ({"key": 0}, "`key` must be a random key, .* got 0"),
        ({"learning_rate": lambda step: 0.0 * step}, "`learning_rate` must not be 0 at all"),
    ],
)
def test_arguments(options, message):
    options = {"loss": "mse", "learning_rate": 0.1, "max_steps": 5, "relative": 0.5} | options
    with pytest.raises(ValueError, match=message):
        pdt_optax.training_time.predict_training_time(linear, WEIGHTS, (INPUTS, TARGETS), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": [[7], [9]]}, "`batches` must be integers from 0 to 1"),
        ({"batches": [[0.5], [1.0]]}, "`batches` must be integers from 0 to 1"),
        ({"origin": np.zeros((3, 2))}, r"`origin` must be \(N, C\) .* got \(3, 2\)"),
        ({"kernel": []}, "`kernel` must be one or several, got none"),
    ],
)
def test_arguments_of_function_space_sgd(options, message):
    options = {"kernel": pdt_optax.training_time.EmpiricalKernel(np.eye(2))} | options
    with pytest.raises(ValueError, match=message):
        pdt_optax.training_time.function_space_sgd(
            outputs=np.zeros((2, 2)),
            targets=np.array([0, 1]),
            loss="softmax_cross_entropy",
            learning_rate=1.0,
            steps=2,
            **options,
        )


def test_a_rate_above_the_limit_for_a_while():
    """The limit of the step is 2 / curvature; by hand on three modes."""
    curvatures = np.array([4.0, 1.0, 0.25])
    rates = np.array([1.2] * 2 + [0.3] * 18) * 2 / 4
    residual, losses = np.ones(3), []
    for rate in [0, *rates]:
        residual = residual * (1 - rate * curvatures)
        losses.append(np.sum(residual**2) / 6)
    inputs = np.diag(np.sqrt(3 * curvatures))
    rising = [
        pdt_optax.training_time.predict_training_time(
            lambda weights, inputs: inputs @ weights,
            np.zeros((3, 1)),
            (inputs, -np.ones((3, 1))),
            loss="mse",
            learning_rate=lambda step: jnp.asarray(rates)[step],
            max_steps=20,
            threshold=threshold,
        )
        for threshold in (0.05, 1e-9)
    ]
    np.testing.assert_allclose(rising[0].loss, losses, rtol=1e-5)
    assert rising[0].status == "reached"
    assert rising[0].steps == np.flatnonzero(np.array(losses) <= 0.05)[0]
    assert rising[1].status == "not_reached"
    assert any("diverges meanwhile" in warning for warning in rising[0].warnings)


def test_curve_of_a_rate_that_rises_from_nothing_and_of_one_that_overflows():
    kernel = pdt_optax.training_time.EmpiricalKernel(np.array([[2.0]]))
    rising = pdt_optax.training_time.mse_curve(
        kernel, np.ones((1, 1)), learning_rate=lambda t: 0.25 * t
    )
    np.testing.assert_allclose(rising([0, 1, 2]), [0.5, 0.5, 0.125])
    assert pdt_optax.training_time.steps_to_threshold(rising, 0.2, 600) == 2
    wild = pdt_optax.training_time.mse_curve(kernel, np.ones((1, 1)), learning_rate=100.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not np.isfinite(wild(np.arange(300))[-1])
        assert not np.isfinite(wild(300))


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decays_to_zero", [False, True])
def test_weights_that_decay(decoupled, decays_to_zero):
    """They are what NumPy's descent on the weights themselves arrives at."""
    start, weights, velocity = WEIGHTS, WEIGHTS, np.zeros_like(WEIGHTS)
    origin = 0 * start if decays_to_zero else start
    for _ in range(20):
        gradient = INPUTS.T @ (INPUTS @ weights - TARGETS) / N
        decay = 0.02 * (weights - origin)
        velocity = 0.5 * velocity + gradient + (0 if decoupled else decay)
        weights = weights - 0.5 * (velocity + (decay if decoupled else 0))
    path = pdt_optax.training_time.function_space_sgd(
        pdt_optax.training_time.EmpiricalKernel(INPUTS @ INPUTS.T),
        INPUTS @ start,
        TARGETS,
        loss="mse",
        learning_rate=0.5,
        steps=20,
        momentum=0.5,
        weight_decay=0.02,
        decoupled=decoupled,
        origin=INPUTS @ start if decays_to_zero else None,
    )
    found = INPUTS.T @ path.weights.samples + path.weights.weights * start
    np.testing.assert_allclose(found, weights, rtol=1e-9)


def test_arguments_of_batches_and_curves():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"`sampling` must be one of .* got 'replacment'"):
        pdt_optax.training_time.sample_batches(key, 4, 2, 1, "replacment")  # pyright: ignore
    with pytest.raises(ValueError, match="`batch_size` must be an int from 1 to the 4 examples"):
        pdt_optax.training_time.sample_batches(key, 4, 5, 1, "reshuffle")
    with pytest.raises(ValueError, match="`steps` must be an int of at least 1, got 0"):
        pdt_optax.training_time.sample_batches(key, 4, 2, 0, "reshuffle")
    with pytest.raises(ValueError, match=r"`key` must be a random key, .* got 3"):
        pdt_optax.training_time.sample_batches(3, 4, 2, 1, "reshuffle")  # pyright: ignore
    curve = pdt_optax.training_time.mse_curve(
        pdt_optax.training_time.EmpiricalKernel(np.eye(2)), np.ones((2, 1)), learning_rate=0.1
    )
    for steps in (1.5, -1):
        with pytest.raises(ValueError, match="`steps` must be integers of at least 0"):
            curve(steps)


@pytest.mark.parametrize(
    ("apply_fn", "params", "data", "loss", "message"),
    [
        (linear, WEIGHTS, (INPUTS[:0], TARGETS[:0]), "mse", "`data` must hold one or more .* none"),
        (linear, WEIGHTS, [], "mse", "`data` must hold one or more examples, got none"),
        (linear, WEIGHTS, (INPUTS, TARGETS[1:]), "mse", "11 targets and 12 inputs"),
        (linear, WEIGHTS * np.nan, (INPUTS, TARGETS), "mse", "`params` must be finite"),
        (linear, WEIGHTS, (INPUTS * np.inf, TARGETS), "mse", "outputs of `apply_fn` must be"),
        (linear, WEIGHTS, (INPUTS, TARGETS[:, :1]), "mse", r"\(12, 2\), got \(12, 1\)"),
        (linear, WEIGHTS, (INPUTS, LABELS), "mse", r"\(12, 2\), got \(12,\)"),
        (linear, WEIGHTS, (INPUTS, LABELS + 1), "softmax_cross_entropy", r"\[0, 2\), got 1 to 2"),
        (lambda w, x: (x @ w)[:, 0], WEIGHTS, (INPUTS, TARGETS), "mse", r"shape \(examples, C\)"),
        (
            lambda w, x: (x - x.mean(axis=0, keepdims=True)) @ w,
            WEIGHTS,
            (INPUTS, TARGETS),
            "mse",
            "`apply_fn` must treat every example by itself",
        ),
    ],
)  # fmt: skip
def test_data(apply_fn, params, data, loss, message):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        pdt_optax.training_time.predict_training_time(
            apply_fn, params, data, loss=loss, learning_rate=0.1, max_steps=5, relative=0.5
        )


def test_a_kernel_too_large_for_memory():
    inputs = np.zeros((20_000, 1), np.float32)
    with pytest.raises(ValueError, match=r"bytes, more than .* use a cheaper `kernel`"):
        pdt_optax.training_time.empirical_kernel(linear, np.zeros((1, 3), np.float32), inputs)


def test_batches_of_data_are_joined():
    halves = ((INPUTS[:6], TARGETS[:6]), (INPUTS[6:], TARGETS[6:]))
    options = {"loss": "mse", "learning_rate": 1.0, "max_steps": 5, "relative": 0.9}
    whole = pdt_optax.training_time.predict_training_time(
        linear, WEIGHTS, (INPUTS, TARGETS), **options
    )
    joined = pdt_optax.training_time.predict_training_time(linear, WEIGHTS, iter(halves), **options)
    np.testing.assert_array_equal(joined.loss, whole.loss)
