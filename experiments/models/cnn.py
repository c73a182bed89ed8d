"""Small convolutional network: two convolutions of stride 2, then two linear layers."""

from flax import nnx
import jax

CHANNELS = (32, 64)
HIDDEN = 128


class CNN(nnx.Module):
    """3 x 3 convolutions of `CHANNELS` that halve the image, then `HIDDEN` units; He (2015)."""

    def __init__(self, image_shape: tuple[int, ...], num_classes: int, *, rngs: nnx.Rngs):
        height, width, channels = image_shape
        he = nnx.initializers.he_normal()
        sizes = (channels, *CHANNELS)
        self.convolutions = nnx.List(
            nnx.Conv(fan_in, fan_out, (3, 3), strides=2, kernel_init=he, rngs=rngs)
            for fan_in, fan_out in zip(sizes, CHANNELS, strict=False)
        )
        for _ in CHANNELS:
            height, width = -(-height // 2), -(-width // 2)
        flat = height * width * CHANNELS[-1]
        self.hidden = nnx.Linear(flat, HIDDEN, kernel_init=he, rngs=rngs)
        self.logits = nnx.Linear(HIDDEN, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) images to (n, num_classes) logits."""
        x = images
        for convolution in self.convolutions:
            x = nnx.relu(convolution(x))
        return self.logits(nnx.relu(self.hidden(x.reshape(len(x), -1))))
