"""The simulated curve: linearised once, or again where the prediction brings the weights."""

import math
from typing import Any

import jax
import numpy as np

from pdt_optax._training_time import _losses
from pdt_optax._training_time._dynamics import Trajectory, function_space_sgd, sample_batches
from pdt_optax._training_time._gradients import Leaves, Network
from pdt_optax._training_time._kernel import EmpiricalKernel
from pdt_optax._training_time._plan import Plan


def simulate(
    plan: Plan,
    network: Network,
    kernel: EmpiricalKernel,
    outputs: np.ndarray,
    targets: np.ndarray,
    *,
    initial: float,
    threshold: float,
    batch_key: jax.Array,
    kernel_key: jax.Array,
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Losses, accuracies, and the sample gradients of what was linearised again.

    Args:
      plan: what to predict.
      network: at the initial parameters.
      kernel: of the network there.
      outputs: of the network there, ``(N, C)``.
      targets: what the loss takes.
      initial: loss of these outputs.
      threshold: the loss to reach; the network is linearised again above it.
      batch_key: of the batches.
      kernel_key: of the signs and projections of the further kernels.
    """
    size = len(outputs)
    batches = None
    if plan.batch_size is not None:
        batches = sample_batches(batch_key, size, plan.batch_size, plan.max_steps, plan.sampling)
    levels = [-math.inf]
    if 0 < threshold < initial:
        parts = np.arange(1, plan.linearizations) / plan.linearizations
        levels = [*(initial * (threshold / initial) ** parts), -math.inf]
    velocity = jax.tree.map(np.zeros_like, network.leaves)
    losses, accuracy, done, cost, current = [], [], 0, 0, math.inf
    for index, level in enumerate(levels):
        if level >= current:
            continue
        path = function_space_sgd(
            kernel,
            outputs,
            targets,
            loss=plan.loss,
            steps=plan.max_steps - done,
            batches=None if batches is None else batches[done:],
            origin=plan.origin_of(network),
            velocity=network.pushforward(velocity) if index else None,
            stop_below=level,
            start=done,
            **vars(plan.optimizer),
        )
        taken = len(path.loss) - 1
        done += taken
        is_last = level == -math.inf or done == plan.max_steps or not np.isfinite(path.loss[-1])
        kept = slice(None) if is_last else slice(taken)
        losses.append(path.loss[kept])
        accuracy.append(None if path.accuracy is None else path.accuracy[kept])
        if is_last:
            break
        network, velocity = _moved(network, velocity, path)
        outputs = np.asarray(network.outputs(), np.float64)
        current = float(_losses.mean(plan.loss, outputs, targets))
        key = jax.random.fold_in(kernel_key, index)
        kernel = plan.kernel_of(network, outputs.shape[1], key)
        cost += kernel.sample_gradients + 2 * size
    known = [part for part in accuracy if part is not None]
    return np.concatenate(losses), np.concatenate(known) if known else None, cost


def _moved(network: Network, velocity: Any, path: Trajectory) -> tuple[Network, Leaves]:
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
