"""What an argument may be."""

import numbers
import operator
from typing import Any

from jax.core import Tracer


def is_number(value: Any) -> bool:
    """Whether it is a real number, and not a boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_int(value: Any, least: int) -> bool:
    """Whether it is an integer of at least `least`, and not a boolean."""
    try:
        return not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        return False


def check_int(name: str, value: Any, least: int) -> None:
    """Raises ValueError unless `value` is an int of at least `least`."""
    if isinstance(value, Tracer):
        raise ValueError(
            f"`{name}` must be a Python int, got a traced value; with optax.inject_hyperparams, "
            "name it in `static_args`."
        )
    if not is_int(value, least):
        raise ValueError(f"`{name}` must be an int of at least {least}, got {value!r}.")
