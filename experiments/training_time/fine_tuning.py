"""The fine-tuning whose course is predicted: network, digits, settings, loss."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.training_time import transfer
import pdt_optax

LOSSES = ("mse", "softmax_cross_entropy")


class Setting(NamedTuple):
    """How the network is fine-tuned.

    Attributes:
      part: learning rate in units of the greatest stable one of gradient descent on the squared
        error.
      momentum: as in `optax.sgd`.
      batch_size: examples a step.
    """

    part: float
    momentum: float
    batch_size: int


GRID = (
    Setting(0.3, 0.0, 64),
    Setting(0.05, 0.9, 64),
    Setting(0.05, 0.9, 16),
    Setting(0.1, 0.9, 256),
)


class Task(NamedTuple):
    """What is fine-tuned.

    Attributes:
      params: the start.
      images: (n, 64).
      targets: one-hot rows, (n, 10).
      kernel: of the network at the start.
      limit: the greatest stable learning rate of gradient descent on the squared error.
    """

    params: Any
    images: np.ndarray
    targets: np.ndarray
    kernel: pdt_optax.training_time.EmpiricalKernel
    limit: float


@functools.cache
def task(start: str, seed: int, samples: int) -> Task:
    """The digits and the network, 'pretrained' or 'random', with a new head."""
    params = transfer.pretrain(seed) if start == "pretrained" else transfer.init(seed)
    params = transfer.with_new_head(params, seed)
    images, labels = transfer.digits(seed, samples)
    kernel = pdt_optax.training_time.empirical_kernel(
        transfer.apply, params, images, kernel="trace"
    )
    limit = 2 * samples / float(kernel.eigenvalues().max())
    return Task(params, images, np.eye(10, dtype=np.float32)[labels], kernel, limit)


def mean_loss(loss: str, params: Any, images: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over the examples, the squared error halved and summed over the outputs."""
    outputs = transfer.apply(params, images)
    if loss == "mse":
        return jnp.sum((outputs - targets) ** 2) / (2 * len(targets))
    return optax.softmax_cross_entropy(outputs, targets).mean()
