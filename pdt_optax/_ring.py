"""The history as the last few snapshots."""

import dataclasses
from typing import Any

import jax

from pdt_optax import _checks, _history, predictors
from pdt_optax._history import History
from pdt_optax._layout import Layout
from pdt_optax._streaming import Streaming
from pdt_optax._sums import AxisName


@dataclasses.dataclass(frozen=True)
class Ring:
    """The newest snapshots, the older ones as a ring of increments.

    What :class:`pdt_optax.Streaming` does in another way.

    Attributes:
      snapshots: how many are kept.
      least_snapshots: how many have to be held for an event.
    """

    snapshots: int
    least_snapshots: int
    resolve = staticmethod(predictors.resolve)

    @property
    def places(self) -> int:
        """Arrays for each parameter beside the newest snapshot."""
        return self.snapshots - 1

    def nothing_seen(self, num_groups: int, dtype: Any) -> None:
        """All is in the increments."""
        del num_groups, dtype

    def oldest(self, history: History) -> jax.Array:
        """Place of the oldest increment, where the next one goes."""
        return (history.snapshots_taken - 1) % self.places

    def push(
        self,
        history: History,
        layout: Layout,
        newest: list[jax.Array],
        groups: tuple[list[int], int],
        axis_name: AxisName,
    ) -> History:
        """Appends a snapshot, in blocks; its increment takes the place of the oldest."""
        del groups, axis_name
        return _history.push(history, layout, newest, self.oldest(history))

    def replace_newest(self, history: History, layout: Layout, newest: list[jax.Array]) -> History:
        """Replaces the newest snapshot by `newest`."""
        slot = (self.oldest(history) - 1) % self.places
        return _history.replace_newest(history, layout, newest, slot)


def as_history(history: int | Streaming) -> Ring | Streaming:
    """The history of that many snapshots, or the streaming one; raises ValueError otherwise."""
    if isinstance(history, Streaming):
        return history
    snapshots = _checks.as_int("history", history, 3)
    return Ring(snapshots, least_snapshots=snapshots)
