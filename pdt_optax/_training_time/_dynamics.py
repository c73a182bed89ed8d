"""Stochastic gradient descent of the linearised network, in function space, for any loss."""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pdt_optax._checks import is_int
from pdt_optax._training_time import _losses
from pdt_optax._training_time._closed_form import check_fit
from pdt_optax._training_time._kernel import EmpiricalKernel
from pdt_optax._training_time._losses import LossFn
from pdt_optax._training_time._settings import SGD

Sampling = Literal["reshuffle", "replacement"]
SAMPLINGS: tuple[Sampling, ...] = ("reshuffle", "replacement")
_COLUMNS = {2: "ji,ja->ia", 3: "aji,ja->ia", 4: "jbia,jb->ia"}


class Vector(NamedTuple):
    r"""A direction in the space of weights, by its image and its coordinates.

    It is :math:`J^\top g + s w_0 + k v_0` with the initial weights and velocity.

    Attributes:
      image: the change of the outputs along it, ``(N, C)``.
      samples: ``g``, ``(N, C)``.
      weights: ``s``.
      velocity: ``k``.
    """

    image: jax.Array
    samples: jax.Array
    weights: jax.Array
    velocity: jax.Array


class Trajectory(NamedTuple):
    """A training run of the linearised network; made by :func:`pdt_optax.function_space_sgd`.

    Attributes:
      loss: over all examples after 0, 1, .. steps, float64.
      accuracy: the same, None if the targets are not classes.
      outputs: after the last step, ``(N, C)`` float64.
      weights: where the weights are then.
      velocity: the momentum buffer then.
    """

    loss: np.ndarray
    accuracy: np.ndarray | None
    outputs: np.ndarray
    weights: Vector
    velocity: Vector


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
    """
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    if sampling == "replacement":
        return random.integers(num_examples, size=(steps, batch_size), dtype=np.int32)
    per_epoch = num_examples // batch_size
    epochs = -(-steps // per_epoch)
    orders = [random.permutation(num_examples)[: per_epoch * batch_size] for _ in range(epochs)]
    return np.concatenate(orders).reshape(-1, batch_size)[:steps].astype(np.int32)


def function_space_sgd(
    kernel: EmpiricalKernel,
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
    velocity: Any = None,
    stop_below: float = -math.inf,
    start: int = 0,
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
      kernel: of the network at its initial parameters.
      outputs: of the network there, ``(N, C)``.
      targets: what the loss takes, ``(N, ...)``; class numbers, or one row an example.
      loss: ``'mse'``, half the squared distance; ``'softmax_cross_entropy'``; or a
        differentiable function ``(outputs, target) -> scalar`` of one example. Losses are
        averaged over examples.
      learning_rate: constant, or a schedule.
      steps: number of steps.
      batches: indices of the examples of each batch, ``(steps, B)``, see
        :func:`pdt_optax.sample_batches`; None for all examples at every step.
      momentum: as in :func:`pdt_optax.mse_curve`.
      nesterov: as in :func:`pdt_optax.mse_curve`.
      weight_decay: as in :func:`pdt_optax.mse_curve`.
      decoupled: as in :func:`pdt_optax.mse_curve`.
      origin: as in :func:`pdt_optax.mse_curve`.
      velocity: change of the outputs along the initial momentum buffer, ``(N, C)``; None
        for zero.
      stop_below: the loss at which to stop.
      start: step of the schedule to start at.

    Returns:
      The losses and what is reached.

    Raises:
      ValueError: for an argument out of range, or shapes that do not fit.

    Examples:
      >>> import numpy as np
      >>> import pdt_optax
      >>> kernel = pdt_optax.EmpiricalKernel(np.eye(2))
      >>> path = pdt_optax.function_space_sgd(
      ...     kernel, np.zeros((2, 2)), np.array([0, 1]), loss="softmax_cross_entropy",
      ...     learning_rate=1.0, steps=3,
      ... )
      >>> print(path.loss.round(3), path.accuracy)
      [0.693 0.474 0.348 0.27 ] [0.5 1.  1.  1. ]
    """
    optimizer = SGD(learning_rate, momentum, nesterov, weight_decay, decoupled)
    loss = _losses.resolve(loss)
    outputs = np.asarray(outputs, np.float64)
    check_fit(kernel, outputs, "outputs")
    targets = _losses.resolve_targets(loss, outputs, targets)
    if not is_int(steps, 1):
        raise ValueError(f"`steps` must be an int of at least 1, got {steps!r}.")
    if batches is not None:
        batches = np.asarray(batches)
        if batches.ndim != 2 or len(batches) != steps or not batches.shape[1]:
            raise ValueError(f"`batches` must be ({steps}, B) indices, got {batches.shape}.")
    zeros = np.zeros_like(outputs)
    double = functools.partial(jnp.asarray, dtype=np.float64)
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        state = (
            jnp.asarray(outputs),
            Vector(*map(double, (zeros if origin is None else origin, zeros, 1.0, 0.0))),
            Vector(*map(double, (zeros if velocity is None else velocity, zeros, 0.0, 1.0))),
        )
        losses, accuracy, end, done = _run(
            kernel.matrix,
            targets,
            _losses.classes(targets, outputs),
            state,
            _padded(optimizer.rates(start + steps)[start:]),
            None if batches is None else _padded(batches),
            steps,
            stop_below,
            loss=loss,
            optimizer=SGD(1.0, momentum, nesterov, weight_decay, decoupled),
        )
        kept = int(done) + 1
        outputs, weights, velocity = jax.tree.map(np.asarray, end)
        return Trajectory(
            np.asarray(losses)[:kept],
            None if accuracy is None else np.asarray(accuracy)[:kept],
            outputs,
            weights,
            velocity,
        )


def _padded(values: np.ndarray) -> np.ndarray:
    """Zeros up to a power of two, for fewer compilations."""
    missing = (1 << (len(values) - 1).bit_length()) - len(values)
    return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))


@functools.partial(jax.jit, static_argnames=("loss", "optimizer"))
def _run(matrix, targets, labels, state, rates, batches, steps, stop_below, *, loss, optimizer):
    gradient = jax.vmap(jax.grad(loss))

    def mean_loss(outputs):
        return _losses.mean(loss, outputs, targets)

    def ascent(outputs, step):
        """The gradient of the batch, as a vector."""
        if batches is None:
            g = gradient(outputs, targets) / len(targets)
            image = jnp.einsum(_COLUMNS[matrix.ndim], matrix, g)
            samples = g
        else:
            batch = batches[step]
            g = gradient(outputs[batch], targets[batch]) / len(batch)
            rows = matrix[:, batch] if matrix.ndim == 3 else matrix[batch]
            image = jnp.einsum(_COLUMNS[matrix.ndim], rows, g)
            samples = jnp.zeros_like(outputs).at[batch].add(g)
        return Vector(image, samples, jnp.zeros(()), jnp.zeros(()))

    def add(a, factor, b):
        return jax.tree.map(lambda x, y: x + factor * y, a, b)

    def body(carry):
        step, (outputs, weights, velocity), losses, accuracy = carry
        g = ascent(outputs, step)
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
