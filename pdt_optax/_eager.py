"""An update that is called outside of any program is compiled once, not at each call."""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.core import Tracer
import numpy as np

_ARRAYS = jax.Array, np.ndarray, np.generic, bool, int, float


def compiled_once(update_fn: Callable[..., Any]) -> Callable[..., Any]:
    """`update_fn`, under :func:`jax.jit` where all it is given is concrete arrays.

    With a function among the extra arguments it runs operation by operation: what the function
    reads may be another at the next call.
    """
    compiled = jax.jit(update_fn)

    @functools.wraps(update_fn)
    def update(*args, **extra_args):
        leaves = jax.tree.leaves((args, extra_args))
        is_concrete = all(isinstance(x, _ARRAYS) and not isinstance(x, Tracer) for x in leaves)
        return (compiled if is_concrete else update_fn)(*args, **extra_args)

    return update
