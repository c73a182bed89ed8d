"""Registry of data sets: name -> function that loads it."""

from collections.abc import Callable, Mapping

from experiments.data import mnist5k
from experiments.data.dataset import Array, ArrayDataset, Dataset, Examples, Split

DATASETS: Mapping[str, Callable[[], Dataset]] = {
    "mnist5k": mnist5k.load,
}

__all__ = ["DATASETS", "Array", "ArrayDataset", "Dataset", "Examples", "Split"]
