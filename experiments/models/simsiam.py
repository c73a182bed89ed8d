"""SimSiam (Chen and He 2021) with a ResNet-18 backbone, in the size used for CIFAR-10."""

import itertools

from flax import nnx
import jax
import jax.numpy as jnp

from experiments.models.resnet import resnet18

PROJECTION = 512
PREDICTION = 128


class SimSiam(nnx.Module):
    """Learns features of images without labels, from two views of each."""

    def __init__(
        self, image_shape: tuple[int, ...], num_classes: int, *, width: float = 1.0, rngs: nnx.Rngs
    ):
        del num_classes
        self.backbone = resnet18(image_shape, 1, width=width, rngs=rngs)
        del self.backbone.logits
        projection, prediction = round(width * PROJECTION), round(width * PREDICTION)
        sizes = (self.backbone.num_features, projection, projection, projection)
        self.projector = nnx.List(
            nnx.Linear(fan_in, fan_out, use_bias=False, rngs=rngs)
            for fan_in, fan_out in itertools.pairwise(sizes)
        )
        self.projector_norms = nnx.List(
            nnx.BatchNorm(projection, momentum=0.9, use_bias=affine, use_scale=affine, rngs=rngs)
            for affine in (True, True, False)
        )
        self.down = nnx.Linear(projection, prediction, use_bias=False, rngs=rngs)
        self.down_norm = nnx.BatchNorm(prediction, momentum=0.9, rngs=rngs)
        self.up = nnx.Linear(prediction, projection, rngs=rngs)

    def features(self, images: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) images to (n, features) of the backbone."""
        return self.backbone.features(images)

    def __call__(self, views: jax.Array) -> jax.Array:
        """Loss of each pair of views: its negative cosine similarity, both ways, at most 1.

        Each view's prediction is compared with the other's projection, through which no gradient
        flows: without that all projections collapse to one.

        Args:
          views: (n, 2, height, width, channels).

        Returns:
          (n,) losses in [-1, 1].
        """
        projections, predictions = zip(*map(self._project, (views[:, 0], views[:, 1])), strict=True)
        targets = jax.lax.stop_gradient(projections)
        return -0.5 * (cosine(predictions[0], targets[1]) + cosine(predictions[1], targets[0]))

    def _project(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = self.features(images)
        for layer, norm in zip(self.projector, self.projector_norms, strict=True):
            x = norm(layer(x))
            if layer is not self.projector[-1]:
                x = nnx.relu(x)
        return x, self.up(nnx.relu(self.down_norm(self.down(x))))


def cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    """Cosine similarity along the last axis."""
    norms = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
    return jnp.sum(x * y, axis=-1) / jnp.maximum(norms, 1e-12)
