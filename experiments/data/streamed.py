"""Data sets too large for the memory: examples are read and changed while others are trained."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from experiments.data.dataset import Examples, Split

Prepare = Callable[[Any], tuple[np.ndarray, int]]
Change = Callable[[np.random.Generator, Any], tuple[np.ndarray, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedDataset:
    """A `Dataset` that Grain reads by threads, ahead of what is asked for.

    Attributes:
      train: examples that are trained on, by number.
      splits: examples of each split that are evaluated; for 'train' these may be fewer.
      num_classes: number of classes.
      input_shape: shape of the inputs of one example.
      change: (random generator, example) -> (inputs, label) for training.
      prepare: example -> (inputs, label) for evaluation.
      threads: number of threads that read.
    """

    train: Sequence[Any]
    splits: Mapping[Split, Sequence[Any]]
    num_classes: int
    input_shape: tuple[int, ...]
    change: Change
    prepare: Prepare
    threads: int = 16

    def size(self, split: Split) -> int:
        """Number of examples in a split."""
        return len(self.train if split == "train" else self.splits[split])

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of whole batches in an epoch."""
        return len(self.train) // batch_size

    def epoch_batches(
        self, seed: int, epoch: int, batch_size: int, start: int = 0
    ) -> Iterator[Examples]:
        """Yields the epoch's batches from step `start` on; see `Dataset`."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.train))
        rest = order[start * batch_size : self.steps_per_epoch(batch_size) * batch_size]

        def changed(place: int) -> tuple[np.ndarray, int]:
            number = int(rest[place])
            return self.change(np.random.default_rng([seed, epoch, 1 + number]), self.train[number])

        return self._batches(changed, len(rest), batch_size)

    def split_batches(self, split: Split, batch_size: int) -> Iterator[Examples]:
        """Yields all of a split in a fixed order without augmentation, the remainder last."""
        examples = self.splits[split]
        return self._batches(lambda place: self.prepare(examples[place]), len(examples), batch_size)

    def _batches(
        self, example: Callable[[int], tuple[np.ndarray, int]], number: int, batch_size: int
    ) -> Iterator[Examples]:
        import grain

        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=2 * batch_size)
        examples = grain.MapDataset.range(number).map(example).to_iter_dataset(options)
        for inputs, labels in examples.batch(batch_size):
            yield Examples(inputs, np.asarray(labels, np.int32))
