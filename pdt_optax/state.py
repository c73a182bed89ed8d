"""The parts of a state, its shardings, and its types when a checkpoint is read."""

from pdt_optax._adaptive import Schedule
from pdt_optax._history import History, Stored
from pdt_optax._restore import restore_types
from pdt_optax._sharding import state_shardings
from pdt_optax._state import PDTState, PredictionReport

__all__ = [
    "History",
    "PDTState",
    "PredictionReport",
    "Schedule",
    "Stored",
    "restore_types",
    "state_shardings",
]
