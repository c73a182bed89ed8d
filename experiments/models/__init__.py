"""Registry of models: name -> flax module built from (input_shape, num_classes, rngs=...).

Every one takes `width`, a multiple of its number of channels or units, and the vision transformers
take `depth`, a multiple of their number of blocks: published sizes scaled down for small machines.
"""

from collections.abc import Callable, Mapping
import functools

from flax import nnx

from experiments.models import fcn, vit
from experiments.models.alexnet import AlexNet
from experiments.models.cnn import CNN
from experiments.models.fcn import FCN
from experiments.models.fully_convolutional import FullyConvolutional
from experiments.models.lstm import LSTM
from experiments.models.resnet import resnet18, resnet50
from experiments.models.simsiam import SimSiam
from experiments.models.vit import ViT

MODELS: Mapping[str, Callable[..., nnx.Module]] = {
    "fcn": FCN,
    "fc2": functools.partial(FCN, hidden=fcn.TWO),
    "fc4": functools.partial(FCN, hidden=fcn.FOUR),
    "fc6": functools.partial(FCN, hidden=fcn.SIX),
    "fully_convolutional": FullyConvolutional,
    "cnn": CNN,
    "alexnet": AlexNet,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vit": ViT,
    "vit_base": functools.partial(ViT, size=vit.BASE),
    "vit_huge": functools.partial(ViT, size=vit.HUGE),
    "simsiam": SimSiam,
    "lstm": LSTM,
}

__all__ = ["CNN", "FCN", "MODELS", "SimSiam", "ViT"]
