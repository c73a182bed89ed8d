"""Checkpoints of a run under way, and how it stops for a signal and goes on later.

A checkpoint holds the arms of one seed in the midst of training and the number of records written
until then. A run that goes on drops later records and makes them again, the same ones.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import pathlib
import signal
import time
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from experiments.runs import devices
from experiments.runs.records import EndRecord, Record

ASK_EVERY = 50  # Steps of several processes between two that ask each other.


class StoppedError(Exception):
    """Raised after a signal, once the checkpoint is written."""


class Stop:
    """Whether the program was asked to stop; a second signal stops it at once."""

    number: int | None = None

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listens to Ctrl-C and SIGTERM."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in signals}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def ask(number: int, _: Any) -> None:
            self.number = number
            restore()

        for number in signals:
            signal.signal(number, ask)
        try:
            yield
        finally:
            restore()


class Position(NamedTuple):
    """Where a run is.

    Attributes:
      seed: the seed under way.
      records: number of records written.
      progress: of each arm under way its counters, by name.
    """

    seed: int
    records: int
    progress: Mapping[str, Mapping[str, Any]]


class Checkpoints:
    """The latest checkpoint of a run.

    Args:
      folder: where it is; made with the first one.
      minutes: time between two.
      stop: asks for one more, after which training ends.
    """

    def __init__(self, folder: pathlib.Path, minutes: float, stop: Stop):
        self._folder = folder.absolute()
        self._minutes = minutes
        self._stop = stop
        self._stopping = False
        self._last = time.monotonic()
        self._asked = 0

    @property
    def is_due(self) -> bool:
        """Whether it is time for a checkpoint; to be asked at each step.

        Several processes must agree, for which they wait for each other at every `ASK_EVERY`-th.
        """
        self._asked += 1
        if devices.are_many() and self._asked % ASK_EVERY:
            return False
        overdue = time.monotonic() - self._last >= 60 * self._minutes
        overdue, self._stopping = devices.any_of(overdue, self._stop.number is not None)
        return overdue or self._stopping

    def save(self, position: Position, states: Mapping[str, Any]) -> None:
        """Saves the arms under way.

        Raises:
          StoppedError: if a signal asked to stop.
        """
        leaves = {name: jax.tree.leaves(state) for name, state in states.items()}
        with self._manager() as manager:
            number = 1 + max(manager.all_steps(), default=0)
            items = ocp.args.Composite(
                position=ocp.args.JsonSave(position._asdict()),
                states=ocp.args.StandardSave(leaves),
            )
            manager.save(number, args=items)
        self._last = time.monotonic()
        if self._stopping:
            raise StoppedError

    def position(self) -> Position | None:
        """Reads where the latest checkpoint is, if there is one."""
        if not self._folder.exists():
            return None
        with self._manager() as manager:
            number = manager.latest_step()
            if number is None:
                return None
            items = ocp.args.Composite(position=ocp.args.JsonRestore())
            return Position(**manager.restore(number, args=items).position)

    def restore(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """Restores the arms of the latest checkpoint.

        Args:
          states: fresh states of these arms, for their structure.
        """
        leaves = {name: jax.tree.leaves(state) for name, state in states.items()}
        with self._manager() as manager:
            items = ocp.args.Composite(states=ocp.args.StandardRestore(leaves))
            restored = manager.restore(manager.latest_step(), args=items).states
        return {
            name: jax.tree.unflatten(jax.tree.structure(state), restored[name])
            for name, state in states.items()
        }

    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, create=True, enable_async_checkpointing=False
        )
        return ocp.CheckpointManager(self._folder, options=options)


def kept(
    records: Sequence[Record], arms: Sequence[str], position: Position | None
) -> tuple[int, Position | None]:
    """How many records stay when a run goes on, and the checkpoint to go on from.

    Without one of the seed under way, that seed starts anew.
    """
    ended: dict[int, set[str]] = {}
    whole = 0
    for number, record in enumerate(records, 1):
        if isinstance(record, EndRecord):
            ended.setdefault(record.seed, set()).add(record.arm)
            if ended[record.seed] == set(arms):
                whole = number
    usable = position is not None and whole <= position.records <= len(records)
    if position is not None and usable and ended.get(position.seed, set()) != set(arms):
        return position.records, position
    return whole, None
