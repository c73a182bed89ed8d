"""Rare work inside a compiled step."""

from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp


def run_if(pred: jax.Array, fn: Callable[[Any], Any], operand: Any) -> Any:
    """``fn(operand) if pred else operand``, in place.

    A loop of at most one turn: XLA copies what passes through a conditional, but
    updates a loop's carry where it lies. Under :func:`jax.vmap` a conditional always
    does the work; the loop does it only if some `pred` is true. Outside of any program
    a branch of Python.
    """
    if not isinstance(pred, Tracer):
        return fn(operand) if pred else operand
    return jax.lax.while_loop(
        lambda carry: carry[0],
        lambda carry: (jnp.zeros_like(pred), fn(carry[1])),
        (pred, operand),
    )[1]
