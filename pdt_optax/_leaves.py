"""Which leaves of the parameters take part, and which share coefficients."""

from collections.abc import Iterable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax


def leaf_dtype(leaf: Any) -> Any:
    """The dtype of an array, a shape, or a Python scalar."""
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def is_float(leaf: Any) -> bool:
    """Whether a leaf takes part; integers, booleans and random keys do not."""
    return jnp.issubdtype(leaf_dtype(leaf), jnp.floating)


def compute_dtype(*leaves: Any) -> np.dtype:
    """At least float32, float64 if a leaf has it."""
    double = any(leaf_dtype(leaf) == jnp.float64 for leaf in leaves)
    return jnp.dtype(jnp.float64 if double else jnp.float32)


class FloatLeaves:
    """The floating-point leaves of trees like the parameters, but for those left out."""

    def __init__(self, params: Any, left_out: Any = False):
        leaves, self._structure = jax.tree.flatten(params)
        out = jax.tree.leaves(jax.tree.broadcast(left_out, params))
        self._takes_part = [
            is_float(leaf) and not is_out for leaf, is_out in zip(leaves, out, strict=True)
        ]

    def __len__(self) -> int:
        return sum(self._takes_part)

    def of(self, tree: Any) -> list[jax.Array]:
        """These leaves of `tree`."""
        return list(map(jnp.asarray, self.select(jax.tree.leaves(tree))))

    def select(self, everything: list[Any]) -> list[Any]:
        """Those of a list with one entry for each leaf."""
        pairs = zip(everything, self._takes_part, strict=True)
        return [entry for entry, takes_part in pairs if takes_part]

    def tree(self, entries: Iterable[Any]) -> Any:
        """A tree like the parameters with `entries` in their places, the others masked."""
        new = iter(entries)
        return self._structure.unflatten(
            [next(new) if takes_part else optax.MaskedNode() for takes_part in self._takes_part]
        )

    def replace(self, tree: Any, leaves: list[jax.Array]) -> Any:
        """`tree` with `leaves` in their places."""
        new = iter(leaves)
        old = zip(jax.tree.leaves(tree), self._takes_part, strict=True)
        return self._structure.unflatten(
            [next(new) if takes_part else leaf for leaf, takes_part in old]
        )


def _called(given: Any, params: Any) -> Any:
    """A tree, or what a function of the parameters returns; a module is a tree with a call."""
    is_function = callable(given) and all(map(callable, jax.tree.leaves(given)))
    return given(params) if is_function else given


def booleans(name: str, given: Any, params: Any) -> Any:
    """A tree of booleans like the parameters, from a prefix of it or a function that gives one."""
    if not jax.tree.leaves(params):
        return params
    tree = _called(given, params)
    try:
        whole = jax.tree.broadcast(tree, params)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must fit the tree of the parameters, got {tree!r}: {error}"
        ) from None
    for value in jax.tree.leaves(whole):
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"`{name}` must hold booleans, got {value!r}.")
    return whole


def check_structure(name: str, tree: Any, like: Any, of: str) -> None:
    """Raises ValueError unless `tree` is like `like`; leaves of both may be masked."""

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    found, expected = (jax.tree.structure(each, is_leaf=is_masked) for each in (tree, like))
    if found != expected:
        raise ValueError(f"`{name}` must have the tree structure of {of}, {expected}; got {found}.")


def check_shapes(name: str, tree: Any, params: Any) -> None:
    """Raises ValueError unless `tree` has the structure and the shapes of the parameters."""
    check_structure(name, tree, params, "`params`")
    for leaf, param in zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True):
        if np.shape(leaf) != np.shape(param):
            raise ValueError(
                f"`{name}` must have the shapes of `params`, here {np.shape(param)}; "
                f"got {np.shape(leaf)}."
            )


def check_real(params: Any) -> None:
    """Raises ValueError if a leaf is complex, or no array."""
    for path, leaf in jax.tree.leaves_with_path(params):
        where = jax.tree_util.keystr(path) or "the root"
        try:
            dtype = leaf_dtype(leaf)
        except TypeError:
            raise ValueError(
                f"`params` must hold arrays, got {leaf!r} at {where}. Leave it out, as "
                "equinox.filter(model, equinox.is_inexact_array) does, here and in `update`."
            ) from None
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(
                f"`params` must be real, got {dtype} at {where}. Keep real and imaginary parts "
                "as leaves of their own, as optax.contrib.split_real_and_imaginary does, which "
                "however passes no extra arguments on, as Verify and Solve need."
            )


def apply_update(param: jax.Array, update: jax.Array) -> jax.Array:
    """Where the parameter arrives, as :func:`optax.apply_updates` has it."""
    return cast(jax.Array, optax.apply_updates(param, update))


def unflatten(params: Any, values: Iterable[Any]) -> Any:
    """A tree like `params` with a value for each floating-point leaf, the others masked."""
    values = iter(values)
    return jax.tree.map(lambda leaf: next(values) if is_float(leaf) else optax.MaskedNode(), params)


def check_scope(scope: Any) -> None:
    """Raises ValueError for a string that is no scope."""
    if isinstance(scope, str) and scope not in ("global", "leaf"):
        raise ValueError(
            "`scope` must be 'global', 'leaf', a tree of labels or a function that gives one; "
            f"got {scope!r}."
        )


def groups(scope: Any, params: Any, floats: FloatLeaves | None = None) -> tuple[list[int], int]:
    """Group of each leaf that takes part, by default the floating-point ones; their number."""
    floats = FloatLeaves(params) if floats is None else floats
    leaves = jax.tree.leaves(params)
    if isinstance(scope, str) and scope == "global":
        labels = [None] * len(leaves)
    elif isinstance(scope, str) or not leaves:
        labels = list(range(len(leaves)))
    else:
        tree = _called(scope, params)
        try:
            labels = jax.tree.leaves(jax.tree.broadcast(tree, params))
        except ValueError as error:
            raise ValueError(
                f"`scope` must label every leaf of the parameters, got {tree!r}: {error}"
            ) from None
    labels = floats.select(labels)
    try:
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    except TypeError as error:
        raise ValueError(f"`scope` must give labels such as str: {error}.") from None
    return [numbers[label] for label in labels], len(numbers)
