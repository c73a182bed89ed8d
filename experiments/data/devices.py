"""Batches on the devices before they are asked for."""

import collections
from collections.abc import Iterable, Iterator
import itertools

import jax

from experiments.data.dataset import Examples


def on_devices(
    batches: Iterable[Examples], sharding: jax.sharding.Sharding | None = None, ahead: int = 2
) -> Iterator[Examples]:
    """Yields the same batches as arrays on the devices, whose copies start `ahead` batches early.

    Args:
      batches: batches on the host.
      sharding: where they go; None stands for the default device.
      ahead: batches on the devices beside the one that is yielded.
    """
    batches = iter(batches)
    waiting = collections.deque(
        jax.device_put(batch, sharding) for batch in itertools.islice(batches, ahead)
    )
    for batch in batches:
        waiting.append(jax.device_put(batch, sharding))
        yield waiting.popleft()
    yield from waiting
