"""Where a run lies: one device, or a mesh of all devices of all processes that take part.

Each process runs the same program, holds a part of every sharded array and reads its part of every
batch. All see the same run folder; the first alone writes records and speaks.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
import functools
import itertools
import sys
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
import numpy as np
import optax

from experiments.data import Examples
import pdt_optax

AUTO = "auto"
AXIS = "fsdp"
_SMALL = 2**14  # Entries of a parameter that is rather replicated.


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes, before any device is used.

    Args:
      coordinator: address and port of the first process; `AUTO` where JAX finds it by itself; None
        for a process alone.
      num_processes: how many there are.
      process_id: which one this is, from 0.
    """
    if coordinator is None:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    address = None if coordinator == AUTO else coordinator
    jax.distributed.initialize(address, num_processes, process_id)


def is_first() -> bool:
    """Whether this process writes records and speaks."""
    return jax.process_index() == 0


def are_many() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def any_of(*values: bool) -> list[bool]:
    """Whether each value holds in any of the processes; all must ask at the same step."""
    if not are_many():
        return list(values)
    return np.any(multihost_utils.process_allgather(np.array(values)), axis=0).tolist()


def first_does(action: Callable[[], Any]) -> None:
    """Lets the first process do what the others wait for; all stop if it cannot.

    Args:
      action: raises an OSError or ValueError if it cannot.
    """
    text = ""
    if is_first():
        try:
            action()
        except (OSError, ValueError) as error:
            text = str(error)
    (has_failed,) = any_of(bool(text))
    if has_failed:
        sys.exit(text or "the first process stopped.")


def wait(place: str) -> None:
    """Waits until all processes are at this place."""
    if are_many():
        multihost_utils.sync_global_devices(place)


def mesh_of(devices: Any) -> Mesh:
    """A mesh of one axis."""
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def fully_sharded(leaf: Any, mesh: Mesh) -> NamedSharding:
    """Split along the longest dimension that the devices divide; small ones are replicated."""
    spec: list[str | None] = [None] * leaf.ndim
    fitting = [i for i, length in enumerate(leaf.shape) if length % mesh.size == 0]
    if fitting and leaf.size >= _SMALL:
        spec[max(fitting, key=lambda i: leaf.shape[i])] = AXIS
    return NamedSharding(mesh, PartitionSpec(*spec))


def put(tree: Any, sharding: Sharding | None) -> Any:
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


def prefetched(
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


class Placement(NamedTuple):
    """Devices of a run.

    Attributes:
      mesh: all devices; None stands for the default one.
      splits_params: whether parameters and optimizer state are split over them; else each device
        has all. A batch is split in any case.
    """

    mesh: Mesh | None = None
    splits_params: bool = False

    def read(self, size: int) -> np.ndarray:
        """Places in a batch that this process reads: those on its devices.

        As often as the devices do not divide the batch, the last is read again.
        """
        if self.mesh is None:
            return np.arange(size)
        padded = self._padded(size)
        held = self._split().addressable_devices_indices_map((padded,)).values()
        places = np.unique(np.concatenate([np.arange(padded)[index] for index in held]))
        return np.minimum(places, size - 1)

    def put_read(self, examples: Examples, size: int) -> Examples:
        """A batch of `size`, split over the devices, of what each process read."""
        if self.mesh is None:
            return put(examples, None)
        join = functools.partial(jax.make_array_from_process_local_data, self._split())
        shapes = [(self._padded(size), *np.shape(leaf)[1:]) for leaf in examples]
        return Examples(*map(join, map(np.asarray, examples), shapes))

    def put_whole(self, examples: Examples) -> Examples:
        """Examples that each process has whole, split over the devices if these divide them."""
        if self.mesh is None:
            return put(examples, None)
        divides = len(examples.labels) % self.mesh.size == 0
        return put(
            examples, self._split() if divides else NamedSharding(self.mesh, PartitionSpec())
        )

    def _split(self) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def _padded(self, size: int) -> int:
        assert self.mesh is not None
        return -(-size // self.mesh.size) * self.mesh.size

    def put(
        self, params: Any, model_state: Any, optimizer: optax.GradientTransformation
    ) -> tuple[Any, Any, Any]:
        """Parameters, model state and a fresh optimizer state on the devices."""
        mesh = self.mesh
        if mesh is None:
            return params, model_state, optimizer.init(params)
        everywhere = NamedSharding(mesh, PartitionSpec())
        params = jax.tree.map(
            lambda leaf: put(leaf, fully_sharded(leaf, mesh) if self.splits_params else everywhere),
            params,
        )
        shardings = pdt_optax.state.state_shardings(optimizer, params)
        state = jax.jit(optimizer.init, out_shardings=shardings)(params)
        return params, put(model_state, everywhere), state


ONE = Placement()
# By the name that a setting gives.
PLACEMENTS: dict[str, Callable[[], Placement]] = {
    "one": lambda: ONE,
    "data": lambda: Placement(mesh_of(jax.devices())),
    "fsdp": lambda: Placement(mesh_of(jax.devices()), splits_params=True),
}
