"""AlexNet in its one-column form (Krizhevsky 2014), for images of 32 pixels and more."""

import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

CHANNELS = (64, 192, 384, 256, 256)
UNITS = 4096
POOLED = 6
DROPOUT = 0.5


class AlexNet(nnx.Module):
    """Five convolutions and three linear layers with dropout between them.

    The first convolution has stride 4; for images below 63 pixels, stride 1. Kernels, and so the
    number of parameters, are the same for every size of image.
    """

    def __init__(
        self, image_shape: tuple[int, ...], num_classes: int, *, width: float = 1.0, rngs: nnx.Rngs
    ):
        side = min(image_shape[:2])
        if side < 32:
            raise ValueError(f"`image_shape` must be at least 32 pixels a side, got {image_shape}.")
        he = nnx.initializers.he_normal()
        sizes = (image_shape[-1], *(round(width * channels) for channels in CHANNELS))
        first = (11, 4 if side >= 63 else 1, 2)
        self.convolutions = nnx.List(
            nnx.Conv(
                fan_in,
                fan_out,
                (kernel, kernel),
                strides=stride,
                padding=padding,
                kernel_init=he,
                rngs=rngs,
            )
            for fan_in, fan_out, (kernel, stride, padding) in zip(
                sizes, sizes[1:], (first, (5, 1, 2), *[(3, 1, 1)] * 3), strict=False
            )
        )
        units = round(width * UNITS)
        flat = math.prod((POOLED, POOLED, sizes[-1]))
        self.hidden = nnx.List(
            nnx.Linear(fan_in, units, kernel_init=he, rngs=rngs) for fan_in in (flat, units)
        )
        self.dropouts = nnx.List(nnx.Dropout(DROPOUT, rngs=rngs) for _ in self.hidden)
        self.logits = nnx.Linear(units, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) images to (n, num_classes) logits."""
        x = images
        for number, convolution in enumerate(self.convolutions):
            x = nnx.relu(convolution(x))
            if number in (0, 1, 4):
                x = nnx.max_pool(x, (3, 3), strides=(2, 2))
        x = adaptive_average_pool(x, POOLED).reshape(len(x), -1)
        for dropout, layer in zip(self.dropouts, self.hidden, strict=True):
            x = nnx.relu(layer(dropout(x)))
        return self.logits(x)


def adaptive_average_pool(images: jax.Array, side: int) -> jax.Array:
    """Means over `side` x `side` windows that cover the images and overlap as little as can be.

    Args:
      images: (n, height, width, channels).
      side: windows along each axis; window i of length n reaches from floor(i n / side) to
        ceil((i + 1) n / side).

    Returns:
      (n, side, side, channels).
    """
    rows, columns = (jnp.asarray(_windows(length, side)) for length in images.shape[1:3])
    return jnp.einsum("nhwc,ih,jw->nijc", images, rows, columns)


def _windows(length: int, side: int) -> np.ndarray:
    places = np.arange(length)
    starts = np.arange(side)[:, None] * length // side
    stops = -(-(np.arange(side)[:, None] + 1) * length // side)
    inside = (starts <= places) & (places < stops)
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
