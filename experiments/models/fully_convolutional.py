"""Fully convolutional network of the paper's Table 1, with 3.9 million parameters."""

import itertools

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

CHANNELS = (64, 128, 256, 512, 512)


class FullyConvolutional(nnx.Module):
    """3 x 3 convolutions with batch norm, each halving the image; 1 x 1 to classes; mean."""

    def __init__(
        self, image_shape: tuple[int, ...], num_classes: int, *, width: float = 1.0, rngs: nnx.Rngs
    ):
        if min(image_shape[:2]) < 2 ** len(CHANNELS):
            raise ValueError(f"`image_shape` must be at least 32 pixels a side, got {image_shape}.")
        sizes = (image_shape[-1], *(round(width * channels) for channels in CHANNELS))
        he = nnx.initializers.he_normal()
        self.convolutions = nnx.List(
            nnx.Conv(
                fan_in,
                fan_out,
                (3, 3),
                kernel_init=he,
                conv_general_dilated=convolve_3x3,
                rngs=rngs,
            )
            for fan_in, fan_out in itertools.pairwise(sizes)
        )
        self.norms = nnx.List(nnx.BatchNorm(size, momentum=0.9, rngs=rngs) for size in sizes[1:])
        self.logits = nnx.Conv(sizes[-1], num_classes, (1, 1), rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) images to (n, num_classes) logits."""
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = nnx.max_pool(nnx.relu(norm(convolution(x))), (2, 2), strides=(2, 2))
        return jnp.mean(self.logits(x), axis=(1, 2))


def convolve_3x3(images: jax.Array, kernel: jax.Array, *args, **options) -> jax.Array:
    """`lax.conv_general_dilated`; a product of matrices for images smaller than the kernel.

    XLA's convolution takes 60 times longer there on a CPU.
    """
    height, width = images.shape[1:3]
    if min(height, width) >= 3:
        return lax.conv_general_dilated(images, kernel, *args, **options)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifts, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
