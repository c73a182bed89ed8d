"""Stochastic gradient descent of the linearised network, in function space, for any loss."""

from collections.abc import Sequence
import functools
import itertools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pdt_optax._checks import as_int, check_key, is_int
from pdt_optax.training_time import _losses
from pdt_optax.training_time._closed_form import check_fit
from pdt_optax.training_time._kernel import EmpiricalKernel
from pdt_optax.training_time._losses import LossFn
from pdt_optax.training_time._settings import SGD

Sampling = Literal["reshuffle", "replacement"]
SAMPLINGS: tuple[Sampling, ...] = ("reshuffle", "replacement")
_COLUMNS = {2: "ji,ja->ia", 3: "aji,ja->ia", 4: "jbia,jb->ia"}


class Vector(NamedTuple):
    r"""A direction in the space of weights, by its image and its coordinates.

    It is :math:`J^\top g + s w_0` with the initial weights.

    Attributes:
      image: the change of the outputs along it, ``(N, C)``.
      samples: ``g``, ``(N, C)``.
      weights: ``s``.
    """

    image: jax.Array
    samples: jax.Array
    weights: jax.Array


class Trajectory(NamedTuple):
    """A training run of the linearised network.

    Made by :func:`pdt_optax.training_time.function_space_sgd`.

    Attributes:
      loss: over all examples after 0, 1, .. steps, float64.
      accuracy: the same, None if the targets are not classes.
      outputs: after the last step, ``(N, C)`` float64.
      weights: where the weights are then.
    """

    loss: np.ndarray
    accuracy: np.ndarray | None
    outputs: np.ndarray
    weights: Vector


def sample_batches(
    key: jax.Array, num_examples: int, batch_size: int, steps: int, sampling: Sampling
) -> np.ndarray:
    """Indices of the examples of each batch, ``(steps, batch_size)`` int32.

    Args:
      key: of the draw.
      num_examples: to draw from.
      batch_size: at most `num_examples`.
      steps: number of batches.
      sampling: ``'reshuffle'``: a new order each epoch, the remainder dropped;
        ``'replacement'``: every example drawn by itself.

    Returns:
      The indices.

    Raises:
      ValueError: if `key` is no random key, or another argument is none of these.
    """
    check_sampling(sampling)
    check_key("key", key)
    steps = as_int("steps", steps, 1)
    if not is_int(batch_size, 1) or batch_size > num_examples:
        raise ValueError(
            f"`batch_size` must be an int from 1 to the {num_examples} examples, "
            f"got {batch_size!r}."
        )
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    if sampling == "replacement":
        return random.integers(num_examples, size=(steps, batch_size), dtype=np.int32)
    per_epoch = num_examples // batch_size
    epochs = -(-steps // per_epoch)
    orders = [random.permutation(num_examples)[: per_epoch * batch_size] for _ in range(epochs)]
    return np.concatenate(orders).reshape(-1, batch_size)[:steps].astype(np.int32)


def check_sampling(sampling: Any) -> None:
    """Raises ValueError for a way of sampling that is not known."""
    if sampling not in SAMPLINGS:
        raise ValueError(
            f"`sampling` must be one of {', '.join(map(repr, SAMPLINGS))}; got {sampling!r}."
        )


def function_space_sgd(
    kernel: EmpiricalKernel | Sequence[EmpiricalKernel],
    outputs: Any,
    targets: Any,
    *,
    loss: str | LossFn,
    learning_rate: float | optax.Schedule,
    steps: int,
    batches: Any = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    origin: Any = None,
    kernel_losses: Sequence[float] = (),
    stop_below: float = -math.inf,
) -> Trajectory:
    r"""Trains the linearised network without its weights.

    A step on the batch ``S`` of ``B`` examples with the gradients ``G`` of their losses by
    the outputs,

    .. math::
      q \leftarrow m q + \frac{1}{B} \Theta_{\cdot S} G(f)_S, \qquad
      f \leftarrow f - \eta q,

    is exactly a step of SGD on the weights of a linear network. It costs one product of
    ``N`` rows with the batch. Computed on the CPU in float64.

    Args:
      kernel: of the network at its initial parameters; or several of one form, where it
        moves.
      outputs: of the network at its initial parameters, ``(N, C)``.
      targets: what the loss takes, ``(N, ...)``; class numbers, or one row an example.
      loss: ``'mse'``, half the squared distance; ``'softmax_cross_entropy'``; or a
        differentiable function ``(outputs, target) -> scalar`` of one example. Losses are
        averaged over examples.
      learning_rate: constant, or a schedule.
      steps: number of steps.
      batches: indices of the examples of each batch, ``(steps, B)``, see
        :func:`pdt_optax.training_time.sample_batches`; None for all examples at every step.
      momentum: as in :func:`pdt_optax.training_time.mse_curve`.
      nesterov: as in :func:`pdt_optax.training_time.mse_curve`.
      weight_decay: as in :func:`pdt_optax.training_time.mse_curve`.
      decoupled: as in :func:`pdt_optax.training_time.mse_curve`.
      origin: as in :func:`pdt_optax.training_time.mse_curve`.
      kernel_losses: with several kernels, the positive and falling losses to which they
        belong; between two of them, the kernel is interpolated linearly in the logarithm
        of the loss.
      stop_below: the loss at which to stop.

    Returns:
      The losses and what is reached.

    Raises:
      ValueError: for an argument out of range, or shapes that do not fit.

    Examples:
      >>> import numpy as np
      >>> import pdt_optax
      >>> kernel = pdt_optax.training_time.EmpiricalKernel(np.eye(2))
      >>> path = pdt_optax.training_time.function_space_sgd(
      ...     kernel, np.zeros((2, 2)), np.array([0, 1]), loss="softmax_cross_entropy",
      ...     learning_rate=1.0, steps=3,
      ... )
      >>> print(path.loss.round(3), path.accuracy)
      [0.693 0.474 0.348 0.27 ] [0.5 1.  1.  1. ]
    """
    optimizer = SGD(learning_rate, momentum, nesterov, weight_decay, decoupled)
    loss = _losses.resolve(loss)
    outputs = np.asarray(outputs, np.float64)
    kernels = [kernel] if isinstance(kernel, EmpiricalKernel) else list(kernel)
    if not kernels:
        raise ValueError("`kernel` must be one or several, got none.")
    for each in kernels:
        check_fit(each, outputs, "outputs")
    if origin is not None:
        check_fit(kernels[0], np.asarray(origin), "origin")
    _check_losses(kernel_losses, kernels)
    targets = _losses.resolve_targets(loss, outputs, targets)
    steps = as_int("steps", steps, 1)
    if batches is not None:
        batches = np.asarray(batches)
        if batches.ndim != 2 or len(batches) != steps or not batches.shape[1]:
            raise ValueError(f"`batches` must be ({steps}, B) indices, got {batches.shape}.")
        known = np.issubdtype(batches.dtype, np.integer)
        if not known or batches.min() < 0 or batches.max() >= len(outputs):
            raise ValueError(f"`batches` must be integers from 0 to {len(outputs) - 1}.")
    zeros = np.zeros_like(outputs)
    start = 0.0 if origin is None else 1.0  # What decays is the distance from the origin.
    double = functools.partial(jnp.asarray, dtype=np.float64)
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        losses, accuracy, end, done = _run(
            [each.matrix for each in kernels],
            np.log(np.asarray(kernel_losses or [1.0], np.float64)),
            targets,
            _losses.classes(targets, outputs),
            (
                jnp.asarray(outputs),
                Vector(*map(double, (zeros if origin is None else origin, zeros, start))),
                Vector(*map(double, (zeros, zeros, 0.0))),
            ),
            _padded(optimizer.rates(steps)),
            None if batches is None else _padded(batches),
            steps,
            stop_below,
            loss=loss,
            optimizer=SGD(1.0, momentum, nesterov, weight_decay, decoupled),
        )
        kept = int(done) + 1
        outputs, weights, _ = jax.tree.map(np.asarray, end)
        return Trajectory(
            np.asarray(losses)[:kept],
            None if accuracy is None else np.asarray(accuracy)[:kept],
            outputs,
            weights._replace(weights=weights.weights + 1 - start),
        )


def _check_losses(losses: Sequence[float], kernels: Sequence[EmpiricalKernel]) -> None:
    falls = all(0 < b < a < math.inf for a, b in itertools.pairwise(losses))
    if len(losses) != (len(kernels) if len(kernels) > 1 else 0) or not falls:
        raise ValueError(
            "`kernel_losses` must be a positive loss for each of several kernels, each below the "
            f"one before; got {losses!r} for {len(kernels)} kernels."
        )


def _padded(values: np.ndarray) -> np.ndarray:
    """Zeros up to a power of two, for fewer compilations."""
    missing = (1 << (len(values) - 1).bit_length()) - len(values)
    return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))


@functools.partial(jax.jit, static_argnames=("loss", "optimizer"))
def _run(
    matrices,
    log_losses,
    targets,
    labels,
    state,
    rates,
    batches,
    steps,
    stop_below,
    *,
    loss,
    optimizer,
):
    gradient = jax.vmap(jax.grad(loss))

    def mean_loss(outputs):
        return _losses.mean(loss, outputs, targets)

    def shares(current_loss):
        """How much of each kernel: those of the losses above and below, the others 0."""
        numbers = jnp.arange(len(matrices), dtype=log_losses.dtype)
        log_loss = jnp.log(jnp.maximum(current_loss, jnp.finfo(log_losses.dtype).tiny))
        place = jnp.interp(-log_loss, -log_losses, numbers)
        return jnp.maximum(1 - jnp.abs(numbers - place), 0)

    def ascent(outputs, step, current_loss):
        """The gradient of the batch, as a vector."""
        if batches is None:
            samples = g = gradient(outputs, targets) / len(targets)
            chosen = matrices
        else:
            batch = batches[step]
            g = gradient(outputs[batch], targets[batch]) / len(batch)
            samples = jnp.zeros_like(outputs).at[batch].add(g)
            chosen = [m[:, batch] if m.ndim == 3 else m[batch] for m in matrices]
        images = [jnp.einsum(_COLUMNS[rows.ndim], rows, g) for rows in chosen]
        if len(images) > 1:
            images = list(map(jnp.multiply, shares(current_loss), images))
        return Vector(sum(images[1:], images[0]), samples, jnp.zeros(()))

    def add(a, factor, b):
        return jax.tree.map(lambda x, y: x + factor * y, a, b)

    def body(carry):
        step, (outputs, weights, velocity), losses, accuracy = carry
        g = ascent(outputs, step, losses[step])
        if optimizer.weight_decay and not optimizer.decoupled:
            g = add(g, optimizer.weight_decay, weights)
        velocity = add(g, optimizer.momentum, velocity)
        update = add(g, optimizer.momentum, velocity) if optimizer.nesterov else velocity
        if optimizer.weight_decay and optimizer.decoupled:
            update = add(update, optimizer.weight_decay, weights)
        weights = add(weights, -rates[step], update)
        outputs = outputs - rates[step] * update.image
        return record(step + 1, (outputs, weights, velocity), losses, accuracy)

    def record(step, state, losses, accuracy):
        losses = losses.at[step].set(mean_loss(state[0]))
        if labels is not None:
            hit = jnp.mean(state[0].argmax(axis=1) == labels)
            accuracy = accuracy.at[step].set(hit)
        return step, state, losses, accuracy

    def goes_on(carry):
        step, _, losses, _ = carry
        return (step < steps) & (losses[step] > stop_below)

    empty = jnp.zeros(len(rates) + 1)
    carry = record(0, state, empty, None if labels is None else empty)
    step, state, losses, accuracy = jax.lax.while_loop(goes_on, body, carry)
    return losses, accuracy, state, step
