"""The momentum of an optimizer, and how a jump makes it forget."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pdt_optax import _checks

NAMES = ("mu", "trace")


def forgetting(
    optimizer: optax.GradientTransformation,
    init: Callable[[Any], Any],
    advance: Callable[..., tuple[Any, Any, Any]],
) -> optax.GradientTransformationExtraArgs:
    """The optimizer, then a transformation that changes its momentum.

    Args:
      optimizer: it has a momentum.
      init: of the transformation.
      advance: from updates, state, parameters, the optimizer's state, ``value`` and
        ``value_fn`` to updates, state and the optimizer's state.

    Raises:
      ValueError: if `optimizer` is not a transformation, or has no momentum (from ``init``).
    """
    _checks.check_transformation("optimizer", optimizer)
    optimizer = optax.with_extra_args_support(optimizer)

    def init_fn(params):
        own = optimizer.init(params)
        _check(own, params)
        return own, init(params)

    def update_fn(updates, state, params=None, *, value=None, value_fn=None, **extra_args):
        _checks.check_passed("params", params, "params")
        own, state = state
        updates, own = optimizer.update(
            updates, own, params, value=value, value_fn=value_fn, **extra_args
        )
        updates, state, own = advance(updates, state, params, own, value, value_fn)
        return updates, (own, state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check(state: Any, params: Any) -> None:
    """Raises ValueError unless `state` holds a momentum, and each is like the parameters."""
    nodes = [node for node in jax.tree.leaves(state, is_leaf=_has_momentum) if _has_momentum(node)]
    if not nodes:
        raise ValueError(
            f"`optimizer` must hold a momentum, a state with one of the fields {NAMES}, got "
            f"{jax.tree.structure(state)}. Without one write optax.chain(optimizer, pdt(...))."
        )
    for momentum in (momentum for node in nodes for momentum in _momenta(node).values()):
        try:
            jax.tree.map(_check_leaf, momentum, params, is_leaf=_is_masked)
        except ValueError as error:
            raise ValueError(
                f"`optimizer` must keep its momentum in a tree like the parameters: {error}"
            ) from None


def reset(state: Any, jumped: Any) -> Any:
    """`state` with a momentum of zero where `jumped`, a tree of masks, is true."""

    def cleared(node: Any) -> Any:
        if not _has_momentum(node):
            return node
        momenta = _momenta(node).items()
        return node._replace(
            **{n: jax.tree.map(_clear, tree, jumped, is_leaf=_is_masked) for n, tree in momenta}
        )

    return jax.tree.map(cleared, state, is_leaf=_has_momentum)


def _has_momentum(node: Any) -> bool:
    return any(name in NAMES for name in getattr(node, "_fields", ()))


def _momenta(node: Any) -> dict[str, Any]:
    return {name: getattr(node, name) for name in NAMES if name in node._fields}


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _check_leaf(momentum: Any, param: Any) -> None:
    shapes = jax.tree.map(jnp.shape, (momentum, param))
    if not _is_masked(momentum) and shapes[0] != shapes[1]:
        raise ValueError(f"{shapes[0]} for {shapes[1]}.")


def _clear(momentum: Any, jumped: Any) -> Any:
    if _is_masked(momentum):
        return momentum
    return jnp.where(jumped, jnp.zeros_like(momentum), momentum)
