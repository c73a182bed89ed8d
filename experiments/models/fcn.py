"""Fully connected networks: the one of the main job, and those of Fig. 2 of the paper."""

from collections.abc import Sequence
import itertools
import math

from flax import nnx
import jax

HIDDEN = (1024, 512, 256)
# Wang et al. (2026), Fig. 2: networks of two, four and six layers.
TWO, FOUR, SIX = (256,), (512, 512, 256), (512, 512, 512, 512, 256)


class FCN(nnx.Module):
    """Rectified linear layers of `hidden` units, then a linear one; He initialisation (2015)."""

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_classes: int,
        *,
        hidden: Sequence[int] = HIDDEN,
        width: float = 1.0,
        rngs: nnx.Rngs,
    ):
        sizes = (math.prod(image_shape), *(round(width * units) for units in hidden))
        self.hidden = nnx.List(
            nnx.Linear(fan_in, fan_out, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
            for fan_in, fan_out in itertools.pairwise(sizes)
        )
        self.logits = nnx.Linear(sizes[-1], num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) images to (n, num_classes) logits."""
        x = images.reshape(len(images), -1)
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.logits(x)
