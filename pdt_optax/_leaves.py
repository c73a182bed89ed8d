"""Which leaves of the parameters take part, and which share coefficients."""

from collections.abc import Callable
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


def float_leaves(tree: Any, like: Any) -> list[jax.Array]:
    """Leaves of `tree` in the places of the floating-point leaves of `like`."""
    kinds = [is_float(leaf) for leaf in jax.tree.leaves(like)]
    leaves = zip(jax.tree.leaves(tree), kinds, strict=True)
    return [jnp.asarray(leaf) for leaf, kind in leaves if kind]


def check_structure(name: str, tree: Any, like: Any, of: str) -> None:
    """Raises ValueError unless `tree` has the structure of `like`."""
    if jax.tree.structure(tree) != jax.tree.structure(like):
        raise ValueError(
            f"`{name}` must have the tree structure of {of}, {jax.tree.structure(like)}; "
            f"got {jax.tree.structure(tree)}."
        )


def check_real(params: Any) -> None:
    """Raises ValueError if a leaf is complex."""
    for path, leaf in jax.tree.leaves_with_path(params):
        if jnp.issubdtype(leaf_dtype(leaf), jnp.complexfloating):
            raise ValueError(
                f"`params` must be real, got {leaf_dtype(leaf)} at "
                f"{jax.tree_util.keystr(path) or 'the root'}. Keep real and imaginary parts "
                "as leaves of their own, as optax.contrib.split_real_and_imaginary does."
            )


def check_scope(scope: Any) -> None:
    """Raises ValueError for a name of no scope."""
    if isinstance(scope, str) and scope not in ("global", "leaf"):
        raise ValueError(
            "`scope` must be 'global', 'leaf', a tree of labels or a function that gives one; "
            f"got {scope!r}."
        )


def float_tree(make: Callable[[Any], Any], params: Any) -> Any:
    """`make` of each floating-point leaf, :class:`optax.MaskedNode` in place of the others."""
    return jax.tree.map(lambda p: make(p) if is_float(p) else optax.MaskedNode(), params)


def apply_update(param: jax.Array, update: jax.Array) -> jax.Array:
    """Where the parameter arrives, as :func:`optax.apply_updates` has it."""
    return cast(jax.Array, optax.apply_updates(param, update))


def groups(scope: Any, params: Any) -> tuple[list[int], int]:
    """Group of each floating-point leaf, and their number."""
    leaves = jax.tree.leaves(params)
    if isinstance(scope, str) and scope == "global":
        labels = [None] * len(leaves)
    elif isinstance(scope, str) or not leaves:
        labels = list(range(len(leaves)))
    else:
        tree = scope(params) if callable(scope) else scope
        try:
            labels = jax.tree.leaves(jax.tree.broadcast(tree, params))
        except ValueError as error:
            raise ValueError(
                f"`scope` must label every leaf of the parameters, got {tree!r}: {error}"
            ) from None
    labels = [label for label, leaf in zip(labels, leaves, strict=True) if is_float(leaf)]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return [numbers[label] for label in labels], len(numbers)


def replace_float_leaves(tree: Any, like: Any, leaves: list[jax.Array]) -> Any:
    """`tree` with `leaves` in the places of the floating-point leaves of `like`."""
    replacements = iter(leaves)
    kinds = [is_float(leaf) for leaf in jax.tree.leaves(like)]
    old, structure = jax.tree.flatten(tree)
    new = [next(replacements) if kind else leaf for leaf, kind in zip(old, kinds, strict=True)]
    return jax.tree.unflatten(structure, new)
