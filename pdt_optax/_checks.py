"""What an argument may be."""

import math
import numbers
import operator
from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

MOST = 2**31 - 1  # Counts are int32.


def is_number(value: Any) -> bool:
    """Whether it is a real number, and not a boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_int(value: Any, least: int, most: float = math.inf) -> bool:
    """Whether it is an integer from `least` to `most`, and not a boolean."""
    try:
        return not isinstance(value, bool) and least <= operator.index(value) <= most
    except TypeError:
        return False


def as_int(name: str, value: Any, least: int) -> int:
    """A Python int; raises ValueError unless it is a static integer of at least `least`."""
    if isinstance(value, jax.Array):
        raise ValueError(
            f"`{name}` must be a Python int of at least {least}, got {value!r}; with "
            "optax.inject_hyperparams, name it in `static_args`."
        )
    if not is_int(value, least, MOST):
        is_whole = isinstance(value, float) and value.is_integer()
        hint = " Divide integers by //." if is_whole else ""
        most = f" and at most {MOST}" if is_number(value) and value > MOST else ""
        raise ValueError(f"`{name}` must be an int of at least {least}{most}, got {value!r}.{hint}")
    return operator.index(value)


def set_int(fields: Any, name: str, least: int) -> None:
    """Makes a field of a frozen dataclass a Python int; raises ValueError as :func:`as_int`."""
    object.__setattr__(fields, name, as_int(name, getattr(fields, name), least))


def check_is_called(name: str, value: Any, factories: tuple[Any, ...]) -> None:
    """Raises ValueError for a factory instead of what it makes."""
    if any(value is factory for factory in factories):
        call = f"{value.__module__}.{value.__name__}"
        raise ValueError(f"`{name}` must be what {call}(...) returns, got {call} itself: call it.")


def check_optional(name: str, value: Any, kind: type) -> None:
    """Raises ValueError unless it is None or of the public class `kind`."""
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"`{name}` must be None or a pdt_optax.{kind.__name__}, got {value!r}.")


def check_no_optimizer(*arguments: Any) -> None:
    """Raises ValueError for an optimizer that is to be wrapped."""
    if any(callable(getattr(value, "update", None)) for value in arguments):
        raise ValueError(
            "pdt_optax.pdt takes no optimizer, it is the last link of a chain: write "
            "optax.chain(optimizer, pdt_optax.pdt(snapshot_every, jump))."
        )


def check_transformation(name: str, value: Any) -> None:
    """Raises ValueError unless it has ``init`` and ``update``."""
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        raise ValueError(f"`{name}` must be an optax.GradientTransformation, got {value!r}.")


def check_bool(name: str, value: Any) -> None:
    """Raises ValueError unless it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be a bool, got {value!r}.")


def check_not_negative(name: str, value: Any, *others: str) -> None:
    """Raises ValueError unless it is a number of at least 0, or traced."""
    if isinstance(value, Tracer):
        return
    if not ((is_number(value) or isinstance(value, jax.Array)) and 0 <= value < math.inf):
        what = " or ".join(["a finite number of at least 0", *others])
        raise ValueError(f"`{name}` must be {what}, got {value!r}.")


def check_key(name: str, value: Any) -> None:
    """Raises ValueError unless it is a random key, typed or of uint32."""
    dtype = getattr(value, "dtype", np.dtype(object))
    is_raw = dtype == np.uint32 and value.ndim == 1
    if not (is_raw or (jnp.issubdtype(dtype, jax.dtypes.prng_key) and not value.ndim)):
        raise ValueError(
            f"`{name}` must be a random key, such as jax.random.key(0); got {value!r}."
        )


def check_passed(name: str, value: Any, example: str, hint: str = "") -> None:
    """Raises ValueError if an argument of ``update`` is None."""
    if value is None:
        call = f"tx.update(grads, state, {example})"
        raise ValueError(f"`{name}` must be passed to `update`: {call}; got None.{hint}")


def scalar(name: str, value: Any, dtype: Any = jnp.float32) -> jax.Array:
    """In a dtype; raises ValueError unless it is a floating-point scalar."""
    if not jax.tree_util.all_leaves([value]):
        raise ValueError(
            f"`{name}` must be a scalar, without auxiliary data; got {jax.tree.structure(value)}."
        )
    found = getattr(value, "dtype", np.dtype(object))
    if not (is_number(value) or jnp.issubdtype(found, jnp.floating)):
        raise ValueError(f"`{name}` must be a floating-point scalar, got {value!r}.")
    value = jnp.asarray(value, dtype)
    if value.shape:
        raise ValueError(f"`{name}` must be a scalar, got an array of shape {value.shape}.")
    return value
