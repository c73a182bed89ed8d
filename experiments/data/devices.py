"""Batches on the devices before they are asked for."""

import collections
from collections.abc import Callable, Iterable, Iterator
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


def places(sharding: jax.sharding.Sharding, size: int) -> np.ndarray:
    """Those of a batch of `size` that lie on the devices of this process, in order."""
    held = sharding.addressable_devices_indices_map((size,)).values()
    return np.unique(np.concatenate([np.arange(size)[index] for index in held]))


def put_places(examples: Examples, sharding: jax.sharding.Sharding, size: int) -> Examples:
    """A batch of `size`, divided over devices, whose examples at its `places` each process has."""
    rows = places(sharding, size)

    def put_leaf(leaf: Any) -> jax.Array:
        held = np.asarray(leaf)

        def part(index: Any) -> np.ndarray:
            return held[np.searchsorted(rows, np.arange(size)[index[0]])]

        return jax.make_array_from_callback((size, *held.shape[1:]), sharding, part)

    return jax.tree.map(put_leaf, examples)


def ahead(
    batches: Iterable[Examples], put: Callable[[Examples], Examples], number: int = 2
) -> Iterator[Examples]:
    """Yields the same batches on the devices, whose copies start `number` batches early.

    Args:
      batches: batches on the host.
      put: copies a batch to the devices.
      number: batches on the devices beside the one that is yielded.
    """
    batches = iter(batches)
    waiting = collections.deque(map(put, itertools.islice(batches, number)))
    for batch in batches:
        waiting.append(put(batch))
        yield waiting.popleft()
    yield from waiting
