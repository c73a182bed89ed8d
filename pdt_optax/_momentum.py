"""The momentum of an optimizer, and how a jump makes it forget."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pdt_optax import _checks
from pdt_optax._diagnostics import find
from pdt_optax._run_if import run_if

_MOMENTA = ("mu", "trace", "ema")
_OTHERS = ("nu", "nu_max", "acc_grads")
_MARK = object()


def reset_momentum(
    optimizer: optax.GradientTransformation, link: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """``optax.chain(optimizer, link)``, where what jumps forgets its momentum.

    Where a coordinate jumps the optimizer's momentum becomes zero. It points to where the
    coordinate came from; the larger the learning rate, the more there is to forget. The state
    is that of the chain. A step copies the optimizer's updates once more than the chain.

    Args:
      optimizer: has a momentum: a state with a field ``mu``, ``trace`` or ``ema``.
      link: of :func:`pdt_optax.pdt`.

    Returns:
      The transformation.

    Raises:
      ValueError: if `optimizer` or `link` is not a transformation; from ``init`` if `link` is
        none of :func:`pdt_optax.pdt`, or if `optimizer` has no momentum, one that is not like
        the parameters, or beside it something like the parameters that is no known momentum
        nor second moment and would be kept.

    Examples:
      >>> import jax.numpy as jnp, optax, pdt_optax
      >>> tx = pdt_optax.reset_momentum(optax.adam(1e-3), pdt_optax.pdt(100))
      >>> state = tx.init(jnp.ones(3))
    """
    _checks.check_transformation("optimizer", optimizer)
    _checks.check_transformation("link", link)
    both = [optax.with_extra_args_support(part) for part in (optimizer, link)]

    def init_fn(params):
        own, jumps = (part.init(params) for part in both)
        find(jumps, "link")
        _check(optimizer, own, params)
        return own, jumps

    def update_fn(updates, state, params=None, **extra_args):
        own, jumps = state
        before, own = both[0].update(updates, own, params, **extra_args)
        after, new = both[1].update(before, jumps, params, **extra_args)
        is_event = find(new, "link").predictions != find(jumps, "link").predictions

        def forget(own):
            return _reset(own, jax.tree.map(_jumped, before, after))

        return after, (run_if(is_event, forget, own), new)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _jumped(before: jax.Array, after: jax.Array) -> jax.Array:
    """Where a coordinate left the optimizer's update; it never leaves one that is not finite."""
    return (after != before) & ~jnp.isnan(after)


def _check(optimizer: optax.GradientTransformation, state: Any, params: Any) -> None:
    """Raises ValueError unless `state` holds a momentum, and nothing unknown like it."""
    nodes = [node for node in jax.tree.leaves(state, is_leaf=_has_momentum) if _has_momentum(node)]
    if not nodes:
        raise ValueError(
            f"`optimizer` must hold a momentum, a state with one of the fields {_MOMENTA}, got "
            f"{jax.tree.structure(state)}. Without one write optax.chain(optimizer, link)."
        )
    for momentum in (momentum for node in nodes for momentum in _momenta(node).values()):
        try:
            jax.tree.map(_check_leaf, momentum, params, is_leaf=_is_masked)
        except ValueError as error:
            raise ValueError(
                f"`optimizer` must keep its momentum in a tree like the parameters: {error}"
            ) from None
    marked = optax.tree.map_params(optimizer, lambda _: _MARK, state, is_leaf=_is_masked)
    for path, leaf in jax.tree.leaves_with_path(marked):
        names = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
        if leaf is _MARK and not set(names) & {*_MOMENTA, *_OTHERS}:
            raise ValueError(
                f"`optimizer` must hold nothing like the parameters beside {_MOMENTA}, which are "
                f"reset, and {_OTHERS}, which are kept; got "
                f"{jax.tree_util.keystr(path)}, which may be a momentum too."
            )


def _reset(state: Any, jumped: Any) -> Any:
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
    return any(name in _MOMENTA for name in getattr(node, "_fields", ()))


def _momenta(node: Any) -> dict[str, Any]:
    return {name: getattr(node, name) for name in _MOMENTA if name in node._fields}


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
