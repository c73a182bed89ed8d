"""Registry of models: name -> flax module built from (image_shape, num_classes, rngs=...)."""

from collections.abc import Callable, Mapping

from flax import nnx

from experiments.models.cnn import CNN
from experiments.models.fcn import FCN
from experiments.models.vit import ViT

MODELS: Mapping[str, Callable[..., nnx.Module]] = {
    "fcn": FCN,
    "cnn": CNN,
    "vit": ViT,
}

__all__ = ["CNN", "FCN", "MODELS", "ViT"]
