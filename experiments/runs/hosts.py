"""Several processes of one run, on one host or on many: who writes, and what they agree on.

Each process runs the same program, holds a part of every sharded array and reads its part of every
batch. All see the same run folder; the first alone writes records and speaks.
"""

import jax
from jax.experimental import multihost_utils
import numpy as np

AUTO = "auto"


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


def wait(place: str) -> None:
    """Waits until all processes are at this place."""
    if are_many():
        multihost_utils.sync_global_devices(place)
