"""Where a run lies: on one device, or on a mesh of all devices of all processes."""

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import optax

from experiments.data import Examples, put
from experiments.sharded import AXIS, fully_sharded, mesh_of
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

    @property
    def batch(self) -> NamedSharding | None:
        """Where a batch lies."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec(AXIS))

    def put_batch(self, examples: Examples) -> Examples:
        """The examples on the devices, split if these divide them."""
        if self.mesh is None or len(examples.labels) % self.mesh.size == 0:
            return put(examples, self.batch)
        return put(examples, NamedSharding(self.mesh, PartitionSpec()))

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
        shardings = pdt_optax.state_shardings(optimizer, params)
        state = jax.jit(optimizer.init, out_shardings=shardings)(params)
        return params, put(model_state, everywhere), state


ONE = Placement()
# By the name that a flag gives.
PLACEMENTS = {
    "one": lambda: ONE,
    "data": lambda: Placement(mesh_of(jax.devices())),
    "fsdp": lambda: Placement(mesh_of(jax.devices()), splits_params=True),
}
