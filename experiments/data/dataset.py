"""What a data set is: labelled examples in three splits, and the batches of an epoch."""

from collections.abc import Iterator
import dataclasses
from typing import NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray


class Examples(NamedTuple):
    """Labelled images; the same type serves a whole split and one batch.

    Attributes:
      images: (n, height, width, channels) float32.
      labels: (n,) int32.
    """

    images: Array
    labels: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits that are the same for every run, whatever the run's seed."""

    train: Examples
    validation: Examples
    test: Examples
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return np.shape(self.train.images)[1:]

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of whole batches in the train split."""
        return len(self.train.labels) // batch_size

    def epoch_batches(self, seed: int, epoch: int, batch_size: int) -> Iterator[Examples]:
        """Yields the epoch's batches in an order fixed by (seed, epoch); drops the remainder."""
        images, labels = map(np.asarray, self.train)
        order = np.random.default_rng([seed, epoch]).permutation(len(labels))
        for step in range(self.steps_per_epoch(batch_size)):
            batch = order[step * batch_size : (step + 1) * batch_size]
            yield Examples(images[batch], labels[batch])
