"""Where a run lies: on one device, or on a mesh of all devices of all processes."""

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import optax

from experiments.data import Examples, places, put, put_places
from experiments.benchmarks.tpu.step import AXIS, fully_sharded, mesh_of
import pdt_optax


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
        return np.minimum(places(self._split(), self._divided(size)), size - 1)

    def put_read(self, examples: Examples, size: int) -> Examples:
        """A batch of `size`, split over the devices, of what each process read."""
        if self.mesh is None:
            return put(examples, None)
        return put_places(examples, self._split(), self._divided(size))

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

    def _divided(self, size: int) -> int:
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
# By the name that a flag gives.
PLACEMENTS = {
    "one": lambda: ONE,
    "data": lambda: Placement(mesh_of(jax.devices())),
    "fsdp": lambda: Placement(mesh_of(jax.devices()), splits_params=True),
}
