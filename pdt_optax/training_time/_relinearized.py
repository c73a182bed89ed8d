"""The simulated curve: linearised once, or again where the prediction brings the weights."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax.training_time import _losses
from pdt_optax.training_time._dynamics import Vector, function_space_sgd, sample_batches
from pdt_optax.training_time._gradients import Network
from pdt_optax.training_time._kernel import EmpiricalKernel
from pdt_optax.training_time._plan import Plan


class Simulation(NamedTuple):
    """What is simulated.

    Attributes:
      loss: over all examples after 0, 1, .. steps.
      accuracy: the same, None if the targets are not classes.
      sample_gradients: of what was linearised again.
    """

    loss: np.ndarray
    accuracy: np.ndarray | None
    sample_gradients: int


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
) -> Simulation:
    """Simulates the plan.

    Args:
      plan: what to predict.
      network: at the initial parameters.
      kernel: of the network there.
      outputs: of the network there, ``(N, C)``.
      targets: what the loss takes.
      initial: loss of these outputs.
      threshold: the loss to reach; down to it the kernel is followed.
      batch_key: of the batches.
      kernel_key: of the signs and projections of the further kernels.
    """
    size, steps = len(outputs), plan.max_steps
    run = functools.partial(
        function_space_sgd,
        outputs=outputs,
        targets=targets,
        loss=plan.loss,
        steps=steps,
        batches=None
        if plan.batch_size is None
        else sample_batches(batch_key, size, plan.batch_size, steps, plan.sampling),
        origin=plan.origin_of(network),
        **vars(plan.optimizer),
    )
    kernels, losses, cost = [kernel], [initial], 0
    if 0 < threshold < initial:
        further = plan.linearizations - 1
        for number in range(1, further + 1):
            level = initial * (threshold / initial) ** (number / further)
            path = run(kernel, stop_below=level)
            if not path.loss[-1] <= level:
                break
            moved = _moved(network, path.weights)
            key = jax.random.fold_in(kernel_key, number)
            further_kernel = plan.kernel_of(moved, outputs.shape[1], key)
            kernels.append(_scaled(further_kernel, moved, plan.loss, targets))
            losses.append(level)
            cost += kernels[-1].sample_gradients + size
    path = run(kernels, kernel_losses=losses if len(kernels) > 1 else ())
    return Simulation(path.loss, path.accuracy, cost)


def _moved(network: Network, weights: Vector) -> Network:
    gradient = network.pullback(np.asarray(weights.samples))
    pairs = zip(network.leaves, gradient, strict=True)
    return network.moved([float(weights.weights) * w + g for w, g in pairs])


def _scaled(
    kernel: EmpiricalKernel, network: Network, loss: _losses.LossFn, targets: np.ndarray
) -> EmpiricalKernel:
    r"""The kernel times a factor with which the loss falls as fast as that of the network.

    With the gradients ``G`` by the outputs, gradient flow lowers the loss at the rate
    :math:`\langle G, \Theta G \rangle`, which is the squared norm of the gradient by the
    weights. The trace form, and few random signs, miss it where the last layer is not small.
    """
    gradient = _losses.gradient(loss, network.outputs(), targets)
    rate = sum(float(jnp.sum(jnp.square(leaf))) for leaf in network.pullback(gradient))
    of_kernel = float(np.sum(gradient * (kernel @ gradient)))
    factor = rate / of_kernel if of_kernel > 0 and 0 < rate < math.inf else 1.0
    return kernel._replace(
        matrix=factor * kernel.matrix, sample_gradients=kernel.sample_gradients + len(gradient)
    )
