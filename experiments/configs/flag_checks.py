"""What several flags have to be."""

from collections.abc import Sequence
import math


def is_integers(words: Sequence[str]) -> bool:
    """Whether all are integers from 0."""
    return all(word.isdecimal() for word in words)


def is_rates(words: Sequence[str]) -> bool:
    """Whether all are finite numbers above 0."""
    try:
        return all(0 < float(word) < math.inf for word in words)
    except ValueError:
        return False


def is_distinct(words: Sequence[str]) -> bool:
    """Whether there are some, and all different."""
    return 0 < len(words) == len(set(words))
