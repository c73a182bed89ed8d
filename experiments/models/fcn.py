"""Fully connected network of the main job: 784-1024-512-256-10 on MNIST."""

import math

from flax import nnx
import jax

HIDDEN = (1024, 512, 256)


class FCN(nnx.Module):
    """Rectified linear layers of `HIDDEN` units, then a linear one; He initialisation (2015)."""

    def __init__(self, image_shape: tuple[int, ...], num_classes: int, *, rngs: nnx.Rngs):
        sizes = (math.prod(image_shape), *HIDDEN)
        self.hidden = nnx.List(
            nnx.Linear(fan_in, fan_out, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
            for fan_in, fan_out in zip(sizes, HIDDEN, strict=False)
        )
        self.logits = nnx.Linear(HIDDEN[-1], num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) images to (n, num_classes) logits."""
        x = images.reshape(len(images), -1)
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.logits(x)
