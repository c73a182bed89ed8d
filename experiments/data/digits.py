"""The 1,797 digits of 8 x 8 pixels that ship inside scikit-learn: no download."""

import functools

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from experiments.data.dataset import ArrayDataset, Examples

SPLIT_SEED = 1797
SPLIT_SIZES = (1437, 180, 180)


@functools.cache
def load() -> ArrayDataset:
    """Loads the digits, standardised, split with the classes as alike as they can be."""
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    images = ((pixels - pixels.mean()) / pixels.std()).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    numbers, test = train_test_split(
        np.arange(len(labels)), test_size=SPLIT_SIZES[2], stratify=labels, random_state=SPLIT_SEED
    )
    train, validation = train_test_split(
        numbers, test_size=SPLIT_SIZES[1], stratify=labels[numbers], random_state=SPLIT_SEED
    )
    splits = (Examples(images[chosen], labels[chosen]) for chosen in (train, validation, test))
    return ArrayDataset(*splits, num_classes=10)
