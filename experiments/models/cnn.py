"""Small convolutional network: two convolutions of stride 2, then two linear layers."""

import itertools
import math

from flax import nnx
import jax

CHANNELS = (32, 64)
HIDDEN = 128


class CNN(nnx.Module):
    """3 x 3 convolutions of `CHANNELS` that halve the image, then `HIDDEN` units; He (2015)."""

    def __init__(
        self, image_shape: tuple[int, ...], num_classes: int, *, width: float = 1.0, rngs: nnx.Rngs
    ):
        he = nnx.initializers.he_normal()
        sizes = (image_shape[-1], *(round(width * channels) for channels in CHANNELS))
        self.convolutions = nnx.List(
            nnx.Conv(fan_in, fan_out, (3, 3), strides=2, kernel_init=he, rngs=rngs)
            for fan_in, fan_out in itertools.pairwise(sizes)
        )
        sides = image_shape[:2]
        for _ in CHANNELS:
            sides = tuple(-(-side // 2) for side in sides)
        units = round(width * HIDDEN)
        self.hidden = nnx.Linear(math.prod(sides) * sizes[-1], units, kernel_init=he, rngs=rngs)
        self.logits = nnx.Linear(units, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) images to (n, num_classes) logits."""
        x = images
        for convolution in self.convolutions:
            x = nnx.relu(convolution(x))
        return self.logits(nnx.relu(self.hidden(x.reshape(len(x), -1))))
