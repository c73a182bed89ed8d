"""Data sets too large for the memory: examples are read and changed while others are trained."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from experiments.data.dataset import Examples, Read, Split, batches_of, every

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
        """Number of examples that `split_batches` yields."""
        return len(self.splits[split])

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of whole batches in an epoch."""
        return len(self.train) // batch_size

    def epoch_batches(
        self, seed: int, epoch: int, batch_size: int, start: int = 0, read: Read = every
    ) -> Iterator[Examples]:
        """Yields what is read of the epoch's batches; see `Dataset`."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.train))
        whole = self.steps_per_epoch(batch_size) * batch_size

        def changed(number: int) -> tuple[np.ndarray, int]:
            return self.change(np.random.default_rng([seed, epoch, 1 + number]), self.train[number])

        batches = batches_of(whole, batch_size, read)[start:]
        return self._batches(changed, [order[places] for places in batches])

    def split_batches(
        self, split: Split, batch_size: int, read: Read = every
    ) -> Iterator[Examples]:
        """Yields what is read of the batches of a split; see `Dataset`."""
        examples = self.splits[split]
        batches = batches_of(len(examples), batch_size, read)
        return self._batches(lambda place: self.prepare(examples[place]), batches)

    def _batches(
        self, example: Callable[[int], tuple[np.ndarray, int]], batches: Sequence[np.ndarray]
    ) -> Iterator[Examples]:
        """The examples of these numbers; all batches but the last are of one size."""
        import grain

        if not batches:
            return
        size, numbers = len(batches[0]), np.concatenate(batches).tolist()
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=2 * size)
        examples = grain.MapDataset.source(numbers).map(example).to_iter_dataset(options)
        for inputs, labels in examples.batch(size):
            yield Examples(inputs, np.asarray(labels, np.int32))
