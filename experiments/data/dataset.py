"""What a data set is: labelled examples in three splits, and the batches of an epoch."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Literal, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array | np.ndarray
Split = Literal["train", "validation", "test"]


class Examples(NamedTuple):
    """Labelled images or texts; the same type serves a whole split and one batch.

    Attributes:
      inputs: (n, height, width, channels) float32 images, or (n, length) int32 words.
      labels: (n,) int32.
    """

    inputs: Array
    labels: Array


# Size of a batch -> places in it that are read: each process of a run reads its own.
Read = Callable[[int], np.ndarray]
every: Read = np.arange


class Dataset(Protocol):
    """Three disjoint splits that are the same for every run, whatever the run's seed."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the inputs of one example."""
        ...

    def size(self, split: Split) -> int:
        """Number of examples that `split_batches` yields."""
        ...

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of whole batches in an epoch."""
        ...

    def epoch_batches(
        self, seed: int, epoch: int, batch_size: int, start: int = 0, read: Read = every
    ) -> Iterator[Examples]:
        """Yields what is read of the epoch's batches from step `start` on.

        Batches, augmentation included, are fixed by (seed, epoch, batch size, step) alone.
        The remainder is dropped.
        """
        ...

    def split_batches(
        self, split: Split, batch_size: int, read: Read = every
    ) -> Iterator[Examples]:
        """Yields what is read of the batches of a split, the remainder last.

        In a fixed order without augmentation.
        """
        ...


def batches_of(size: int, batch_size: int, read: Read) -> list[np.ndarray]:
    """Which of so many examples are read of each batch, the remainder last."""
    return [start + read(min(batch_size, size - start)) for start in range(0, size, batch_size)]


Order = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]
Augment = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def shuffled(random: np.random.Generator, labels: np.ndarray, batch_size: int) -> np.ndarray:
    """Independent and identically distributed batches.

    Args:
      random: fixes the order.
      labels: (n,) class of each example.
      batch_size: examples per batch.

    Returns:
      (steps, batch_size) indices of examples, none twice.
    """
    steps = len(labels) // batch_size
    return random.permutation(len(labels))[: steps * batch_size].reshape(steps, batch_size)


def one_class(random: np.random.Generator, labels: np.ndarray, batch_size: int) -> np.ndarray:
    """Batches of one class each, in random order: as `shuffled`, but not i.i.d.

    Each class drops its own remainder. Wang et al. (2026), Sec. A.8.
    """
    batches = [
        members[shuffled(random, members, batch_size)]
        for members in (np.flatnonzero(labels == label) for label in np.unique(labels))
    ]
    return random.permutation(np.concatenate(batches))


ORDERS: Mapping[str, Order] = {"shuffled": shuffled, "one_class": one_class}


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayDataset:
    """A data set held in memory.

    Attributes:
      train: what is trained on.
      validation: what choices are made on.
      test: what is looked at last.
      num_classes: number of classes.
      augment: changes the inputs of a training batch at random.
      order: which train examples are in which batch of an epoch.
    """

    train: Examples
    validation: Examples
    test: Examples
    num_classes: int
    augment: Augment | None = None
    order: Order = shuffled

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the inputs of one example."""
        return np.shape(self.train.inputs)[1:]

    def size(self, split: Split) -> int:
        """Number of examples that `split_batches` yields."""
        return len(getattr(self, split).labels)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of whole batches in an epoch."""
        return len(self._batches(0, 0, batch_size))

    def epoch_batches(
        self, seed: int, epoch: int, batch_size: int, start: int = 0, read: Read = every
    ) -> Iterator[Examples]:
        """Yields what is read of the epoch's batches; see `Dataset`."""
        inputs, labels = map(np.asarray, self.train)
        places = read(batch_size)
        for step, batch in enumerate(self._batches(seed, epoch, batch_size)[start:], start):
            chosen = inputs[batch]
            if self.augment is not None:
                chosen = self.augment(np.random.default_rng([seed, epoch, 1 + step]), chosen)
            yield Examples(chosen[places], labels[batch][places])

    def split_batches(
        self, split: Split, batch_size: int, read: Read = every
    ) -> Iterator[Examples]:
        """Yields what is read of the batches of a split; see `Dataset`."""
        inputs, labels = map(np.asarray, getattr(self, split))
        for places in batches_of(self.size(split), batch_size, read):
            yield Examples(inputs[places], labels[places])

    def _batches(self, seed: int, epoch: int, batch_size: int) -> np.ndarray:
        random = np.random.default_rng([seed, epoch])
        return self.order(random, np.asarray(self.train.labels), batch_size)
