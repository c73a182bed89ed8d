"""From a loss curve to the number of steps until a loss."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from pdt_optax._checks import as_int, is_number

_FIRST_BLOCK = 256
_Curve = Callable[[np.ndarray], np.ndarray]


def steps_to_threshold(
    curve: Any | _Curve,
    threshold: float,
    max_steps: int,
) -> int | None:
    """The least number of steps after which the loss is at most a threshold.

    Args:
      curve: losses after 0, 1, .. steps, or a function from numbers of steps to losses
        such as :func:`pdt_optax.training_time.mse_curve` gives.
      threshold: the loss to reach.
      max_steps: steps looked at, at least 1.

    Returns:
      The number of steps, or None if there is none up to `max_steps`.

    Raises:
      ValueError: for an argument out of range.

    Examples:
      >>> import pdt_optax
      >>> pdt_optax.training_time.steps_to_threshold([1.0, 0.6, 0.4, 0.5], 0.5, max_steps=3)
      2
    """
    max_steps = as_int("max_steps", max_steps, 1)
    if not is_number(threshold) or np.isnan(threshold):
        raise ValueError(f"`threshold` must be a number, got {threshold!r}.")
    if not callable(curve):
        losses = np.asarray(curve, float)
        if losses.ndim != 1 or not losses.size:
            raise ValueError(f"`curve` must be a sequence of losses, got shape {losses.shape}.")
        return _first(losses[: max_steps + 1], threshold)
    start, end = 0, _FIRST_BLOCK
    while start <= max_steps:
        times = np.arange(start, min(end, max_steps + 1))
        found = _first(cast(_Curve, curve)(times), threshold)
        if found is not None:
            return start + found
        start, end = end, 2 * end
    return None


def _first(losses: np.ndarray, threshold: float) -> int | None:
    reached = np.flatnonzero(losses <= threshold)
    return int(reached[0]) if reached.size else None
