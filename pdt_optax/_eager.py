"""An update that is called outside of any program is compiled once, not at each call."""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.core import Tracer
import numpy as np


def compiled_once(update_fn: Callable[..., Any]) -> Callable[..., Any]:
    """`update_fn`, under :func:`jax.jit` where all it is given is concrete.

    Functions among the extra arguments are part of the program: a new one is a new program.
    """

    @functools.partial(jax.jit, static_argnames="others")
    def compiled(updates, state, params, arrays, others):
        return update_fn(updates, state, params, **arrays, **dict(others))

    @functools.wraps(update_fn)
    def update(updates, state, params=None, **extra_args):
        given = jax.tree.leaves((updates, state, params, extra_args))
        arrays = {name: value for name, value in extra_args.items() if _holds_arrays(value)}
        others = tuple((n, value) for n, value in extra_args.items() if n not in arrays)
        is_concrete = _holds_arrays((updates, state, params)) and _is_hashable(others)
        if not is_concrete or any(isinstance(leaf, Tracer) for leaf in given):
            return update_fn(updates, state, params, **extra_args)
        return compiled(updates, state, params, arrays, others)

    return update


def _holds_arrays(value: Any) -> bool:
    kinds = jax.Array, np.ndarray, np.generic, bool, int, float
    return all(isinstance(leaf, kinds) for leaf in jax.tree.leaves(value))


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
