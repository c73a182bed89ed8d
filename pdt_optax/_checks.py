"""What an argument may be."""

import numbers
import operator
from typing import Any


def is_number(value: Any) -> bool:
    """Whether it is a real number, and not a boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_int(value: Any, least: int) -> bool:
    """Whether it is an integer of at least `least`, and not a boolean."""
    try:
        return not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        return False
