"""Which parameters of a test belong to the quick suite, and what compiles as users have it."""

from collections.abc import Iterable
from typing import Any

import pytest

AS_FOR_USERS = {"xla_cpu_use_fusion_emitters": True}
"""Compiler options that undo what `conftest` sets for most programs."""


def quick(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters of a test; all but those that are kept are of the long suite."""
    return [
        value if any(value is one or value == one for one in kept)
        else pytest.param(value, marks=pytest.mark.slow)
        for value in values
    ]  # fmt: skip
