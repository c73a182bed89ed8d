"""Predictive Differential Training: train faster along predicted dynamics."""

from pdt_optax import criteria, dynamics, ire, predictors, state, testing, training_time
from pdt_optax._adaptive import Adaptive
from pdt_optax._diagnostics import Metrics, metrics
from pdt_optax._extrapolate import Extrapolate
from pdt_optax._momentum import reset_momentum
from pdt_optax._solve import Solve
from pdt_optax._state import PDTState
from pdt_optax._streaming import Streaming
from pdt_optax._transform import end_period, pdt
from pdt_optax._verify import Verify

__version__ = "0.2.0"

__all__ = [
    "Adaptive",
    "Extrapolate",
    "Metrics",
    "PDTState",
    "Solve",
    "Streaming",
    "Verify",
    "criteria",
    "dynamics",
    "end_period",
    "ire",
    "metrics",
    "pdt",
    "predictors",
    "reset_momentum",
    "state",
    "testing",
    "training_time",
]
