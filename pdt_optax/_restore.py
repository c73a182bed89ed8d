"""Checks that a restored state matches the current arguments."""

from typing import Any

import jax
import numpy as np
import optax

from pdt_optax import _leaves
from pdt_optax._state import PDTState

_LEAVES = "`params`, `exclude` or `axis_name`"
_ARGUMENTS = {
    ("history", "anchor"): _LEAVES,
    ("history", "rows", "newest"): _LEAVES,
    ("history", "scales"): "`history_dtype`",
    ("schedule",): "`scheduler`",
    ("report", "operators"): "`scope`",
}
_MUST = "must be as it was when the state was made"
_Path = tuple[str, ...]


def restore_types(saved: Any, state: Any) -> Any:
    """Gives what was read from a checkpoint the types of `state`.

    A checkpoint that is read without a target comes back as nested dicts and lists.
    This puts its leaves into the named tuples of a state, and raises if they do not
    fit. A restore *with* a target may cast silently, as orbax does: pass the
    checkpoint's metadata here first.

    Args:
      saved: a tree of anything that has ``shape`` and ``dtype``: restored arrays, or
        the metadata of a checkpoint.
      state: what it is to become, arrays or :class:`jax.ShapeDtypeStruct`; may hold
        parameters and other things beside the state of an optimizer.

    Returns:
      The leaves of `saved` in a tree like `state`.

    Raises:
      ValueError: if a leaf is missing, left over, or of another shape or dtype. It
        names the leaf and, if that is part of PDT's state, the argument of
        :func:`pdt_optax.pdt` that must have changed.

    Examples:
      >>> import jax.numpy as jnp, optax, pdt_optax
      >>> tx = optax.adam(1e-3)
      >>> saved = [{"count": jnp.array(7), "mu": jnp.ones(2), "nu": jnp.ones(2)}, None]
      >>> state = pdt_optax.state.restore_types(saved, tx.init(jnp.zeros(2)))
      >>> print(type(state[0]).__name__, state[0].count)
      ScaleByAdamState 7
    """
    found, expected = _by_path(saved), _by_path(state)
    _check_same(found, expected, "`saved`", _roots(state))
    return jax.tree.unflatten(jax.tree.structure(state), [found[path] for path in expected])


def check_is_state(state: Any) -> None:
    """Raises ValueError for plain tuples, as some files give them back."""
    if not isinstance(state, PDTState):
        raise ValueError(_untyped(f"a {type(state).__name__}"))


def check_state(state: Any, expected: Any) -> None:
    """Raises ValueError unless a state passed to ``update`` is such as ``init`` would give."""
    _check_same(_by_path(state), _by_path(expected), "the state passed to `update`", [()])
    held, wanted = (_places(tree.history.anchor) for tree in (state, expected))
    if len(held) == len(wanted) and held != wanted:
        raise ValueError(f"{_LEAVES} {_MUST}: other leaves take part in its history.")
    if jax.tree.structure(state) != jax.tree.structure(expected):
        raise ValueError(_untyped(str(jax.tree.structure(state))))


def _places(anchor: Any) -> list[type]:
    """How each leaf lies in a history: by itself, in the rows, or not at all."""
    leaves = jax.tree.leaves(anchor, is_leaf=lambda node: isinstance(node, optax.MaskedNode))
    return [type(leaf) if isinstance(leaf, optax.MaskedNode) else object for leaf in leaves]


def _untyped(found: str) -> str:
    return (
        "`state` must be made of the types that `init` gives; what was read from a file gets "
        f"them by pdt_optax.state.restore_types(saved, tx.init(params)). Got {found}."
    )


def _check_same(
    found: dict[_Path, Any], expected: dict[_Path, Any], where: str, roots: list[_Path]
) -> None:
    """Raises ValueError at the first leaf that differs, naming the argument it depends on.

    Args:
      found: leaves by their paths.
      expected: what they must be like.
      where: what holds `found`.
      roots: paths of the states of PDT.
    """
    for path in sorted({*found, *expected}):
        there, now = _describe(found.get(path)), _describe(expected.get(path))
        if there != now and not _are_numbers(found.get(path), expected.get(path)):
            argument = _argument(path, found, expected, roots)
            must = f"{argument} {_MUST}: " if argument else ""
            raise ValueError(
                f"{must}{'/'.join(path)} is {there} in {where}, but the current arguments "
                f"require {now}."
            )


def _are_numbers(found: Any, expected: Any) -> bool:
    """Whether it is a Python number, such as an epoch: nobody chose how many bits it has."""
    if found is None or not getattr(expected, "weak_type", isinstance(expected, int | float)):
        return False
    kinds = [np.dtype(_leaves.leaf_dtype(leaf)).kind for leaf in (found, expected)]
    return kinds[0] == kinds[1] and not any(
        getattr(leaf, "shape", ()) for leaf in (found, expected)
    )


def _by_path(tree: Any) -> dict[_Path, Any]:
    return {_names(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _names(path: Any) -> _Path:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _roots(state: Any) -> list[_Path]:
    """Where the states of PDT are."""

    def is_pdt(node: Any) -> bool:
        return isinstance(node, PDTState)

    nodes = jax.tree.leaves_with_path(state, is_leaf=is_pdt)
    return [_names(path) for path, node in nodes if is_pdt(node)]


def _describe(leaf: Any) -> str:
    if leaf is None:
        return "missing"
    return f"{_leaves.leaf_dtype(leaf)}{list(getattr(leaf, 'shape', ()))}"


def _argument(
    path: _Path, found: dict[_Path, Any], expected: dict[_Path, Any], roots: list[_Path]
) -> str | None:
    """The argument of :func:`pdt_optax.pdt` that a leaf depends on; None if it is none of PDT's."""
    root = next((root for root in roots if path[: len(root)] == root), None)
    if root is None:
        return None
    inner = path[len(root) :]
    if inner[:2] == ("history", "rows") and inner[-1] in ("ring", "ring_scales"):
        places = {tree[path].shape[0] for tree in (found, expected) if path in tree}
        return "`history`" if len(places) > 1 else "`history_dtype`"
    if inner[:2] == ("history", "increments"):
        increment = path[: len(root) + 3]
        both = all(any(key[: len(increment)] == increment for key in t) for t in (found, expected))
        return "`history_dtype`" if both else "`history`"
    is_shared = path in found and path in expected
    if inner[:2] == ("history", "stream"):
        return "`scope`" if is_shared else "`history`"
    if inner[:2] == ("report", "operators") and not is_shared:
        return "`jump`"
    known = (name for start, name in _ARGUMENTS.items() if inner[: len(start)] == start)
    return next(known, "`state`")
