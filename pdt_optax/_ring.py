"""The history as the last few snapshots."""

import dataclasses
from typing import Any

import jax

from pdt_optax import _history, _predictors
from pdt_optax._history import History
from pdt_optax._sums import AxisName


@dataclasses.dataclass(frozen=True)
class Ring:
    """The newest snapshots, the older ones as a ring of increments.

    What :class:`pdt_optax.Streaming` does in another way.
    """

    snapshots: int
    resolve = staticmethod(_predictors.resolve)

    @property
    def least_snapshots(self) -> int:
        """How many have to be held for a prediction."""
        return self.snapshots

    @property
    def places(self) -> int:
        """Arrays for each parameter beside the newest snapshot."""
        return self.snapshots - 1

    def nothing_seen(self, num_groups: int, dtype: Any) -> None:
        """All is in the increments."""
        del num_groups, dtype

    def oldest(self, snapshots_taken: jax.Array) -> jax.Array:
        """Place of the oldest increment."""
        return _history.slot(snapshots_taken, self.snapshots)

    def push(
        self,
        held: History,
        newest: list[jax.Array],
        oldest: jax.Array,
        groups: tuple[list[int], int],
        axis_name: AxisName,
    ) -> History:
        """Appends a snapshot; its increment takes the place of the oldest."""
        del groups, axis_name
        return held.push(newest, oldest)

    def replace_newest(self, held: History, newest: list[jax.Array], oldest: jax.Array) -> History:
        """Puts `newest` in the place of the newest snapshot."""
        return held.replace_newest(newest, (oldest - 1) % self.places)
