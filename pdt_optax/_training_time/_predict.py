"""The prediction: from a network, its data and its optimizer to a number of steps."""

import dataclasses
import math
from typing import Any, Literal

import jax
import numpy as np
import optax

from pdt_optax._checks import is_int, is_number
from pdt_optax._training_time import _kernel, _losses
from pdt_optax._training_time._closed_form import mse_curve
from pdt_optax._training_time._dynamics import (
    SAMPLINGS,
    Sampling,
    Trajectory,
    function_space_sgd,
    sample_batches,
)
from pdt_optax._training_time._gradients import ApplyFn, Network
from pdt_optax._training_time._losses import LossFn
from pdt_optax._training_time._settings import SGD
from pdt_optax._training_time._steps import steps_to_threshold

Reference = Literal["initial", "final", "absolute"]
_EXACT_SIZE = 3000
_PROJECT_ABOVE_BYTES = 2**30


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingTimePrediction:
    """What training is predicted to do; made by :func:`pdt_optax.predict_training_time`.

    Attributes:
      steps: until the loss is at most the threshold; None unless `status` is ``'reached'``.
      status: ``'reached'``; ``'not_reached'`` within `max_steps`; ``'never'``: weight decay, or
        a kernel without the rank, keeps the loss above; ``'unstable'``: the linearised
        network diverges (a real one may yet find flatter ground).
      grid: numbers of steps, int64.
      loss: predicted after `grid` steps over all examples, float64.
      accuracy: the same, None if unknown.
      initial_loss: of the network itself.
      threshold: the loss to reach.
      effective_learning_rate: the greatest learning rate over one less the momentum.
      lambda_max: greatest eigenvalue of the kernel.
      stability: greatest step along the steepest direction in units of the greatest that
        does not diverge; stable below 1.
      kernel_rank: number of eigenvalues that are not rounding.
      sample_gradients: gradients of single examples it took; training takes steps times batch.
      warnings: reasons to distrust it.
    """

    steps: int | None
    status: Literal["reached", "not_reached", "never", "unstable"]
    grid: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    initial_loss: float
    threshold: float
    effective_learning_rate: float
    lambda_max: float
    stability: float
    kernel_rank: int
    sample_gradients: int
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The arguments of a prediction that do not depend on the examples."""

    apply_fn: ApplyFn
    params: Any
    loss: LossFn
    optimizer: SGD
    batch_size: int | None
    max_steps: int
    factor: float
    reference: Reference
    kernel: str
    projection_dim: int | None
    num_cotangents: int
    linearizations: int
    sampling: Sampling


def predict_training_time(
    apply_fn: ApplyFn,
    params: Any,
    data: Any,
    *,
    loss: str | LossFn,
    learning_rate: float | optax.Schedule,
    max_steps: int,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    batch_size: int | None = None,
    threshold: float | None = None,
    relative: float | None = None,
    reference: Reference = "initial",
    kernel: str = "auto",
    projection_dim: int | None = None,
    num_cotangents: int = 2,
    linearizations: int = 1,
    max_samples: int | None = None,
    sampling: Sampling = "reshuffle",
    key: jax.Array | None = None,
) -> TrainingTimePrediction:
    r"""Predicts the loss curve of SGD, and the steps to a loss, without training.

    A pretrained network moves so little in fine-tuning that its linearisation tells how the
    loss falls. See ``docs/training_time.md`` for when not to trust it.

    Args:
      apply_fn: function ``(params, x) -> (n, C)`` that treats every example by itself: batch
        norm and dropout in inference mode.
      params: pretrained parameters; leaves that are not floating-point are constants.
      data: ``(inputs, targets)`` of shapes ``(N, ...)``, or an iterable of such batches.
      loss: as in :func:`pdt_optax.function_space_sgd`; averaged over the examples.
      learning_rate: constant, or a schedule. Only SGD is predicted: no Adam, no clipping.
      max_steps: steps to predict at most.
      momentum: as in :func:`optax.sgd`.
      nesterov: as in :func:`optax.sgd`.
      weight_decay: as in :func:`pdt_optax.mse_curve`, toward zero.
      decoupled: as in :func:`pdt_optax.mse_curve`.
      batch_size: examples a step; None for all.
      threshold: the loss to reach; give this or `relative`.
      relative: the loss to reach as a factor of the `reference`.
      reference: ``'initial'`` the initial loss; ``'final'`` the one predicted after `max_steps`,
        with a factor of at least 1; ``'absolute'`` one. The choice changes the answer.
      kernel: a form of :func:`pdt_optax.empirical_kernel`, or ``'auto'``: exact up to 3000
        outputs in all, otherwise by class. ``'trace'`` is cheapest, and as good where the last
        layer is freshly initialised near zero.
      projection_dim: as in :func:`pdt_optax.empirical_kernel`; by default ``max(2N, 2000)`` if
        the gradients of one output of all examples take more than 1 GiB and the form is not
        exact, otherwise none.
      num_cotangents: as in :func:`pdt_optax.empirical_kernel`.
      linearizations: how often the network is linearised: at the start, and where the
        prediction brings the weights at losses between the initial one and the threshold,
        evenly spaced in the logarithm. Follows a kernel that moves, without any training.
      max_samples: predict from as many examples, and extrapolate the logarithm of the steps
        from this number and half of it to ``N``, linearly in that of the number (our own rule).
        The curve is that of the examples used.
      sampling: as in :func:`pdt_optax.sample_batches`.
      key: of batches, signs and projections; by default ``jax.random.key(0)``.

    Returns:
      The prediction.

    Raises:
      ValueError: for an argument out of range, data that do not fit, parameters or outputs
        that are not finite, or a kernel too large for memory.

    Examples:
      >>> import numpy as np
      >>> import pdt_optax
      >>> inputs, targets = np.eye(2, dtype=np.float32), np.ones((2, 1))
      >>> prediction = pdt_optax.predict_training_time(
      ...     lambda w, x: x @ w, np.zeros((2, 1), np.float32), (inputs, targets), loss="mse",
      ...     learning_rate=1.0, relative=0.1, max_steps=10,
      ... )
      >>> prediction.steps, prediction.loss[:3].tolist()
      (2, [0.5, 0.125, 0.03125])

    References:
      Zancato et al., `Predicting Training Time Without Training
      <https://arxiv.org/abs/2008.12478>`_, 2020
    """
    optimizer = SGD(learning_rate, momentum, nesterov, weight_decay, decoupled)
    if kernel != "auto":
        _kernel.check_kernel_arguments(kernel, num_cotangents, projection_dim)
    else:
        _kernel.check_kernel_arguments("exact", num_cotangents, projection_dim)
    for name, value in (("max_steps", max_steps), ("linearizations", linearizations)):
        if not is_int(value, 1):
            raise ValueError(f"`{name}` must be an int of at least 1, got {value!r}.")
    if sampling not in SAMPLINGS:
        raise ValueError(
            f"`sampling` must be one of {', '.join(map(repr, SAMPLINGS))}; got {sampling!r}."
        )
    factor, reference = _target(threshold, relative, reference)
    if reference == "final" and linearizations > 1:
        raise ValueError("`linearizations` must be 1 with `reference='final'`.")
    inputs, targets = _gather(data)
    size = len(inputs)
    if batch_size is not None and (not is_int(batch_size, 1) or batch_size > size):
        raise ValueError(
            f"`batch_size` must be None or an int from 1 to the {size} examples, "
            f"got {batch_size!r}."
        )
    least = 2 * (batch_size or 1)
    if max_samples is not None and not is_int(max_samples, least):
        raise ValueError(
            f"`max_samples` must be None or an int of at least two batches, {least}, "
            f"got {max_samples!r}."
        )
    plan = _Plan(
        apply_fn,
        params,
        _losses.resolve(loss),
        optimizer,
        batch_size,
        max_steps,
        factor,
        reference,
        kernel,
        projection_dim,
        num_cotangents,
        linearizations,
        sampling,
    )
    key = jax.random.key(0) if key is None else key
    if max_samples is None or max_samples >= size:
        return _predict(plan, inputs, targets, key)
    draw_key, order_key = jax.random.split(key)
    chosen = np.asarray(jax.random.permutation(order_key, size))[:max_samples]
    large = _predict(plan, inputs[chosen], targets[chosen], draw_key)
    half = chosen[: max_samples // 2]
    small = _predict(plan, inputs[half], targets[half], draw_key)
    return _extrapolated(large, small, math.log2(size / max_samples), max_steps)


def _target(threshold: Any, relative: Any, reference: Any) -> tuple[float, Reference]:
    if reference not in ("initial", "final", "absolute"):
        raise ValueError(
            f"`reference` must be 'initial', 'final' or 'absolute'; got {reference!r}."
        )
    if (threshold is None) == (relative is None):
        raise ValueError(
            f"give exactly one of `threshold` and `relative`, got {threshold!r} and {relative!r}."
        )
    if threshold is not None:
        if not is_number(threshold) or not math.isfinite(threshold):
            raise ValueError(f"`threshold` must be a finite number, got {threshold!r}.")
        return float(threshold), "absolute"
    least = 1 if reference == "final" else 0
    if not is_number(relative) or not 0 < relative < math.inf or relative < least:
        must = "at least 1 with `reference='final'`" if least else "positive"
        raise ValueError(f"`relative` must be {must}, got {relative!r}.")
    return float(relative), reference


def _gather(data: Any) -> tuple[np.ndarray, np.ndarray]:
    if not (isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple)):
        batches = list(data)
        if not batches:
            raise ValueError("`data` must hold one or more examples, got none.")
        data = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
    inputs, targets = map(np.asarray, data)
    if not inputs.ndim or not len(inputs):
        raise ValueError("`data` must hold one or more examples, got none.")
    if len(inputs) != len(targets):
        raise ValueError(
            "`data` must hold one target for each input, got "
            f"{len(targets)} targets and {len(inputs)} inputs."
        )
    return inputs, targets


def _predict(
    plan: _Plan, inputs: np.ndarray, targets: np.ndarray, key: jax.Array
) -> TrainingTimePrediction:
    network = Network(plan.apply_fn, plan.params, inputs)
    outputs = np.asarray(_kernel.check_outputs(network), np.float64)
    targets = _losses.resolve_targets(plan.loss, outputs, targets)
    with jax.enable_x64(True):
        initial = float(_losses.mean(plan.loss, outputs, targets))
    threshold = (
        plan.factor * {"initial": initial, "absolute": 1.0, "final": math.nan}[plan.reference]
    )
    rates = plan.optimizer.rates(plan.max_steps)
    batch_key, kernel_key = jax.random.split(key)
    kernel = _compute_kernel(plan, network, outputs.shape[1], kernel_key)
    eigenvalues = kernel.eigenvalues()
    greatest = float(eigenvalues.max())
    quadratic = plan.loss is _losses.half_squared_error
    curvature = (
        greatest / len(inputs) if quadratic else _curvature(plan.loss, kernel, outputs, targets)
    )
    stability = plan.optimizer.stability(curvature, float(rates.max()))

    never, cost = False, kernel.sample_gradients
    if quadratic and plan.batch_size is None and plan.linearizations == 1:
        curve = mse_curve(
            kernel, outputs - targets, origin=_origin(plan, network), **_options(plan.optimizer)
        )
        losses, accuracy = curve(np.arange(plan.max_steps + 1)), None
        exact = kernel.matrix.ndim == 4 and kernel.projection_dim is None
        if plan.optimizer.constant_rate and stability < 1 and plan.reference != "final":
            never = curve.asymptote(null_space=exact) > threshold
    else:
        losses, accuracy, more = _simulate(
            plan, network, kernel, outputs, targets, initial, threshold, (batch_key, kernel_key)
        )
        cost += more
    if plan.reference == "final":
        threshold = plan.factor * float(losses[-1])

    steps = 0 if initial <= threshold else steps_to_threshold(losses, threshold, plan.max_steps)
    diverges = not np.all(np.isfinite(losses)) or losses[-1] > 10 * abs(initial)
    if (stability >= 1 and (quadratic or steps is None) and steps != 0) or diverges:
        status = "unstable"
    elif steps is not None:
        status = "reached"
    else:
        status = "never" if never else "not_reached"
    rank = int(np.sum(eigenvalues > 1e-12 * greatest))
    return TrainingTimePrediction(
        steps=steps if status == "reached" else None,
        status=status,
        grid=np.arange(len(losses)),
        loss=losses,
        accuracy=accuracy,
        initial_loss=initial,
        threshold=threshold,
        effective_learning_rate=float(rates.max()) / (1 - plan.optimizer.momentum),
        lambda_max=greatest,
        stability=stability,
        kernel_rank=rank,
        sample_gradients=cost,
        warnings=_warnings(
            plan,
            quadratic,
            kernel,
            threshold / initial if initial else math.inf,
            stability,
            steps,
            rank < eigenvalues.size,
        ),
    )


def _compute_kernel(
    plan: _Plan, network: Network, num_outputs: int, key: jax.Array
) -> _kernel.EmpiricalKernel:
    size = len(network.inputs)
    form: Any = plan.kernel
    if form == "auto":
        form = "exact" if size * num_outputs <= _EXACT_SIZE else "class_block"
    projection_dim = plan.projection_dim
    if (
        projection_dim is None
        and form != "exact"
        and 4 * size * network.size > _PROJECT_ABOVE_BYTES
    ):
        projection_dim = max(2 * size, 2000)
    return _kernel.compute(
        network,
        num_outputs,
        form=form,
        num_cotangents=plan.num_cotangents,
        projection_dim=projection_dim,
        key=key,
    )


def _options(optimizer: SGD) -> dict[str, Any]:
    return {f.name: getattr(optimizer, f.name) for f in dataclasses.fields(optimizer)}


def _origin(plan: _Plan, network: Network) -> np.ndarray | None:
    return network.pushforward(network.leaves) if plan.optimizer.weight_decay else None


def _simulate(
    plan: _Plan,
    network: Network,
    kernel: _kernel.EmpiricalKernel,
    outputs: np.ndarray,
    targets: np.ndarray,
    initial: float,
    threshold: float,
    keys: tuple[jax.Array, jax.Array],
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Losses, accuracies, and the sample gradients of what was linearised anew."""
    size = len(outputs)
    batches = None
    if plan.batch_size is not None:
        batches = sample_batches(keys[0], size, plan.batch_size, plan.max_steps, plan.sampling)
    levels = [-math.inf]
    if 0 < threshold < initial:
        parts = np.arange(1, plan.linearizations) / plan.linearizations
        levels = [*(initial * (threshold / initial) ** parts), -math.inf]
    velocity = jax.tree.map(np.zeros_like, network.leaves)
    losses, accuracy, done, cost = [], [], 0, 0
    for index, level in enumerate(levels):
        path = function_space_sgd(
            kernel,
            outputs,
            targets,
            loss=plan.loss,
            steps=plan.max_steps - done,
            batches=None if batches is None else batches[done:],
            origin=_origin(plan, network),
            velocity=network.pushforward(velocity) if index else None,
            stop_below=level,
            start=done,
            **_options(plan.optimizer),
        )
        taken = len(path.loss) - 1
        done += taken
        is_last = level == -math.inf or done == plan.max_steps or not np.isfinite(path.loss[-1])
        kept = slice(None) if is_last else slice(taken)
        losses.append(path.loss[kept])
        accuracy.append(None if path.accuracy is None else path.accuracy[kept])
        if is_last:
            break
        network, velocity = _moved(plan, network, velocity, path)
        outputs = np.asarray(network.outputs(), np.float64)
        key = jax.random.fold_in(keys[1], index)
        kernel = _compute_kernel(plan, network, outputs.shape[1], key)
        cost += kernel.sample_gradients + 2 * size
    known = [part for part in accuracy if part is not None]
    return np.concatenate(losses), np.concatenate(known) if known else None, cost


def _moved(
    plan: _Plan, network: Network, velocity: Any, path: Trajectory
) -> tuple[Network, list[jax.Array]]:
    """The network where the trajectory ends, and its momentum buffer there."""

    def combined(vector):
        gradient = network.pullback(vector.samples)
        return jax.tree.map(
            lambda g, w, v: g + float(vector.weights) * w + float(vector.velocity) * v,
            gradient,
            network.leaves,
            velocity,
        )

    weights, momentum = combined(path.weights), combined(path.velocity)
    return network.moved(weights), momentum


def _curvature(
    loss: LossFn, kernel: _kernel.EmpiricalKernel, outputs: np.ndarray, targets: np.ndarray
) -> float:
    """Greatest eigenvalue of the kernel times the loss's second derivatives, by powers."""
    hessians = _losses.hessians(loss, outputs, targets) / len(outputs)
    vector, value = np.random.default_rng(0).normal(size=outputs.shape), 0.0
    for _ in range(200):
        image = kernel @ np.einsum("iab,ib->ia", hessians, vector)
        last, value = value, float(np.linalg.norm(image) / np.linalg.norm(vector))
        if value == 0 or abs(value - last) < 1e-6 * value:
            break
        vector = image / np.linalg.norm(image)
    return value


def _warnings(
    plan: _Plan,
    quadratic: bool,
    kernel: _kernel.EmpiricalKernel,
    relative: float,
    stability: float,
    steps: int | None,
    is_deficient: bool,
) -> tuple[str, ...]:
    late = 0.2 if quadratic else 0.3
    found = {
        f"The threshold is {relative:.2g} of the initial loss: below {late} the real kernel has "
        "moved and the prediction is too slow.": relative < late,
        f"The step is {stability:.2g} of the greatest stable one: the linearised network "
        "diverges, a real one may find flatter ground.": stability >= 1,
        f"Gradients are projected to {kernel.projection_dim} dimensions, fewer than two for each "
        "example: modes beyond the rank never decay.": kernel.projection_dim is not None
        and kernel.projection_dim < 2 * kernel.matrix.shape[-1 if kernel.matrix.ndim < 4 else 0],
        "The kernel has not full rank: residual outside it never decays.": steps is None
        and is_deficient,
        f"{steps} steps are few: one more or less is {100 / max(steps or 1, 1):.0f} %.": steps
        is not None
        and 0 < steps < 25,
    }
    return tuple(text for text, applies in found.items() if applies)


def _extrapolated(
    large: TrainingTimePrediction,
    small: TrainingTimePrediction,
    doublings: float,
    max_steps: int,
) -> TrainingTimePrediction:
    """The prediction of a subset, its steps extrapolated to all examples."""
    steps, status = large.steps, large.status
    if large.steps and small.steps:
        steps = round(large.steps * (large.steps / small.steps) ** doublings)
    elif large.steps:
        steps, status = None, "not_reached"
    if steps is not None and steps > max_steps:
        steps, status = None, "not_reached"
    note = (
        f"Steps are extrapolated from predictions of {large.steps} and, with half of the examples "
        f"used, {small.steps}; the curve is that of the examples used."
    )
    return dataclasses.replace(
        large,
        steps=steps,
        status=status,
        sample_gradients=large.sample_gradients + small.sample_gradients,
        warnings=(*large.warnings, note),
    )
