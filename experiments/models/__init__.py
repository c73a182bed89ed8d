"""Registry of models: name -> flax module built from (image_shape, num_classes, rngs=...)."""

from collections.abc import Callable, Mapping

from flax import nnx

from experiments.models.fcn import FCN

MODELS: Mapping[str, Callable[..., nnx.Module]] = {
    "fcn": FCN,
}

__all__ = ["FCN", "MODELS"]
