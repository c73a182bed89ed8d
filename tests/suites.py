"""Which parameters of a test belong to the quick suite, and what compiles as users have it."""

from collections.abc import Iterable
from typing import Any

import jax
import pytest

_HAS_EMITTERS = jax.version.__version_info__ < (0, 11)  # Later ones have the slow ones alone.
XLA_FLAGS = ["--xla_cpu_use_fusion_emitters=false"] if _HAS_EMITTERS else []
"""With them XLA's CPU compiler takes a third of the time."""
AS_FOR_USERS = {"xla_cpu_use_fusion_emitters": True} if _HAS_EMITTERS else {}
"""Compiler options that undo them."""


def quick(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters of a test; all but those that are kept are of the long suite."""
    return [
        value if any(value is one or value == one for one in kept)
        else pytest.param(value, marks=pytest.mark.slow)
        for value in values
    ]  # fmt: skip
