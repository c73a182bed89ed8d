"""Batches on the devices before they are asked for."""

import collections
from collections.abc import Iterable, Iterator
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.dataset import Examples


def put(tree: Any, sharding: jax.sharding.Sharding | None) -> Any:
    """Arrays that each process holds whole, on the devices of all of them.

    Args:
      tree: arrays, random keys among them; the same in all processes.
      sharding: where they go; None stands for the default device.
    """
    if sharding is None:
        return jax.device_put(tree)

    def put_leaf(leaf: Any) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            numbers = put_leaf(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put_leaf, tree)


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
    waiting = collections.deque(put(batch, sharding) for batch in itertools.islice(batches, ahead))
    for batch in batches:
        waiting.append(put(batch, sharding))
        yield waiting.popleft()
    yield from waiting
