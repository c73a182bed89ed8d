"""The prediction: from a network, its data and its optimizer to a number of steps."""

import math
from typing import Any

import jax
import numpy as np
import optax

from pdt_optax._checks import check_key, is_int
from pdt_optax.training_time import _kernel, _losses
from pdt_optax.training_time._closed_form import check_fit, mse_curve
from pdt_optax.training_time._dynamics import Sampling
from pdt_optax.training_time._gradients import ApplyFn, Network
from pdt_optax.training_time._kernel import EmpiricalKernel
from pdt_optax.training_time._losses import LossFn
from pdt_optax.training_time._plan import Plan, Reference
from pdt_optax.training_time._prediction import TrainingTimePrediction, extrapolated, warnings
from pdt_optax.training_time._relinearized import simulate
from pdt_optax.training_time._settings import SGD
from pdt_optax.training_time._steps import steps_to_threshold


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
    kernel: str | EmpiricalKernel = "auto",
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
      loss: as in :func:`pdt_optax.training_time.function_space_sgd`; averaged over the examples.
      learning_rate: constant, or a schedule. Only SGD is predicted: no Adam, no clipping.
      max_steps: steps to predict at most.
      momentum: as in :func:`optax.sgd`.
      nesterov: as in :func:`optax.sgd`.
      weight_decay: as in :func:`pdt_optax.training_time.mse_curve`, toward zero.
      decoupled: as in :func:`pdt_optax.training_time.mse_curve`.
      batch_size: examples a step; None for all.
      threshold: the loss to reach; give this or `relative`.
      relative: the loss to reach as a factor of the `reference`.
      reference: ``'initial'`` the initial loss; ``'final'`` the one predicted after `max_steps`,
        with a factor of at least 1; ``'absolute'`` one. The choice changes the answer.
      kernel: a form of :func:`pdt_optax.training_time.empirical_kernel`, or ``'auto'``: exact up
        to 3000 outputs in all, otherwise by class. ``'trace'`` is cheapest, and as good where the
        last layer is freshly initialised near zero. Or a kernel of this network and these inputs,
        which then serves predictions of several optimizers.
      projection_dim: as in :func:`pdt_optax.training_time.empirical_kernel`; by default
        ``max(2N, 2000)`` if the gradients of one output of all examples take more than 1 GiB and
        the form is not exact, otherwise none.
      num_cotangents: as in :func:`pdt_optax.training_time.empirical_kernel`.
      linearizations: how often the network is linearised: at the start, and where a single
        linearisation brings the weights at losses down to the threshold, evenly spaced in
        the logarithm; in between the kernel is interpolated. Follows a kernel that moves,
        without any training.
      max_samples: predict from as many examples, and extrapolate the logarithm of the steps
        from this number and half of it to ``N``, linearly in that of the number (our own rule):
        of little use from fewer than half of them. The curve is that of the examples used.
      sampling: as in :func:`pdt_optax.training_time.sample_batches`.
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
      >>> prediction = pdt_optax.training_time.predict_training_time(
      ...     lambda w, x: x @ w, np.zeros((2, 1), np.float32), (inputs, targets), loss="mse",
      ...     learning_rate=1.0, relative=0.1, max_steps=10,
      ... )
      >>> prediction.steps, prediction.loss[:3].tolist()
      (2, [0.5, 0.125, 0.03125])

    References:
      Zancato et al., `Predicting Training Time Without Training
      <https://arxiv.org/abs/2008.12478>`_, 2020
    """
    plan = Plan(
        apply_fn,
        params,
        _losses.resolve(loss),
        SGD(learning_rate, momentum, nesterov, weight_decay, decoupled),
        batch_size,
        max_steps,
        threshold,
        relative,
        reference,
        kernel,
        projection_dim,
        num_cotangents,
        linearizations,
        sampling,
    )
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
    if max_samples is not None and isinstance(kernel, EmpiricalKernel):
        raise ValueError("`max_samples` must be None where `kernel` is one of all inputs.")
    key = jax.random.key(0) if key is None else key
    check_key("key", key)
    if max_samples is None or max_samples >= size:
        return _predict(plan, inputs, targets, key)
    draw_key, order_key = jax.random.split(key)
    chosen = np.asarray(jax.random.permutation(order_key, size))[:max_samples]
    large = _predict(plan, inputs[chosen], targets[chosen], draw_key)
    half = chosen[: max_samples // 2]
    small = _predict(plan, inputs[half], targets[half], draw_key)
    return extrapolated(large, small, math.log2(size / max_samples), max_steps)


def _gather(data: Any) -> tuple[np.ndarray, np.ndarray]:
    if not (isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple)):
        batches = list(data)
        if not batches:
            raise ValueError("`data` must hold one or more examples, got none.")
        if not all(isinstance(batch, tuple | list) and len(batch) == 2 for batch in batches):
            raise ValueError("`data` must be a tuple (inputs, targets) or batches of such.")
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
    plan: Plan, inputs: np.ndarray, targets: np.ndarray, key: jax.Array
) -> TrainingTimePrediction:
    network = Network(plan.apply_fn, plan.params, inputs)
    outputs = np.asarray(_kernel.check_outputs(network), np.float64)
    targets = _losses.resolve_targets(plan.loss, outputs, targets)
    with jax.enable_x64(True):
        initial = float(_losses.mean(plan.loss, outputs, targets))
    threshold = plan.loss_to_reach(initial)
    rates = plan.optimizer.rates(plan.max_steps)
    if not rates.any():
        raise ValueError("`learning_rate` must not be 0 at all of the steps, got 0 throughout.")
    batch_key, kernel_key = jax.random.split(key)
    if isinstance(plan.kernel, EmpiricalKernel):
        kernel = plan.kernel
        check_fit(kernel, outputs, "outputs")
    else:
        kernel = plan.kernel_of(network, outputs.shape[1], kernel_key)
    eigenvalues = kernel.eigenvalues()
    greatest = float(eigenvalues.max())
    quadratic = plan.loss is _losses.half_squared_error
    curvature = (
        greatest / len(inputs)
        if quadratic
        else _losses.curvature(plan.loss, kernel, outputs, targets)
    )
    stability = plan.optimizer.stability(curvature, float(rates.max()))

    never, cost = False, kernel.sample_gradients
    if quadratic and plan.batch_size is None and plan.linearizations == 1:
        curve = mse_curve(
            kernel, outputs - targets, origin=plan.origin_of(network), **vars(plan.optimizer)
        )
        losses, accuracy = curve(np.arange(plan.max_steps + 1)), None
        exact = kernel.matrix.ndim == 4 and kernel.projection_dim is None
        if plan.optimizer.constant_rate and stability < 1 and not plan.needs_final_loss:
            never = curve.asymptote(null_space=exact) > threshold
    else:
        losses, accuracy, more = simulate(
            plan,
            network,
            kernel,
            outputs,
            targets,
            initial=initial,
            threshold=threshold,
            batch_key=batch_key,
            kernel_key=kernel_key,
        )
        cost += more
    if plan.needs_final_loss:
        threshold = plan.loss_to_reach(initial, float(losses[-1]))

    steps = 0 if initial <= threshold else steps_to_threshold(losses, threshold, plan.max_steps)
    diverges = not np.all(np.isfinite(losses)) or losses[-1] > 10 * abs(initial)
    too_large = stability >= 1 and plan.optimizer.constant_rate
    if (too_large and (quadratic or steps is None) and steps != 0) or diverges:
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
        warnings=warnings(
            quadratic=quadratic,
            kernel=kernel,
            relative=threshold / initial if initial else math.inf,
            linearizations=plan.linearizations,
            stability=stability,
            falls=not plan.optimizer.constant_rate,
            steps=steps,
            is_deficient=rank < eigenvalues.size,
        ),
    )
