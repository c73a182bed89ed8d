"""Floating-point operations: of a step as XLA counts them, of an event of PDT by hand."""

from collections.abc import Callable
from typing import Any

import jax

from experiments.configs.pdt_flags import Link


def of(function: Callable[..., Any], *arguments: Any) -> float:
    """Those of one call, as XLA counts them before it optimizes."""
    cost = jax.jit(function).lower(*arguments).cost_analysis() or {}
    return float(cost.get("flops", 0.0))


def of_event(link: Link, size: int, value_flops: float) -> float:
    """Those of one prediction.

    Products of all pairs of the history; a path of `points` weighted sums of the history for each
    candidate and for what is taken, two operations at each point to judge it, and the one-step
    prediction error; `value_fn` once for each candidate, which is the most, and once for the
    optimizer's result.

    Args:
      link: PDT.
      size: number of parameters.
      value_flops: of one call of `value_fn`.
    """
    gram = link.history * (link.history + 1) * size
    path = link.points * (2 * link.history + 2) * size
    scored = (link.candidates + 1) * value_flops if link.candidates else 0.0
    return gram + (link.candidates + 1) * path + 2 * link.history * size + scored
