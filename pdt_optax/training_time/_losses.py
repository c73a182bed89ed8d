"""The loss of a prediction: its name or function, its targets, its curvature."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax.training_time._kernel import EmpiricalKernel

LossFn = Callable[[jax.Array, jax.Array], jax.Array]


def half_squared_error(outputs: jax.Array, target: jax.Array) -> jax.Array:
    """Half the squared distance of one example, summed over the outputs."""
    return 0.5 * jnp.sum((outputs - target) ** 2)


def softmax_cross_entropy(outputs: jax.Array, target: jax.Array) -> jax.Array:
    """Cross-entropy of one example against a distribution over the classes."""
    return -jnp.sum(target * jax.nn.log_softmax(outputs))


NAMED = {"mse": half_squared_error, "softmax_cross_entropy": softmax_cross_entropy}


def resolve(loss: str | LossFn) -> LossFn:
    """The loss of one example of that name, or the function itself."""
    if isinstance(loss, str) and loss in NAMED:
        return NAMED[loss]
    if not callable(loss):
        raise ValueError(
            f"`loss` must be one of {', '.join(map(repr, NAMED))}, or a function "
            f"(outputs, target) -> scalar of one example; got {loss!r}."
        )
    return loss


def resolve_targets(loss: LossFn, outputs: np.ndarray, targets: Any) -> np.ndarray:
    """The targets as the loss takes them: class numbers become one-hot rows."""
    targets = np.asarray(targets)
    is_class = targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
    if loss is softmax_cross_entropy and is_class:
        num_classes = outputs.shape[1]
        if targets.size and not 0 <= targets.min() <= targets.max() < num_classes:
            raise ValueError(
                f"integer targets must be in [0, {num_classes}), got {targets.min()} to "
                f"{targets.max()}."
            )
        targets = np.eye(num_classes)[targets]
    if loss in NAMED.values() and targets.shape != outputs.shape:
        raise ValueError(
            f"targets must have the shape of the outputs, {outputs.shape}, got {targets.shape}."
        )
    if not np.all(np.isfinite(targets)):
        raise ValueError("targets must be finite, got nan or inf.")
    shape = jax.eval_shape(loss, outputs[0], targets[0]).shape
    if shape:
        raise ValueError(
            f"`loss` must return a scalar for one example, got an array of shape {shape}: sum "
            "what it returns."
        )
    return targets


def classes(targets: np.ndarray, outputs: np.ndarray) -> np.ndarray | None:
    """The class of each example, or None if the targets are not classes."""
    if outputs.shape[1] < 2:
        return None
    if targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer):
        return targets
    one_hot = targets.shape == outputs.shape and bool(
        np.all((targets == 0) | (targets == 1)) and np.all(targets.sum(axis=1) == 1)
    )
    return targets.argmax(axis=1) if one_hot else None


def mean(loss: LossFn, outputs: Any, targets: Any) -> jax.Array:
    """Mean loss over the examples."""
    return jnp.mean(jax.vmap(loss)(outputs, targets))


def gradient(loss: LossFn, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Gradient of the mean loss by the outputs, ``(N, C)`` float64."""
    with jax.enable_x64(True):
        rows = jax.vmap(jax.grad(loss))(jnp.asarray(outputs, np.float64), targets)
    return np.asarray(rows) / len(outputs)


def curvature(
    loss: LossFn, kernel: EmpiricalKernel, outputs: np.ndarray, targets: np.ndarray
) -> float:
    """Greatest eigenvalue of the kernel times the loss's second derivatives, by powers."""

    @jax.jit
    @jax.vmap
    def times_hessian(outputs, target, vector):
        return jax.jvp(lambda z: jax.grad(loss)(z, target), (outputs,), (vector,))[1]

    vector, value = np.random.default_rng(0).normal(size=outputs.shape), 0.0
    for _ in range(200):
        with jax.enable_x64(True):
            turned = np.asarray(times_hessian(outputs, targets, vector))
        image = kernel @ (turned / len(outputs))
        last, value = value, float(np.linalg.norm(image) / np.linalg.norm(vector))
        if value == 0 or abs(value - last) < 1e-6 * value:
            break
        vector = image / np.linalg.norm(image)
    return value
