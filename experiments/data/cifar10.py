"""CIFAR-10 (Krizhevsky 2009): 32 x 32 colour photographs of ten classes."""

import dataclasses
import functools

import numpy as np

from experiments.data import augment, prepared
from experiments.data.dataset import ArrayDataset, Examples

TRAIN, VALIDATION, TEST = "train[:90%]", "train[90%:]", "test"


@functools.cache
def load() -> ArrayDataset:
    """Loads the images with pixels in [-1, 1] and no augmentation, as Wang et al. (2026).

    The last tenth of the published train split is the validation split.
    """
    train, validation, test = map(_read, (TRAIN, VALIDATION, TEST))
    return ArrayDataset(train, validation, test, num_classes=10)


def load_augmented() -> ArrayDataset:
    """As `load`, with random crops and flips."""
    return dataclasses.replace(load(), augment=augment.crop_and_flip)


def _read(split: str) -> Examples:
    examples = list(prepared.source("cifar10", split))
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples], np.int32)
    return Examples((images / 127.5 - 1).astype(np.float32), labels)
