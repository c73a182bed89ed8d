"""Registry of data sets: name -> function that loads it."""

from collections.abc import Callable, Mapping
import functools

from experiments.data import ag_news, cifar10, digits, imagenet, mnist5k, patches
from experiments.data.dataset import ORDERS, Array, ArrayDataset, Dataset, Examples, Read, Split
from experiments.data.prepared import MissingDataError

DATASETS: Mapping[str, Callable[[], Dataset]] = {
    # Inside installed packages.
    "mnist5k": mnist5k.load,
    "digits": digits.load,
    "patches": patches.load,
    "patches640": functools.partial(patches.load, stride=patches.SIDE),
    # Prepared by TensorFlow Datasets.
    "cifar10": cifar10.load,
    "cifar10_augmented": cifar10.load_augmented,
    "imagenet2012": imagenet.load,
    "ag_news_subset": ag_news.load,
}

__all__ = [
    "DATASETS",
    "ORDERS",
    "Array",
    "ArrayDataset",
    "Dataset",
    "Examples",
    "MissingDataError",
    "Read",
    "Split",
]
