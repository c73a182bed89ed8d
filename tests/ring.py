"""The ring of increments in a state."""

from typing import Any


def in_time(state: Any) -> tuple[Any, ...]:
    """The increments, oldest first."""
    oldest = (int(state.snapshots_taken) - 1) % len(state.increments)
    return state.increments[oldest:] + state.increments[:oldest]
