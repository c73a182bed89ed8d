"""An update that is called outside of any program."""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.core import Tracer
import numpy as np

_ARRAYS = jax.Array, np.ndarray, np.generic, bool, int, float


def works_outside(update_fn: Callable[..., Any]) -> Callable[..., Any]:
    """`update_fn`, under :func:`jax.jit` where all it is given is concrete arrays.

    With a function among the extra arguments it runs operation by operation: what the function
    reads may be another at the next call. The first such call is traced too, so that what is
    wrong with a function is told at once and not at an event.
    """
    compiled, traced = jax.jit(update_fn), []

    @functools.wraps(update_fn)
    def update(*args, **extra_args):
        if _is_concrete((args, extra_args)):
            return compiled(*args, **extra_args)
        if not traced and _is_concrete(args):
            traced.append(jax.eval_shape(functools.partial(update_fn, **extra_args), *args))
        return update_fn(*args, **extra_args)

    return update


def _is_concrete(tree: Any) -> bool:
    leaves = jax.tree.leaves(tree)
    return all(isinstance(leaf, _ARRAYS) and not isinstance(leaf, Tracer) for leaf in leaves)
