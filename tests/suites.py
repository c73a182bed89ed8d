"""Which parameters of a test belong to the quick suite."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters of a test; all but those that are kept are of the long suite."""
    return [
        value if any(value is one or value == one for one in kept)
        else pytest.param(value, marks=pytest.mark.slow)
        for value in values
    ]  # fmt: skip
