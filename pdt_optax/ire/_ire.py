"""Implicit regularization enhancement as an optax gradient transformation."""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np
import optax

from pdt_optax import _leaves
from pdt_optax._checks import (
    as_int,
    check_not_negative,
    check_passed,
    check_transformation,
    is_number,
)
from pdt_optax._run_if import run_if
from pdt_optax.ire._threshold import count, kth_smallest


class IREState(NamedTuple):
    """State of :func:`pdt_optax.ire.scale_by_ire`.

    Attributes:
      ire_count: int32, update calls so far.
      flat: which coordinates are flat: a tree of booleans like the parameters; all
        false before the first estimate.
      curvature: the average of the estimates, a float32 tree like the parameters, if
        `beta` is positive; otherwise None.
      curvature_state: state of the estimator.
      flat_threshold: float32, the greatest curvature that counts as flat, for each
        group of `scope` of which a leaf counts.
      flat_fraction: float32 scalar, the part of the coordinates that is flat; above
        `gamma` where many share the greatest curvature.
    """

    ire_count: jax.Array
    flat: Any
    curvature: Any
    curvature_state: Any
    flat_threshold: jax.Array
    flat_fraction: jax.Array


def scale_by_ire(
    kappa: float | optax.Schedule,
    *,
    gamma: float = 0.6,
    update_interval: int = 10,
    warmup_steps: int,
    curvature_fn: optax.GradientTransformation,
    beta: float = 0.0,
    scope: Any | Callable[[Any], Any] = "global",
    mask: Any | Callable[[Any], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Takes larger steps along the flat coordinates of the loss.

    Implicit regularization enhancement (IRE). It goes after the whole optimizer: its
    `updates` are the steps :math:`\Delta` that would be taken. With an estimate
    :math:`h` of the diagonal of the curvature, made anew every `update_interval`
    steps, it passes on

    .. math::
      (1 + \kappa n) \odot \Delta, \qquad n_j = [|h_j| \le \tau],

    where :math:`\tau` is the :math:`\lfloor \gamma p \rfloor`-th smallest of the
    :math:`p` entries of :math:`|h|`. The optimizer's own state never sees the mask,
    but decoupled weight decay is part of the step and is enlarged with it. With
    :math:`\kappa = 0` and during the warm-up the updates pass bit for bit.

    An estimate that is not finite, or zero everywhere, is dropped: mask and average stay.

    Args:
      kappa: :math:`\kappa \ge 0`, a number or a schedule over the update calls.
      gamma: the part of the coordinates that is flat, in (0, 1].
      update_interval: steps between two estimates.
      warmup_steps: steps before the first estimate, during which nothing is
        enlarged; customarily the warm-up of the learning rate.
      curvature_fn: estimator of the diagonal, whose ``update`` returns it in place of
        updates: :func:`pdt_optax.ire.sampled_label_fisher`,
        :func:`pdt_optax.ire.gauss_newton`, :func:`pdt_optax.ire.given_curvature`, or one
        of signed entries, such as
        :func:`optax.contrib.hutchinson_estimator_diag_hessian`. It gets all
        extra arguments of ``update``, and is run only where it is needed.
      beta: decay, in [0, 1), of a moving average of the estimates, which costs 4
        bytes a parameter; 0 for none.
      scope: leaves that share a threshold: ``'global'`` all, ``'leaf'`` each its
        own, or labels as in :func:`pdt_optax.pdt`.
      mask: a tree of booleans (a prefix of the parameters' tree), or a function
        from parameters to it: where false, leaves are left alone and not counted.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`. Its ``update`` needs
      ``params`` and what the estimator needs. The state holds a byte for each
      parameter, sharded like it. Leaves that are not floating-point pass through
      untouched. Inside :func:`jax.shard_map` the parameters must be whole on every
      device and the estimate the same, by :func:`jax.lax.pmean`.

    Raises:
      ValueError: at construction for an argument out of range; from ``init`` for
        complex parameters, or labels or a mask that do not fit them; from
        ``update`` if ``params`` is missing, or ``params``, ``updates`` or the
        estimate has another structure or shape than it must.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import pdt_optax
      >>> loss = lambda params: jnp.sum(jnp.array([1., 100.]) * params**2) / 2
      >>> tx = optax.chain(
      ...     optax.sgd(0.015),
      ...     pdt_optax.ire.scale_by_ire(
      ...         50.0, gamma=0.5, warmup_steps=2,
      ...         curvature_fn=optax.contrib.hutchinson_estimator_diag_hessian(),
      ...     ),
      ... )
      >>> params = jnp.array([1., 1.])
      >>> state = tx.init(params)
      >>> for _ in range(10):
      ...   updates, state = tx.update(jax.grad(loss)(params), state, params, obj_fn=loss)
      ...   params = optax.apply_updates(params, updates)
      >>> print(params)
      [9.024341e-06 9.765625e-04]

    References:
      Wang et al., `Improving Generalization and Convergence by Enhancing Implicit
      Regularization <https://arxiv.org/abs/2405.20763>`_, NeurIPS 2024, Algorithm 1
    """
    if not callable(kappa):
        check_not_negative("kappa", kappa, "a schedule")
    for name, value in (("gamma", gamma), ("beta", beta)):
        if isinstance(value, Tracer | jax.Array):
            raise ValueError(
                f"`{name}` must be a Python float, got an array; with "
                "optax.inject_hyperparams, name it in `static_args`."
            )
    if not (is_number(gamma) and 0 < gamma <= 1):
        raise ValueError(f"`gamma` must be in (0, 1], got {gamma!r}.")
    if not (is_number(beta) and 0 <= beta < 1):
        raise ValueError(f"`beta` must be in [0, 1), got {beta!r}.")
    beta = float(beta)
    update_interval = as_int("update_interval", update_interval, 1)
    warmup_steps = as_int("warmup_steps", warmup_steps, 0)
    check_transformation("curvature_fn", curvature_fn)
    _leaves.check_scope(scope)
    estimator = optax.with_extra_args_support(curvature_fn)

    def members(params):
        """For each group the positions of its leaves among the floating-point ones."""
        labels, num_groups = _leaves.groups(scope, params)
        chosen = _leaves.booleans("mask", True if mask is None else mask, params)
        leaves = zip(jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True)
        counted = [kept and np.prod(np.shape(p)) > 0 for p, kept in leaves if _leaves.is_float(p)]
        groups = [
            [i for i, label in enumerate(labels) if label == group and counted[i]]
            for group in range(num_groups)
        ]
        return [group for group in groups if group]

    def init_fn(params):
        _leaves.check_real(params)
        return IREState(
            ire_count=jnp.zeros([], jnp.int32),
            flat=_float_tree(lambda p: jnp.zeros_like(p, bool), params),
            curvature=_float_tree(lambda p: jnp.zeros_like(p, jnp.float32), params)
            if beta
            else None,
            curvature_state=estimator.init(params),
            flat_threshold=jnp.zeros(len(members(params)), jnp.float32),
            flat_fraction=jnp.zeros([], jnp.float32),
        )

    def estimate(state, updates, params, extra_args):
        """The state with a new estimate and its mask."""
        floats = _leaves.FloatLeaves(params)
        found, curvature_state = estimator.update(
            updates, state.curvature_state, params, **extra_args
        )
        curvature = _curvature_leaves(found, params)
        flat, averages = floats.of(state.flat), floats.of(state.curvature) if beta else []
        estimates = list(map(jnp.abs, curvature))
        if beta:
            pairs = zip(averages, curvature, strict=True)
            curvature = [beta * old + (1 - beta) * new for old, new in pairs]
        magnitudes = [jnp.abs(leaf) for leaf in curvature]
        groups = members(params)
        sizes = [sum(magnitudes[i].size for i in group) for group in groups]
        thresholds = kth_smallest(
            [[magnitudes[i] for i in group] for group in groups],
            [max(1, math.floor(gamma * size)) for size in sizes],
        )
        usable = []
        for threshold, group in zip(thresholds, groups, strict=True):
            good = _usable([estimates[i] for i in group])
            usable.append(good)
            for i in group:
                flat[i] = jnp.where(good, magnitudes[i] <= threshold, flat[i])
                if beta:
                    averages[i] = jnp.where(good, curvature[i], averages[i])
        return state._replace(
            flat=floats.replace(state.flat, flat),
            curvature=floats.replace(state.curvature, averages) if beta else None,
            curvature_state=curvature_state,
            flat_threshold=jnp.where(jnp.stack(usable), thresholds, state.flat_threshold),
            flat_fraction=sum(map(count, flat)) / float(sum(sizes)),
        )

    def update_fn(updates, state, params=None, **extra_args):
        check_passed("params", params, "params")
        _leaves.check_shapes("updates", updates, params)
        _leaves.check_structure("params", params, state.flat, "those given to `init`")
        floats = _leaves.FloatLeaves(params)
        if members(params):
            steps = state.ire_count - warmup_steps
            due = (steps >= 0) & (steps % update_interval == 0)

            def anew(state):
                return estimate(state, updates, params, extra_args)

            if not isinstance(due, Tracer):
                jax.eval_shape(anew, state)  # Errors come at the first call, not when it is due.
            state = run_if(due, anew, state)
        boost = kappa(state.ire_count) if callable(kappa) else kappa
        pairs = zip(floats.of(updates), floats.of(state.flat), strict=True)
        moves = [jnp.where(flat, _enlarged(update, boost), update) for update, flat in pairs]
        state = state._replace(ire_count=optax.safe_increment(state.ire_count))
        return floats.replace(updates, moves), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def ire(
    base: optax.GradientTransformation, kappa: float | optax.Schedule, **options: Any
) -> optax.GradientTransformationExtraArgs:
    """An optimizer with implicit regularization enhancement.

    Args:
      base: the optimizer.
      kappa: see :func:`pdt_optax.ire.scale_by_ire`.
      **options: of :func:`pdt_optax.ire.scale_by_ire`.

    Returns:
      ``optax.chain(base, pdt_optax.ire.scale_by_ire(kappa, **options))``

    Raises:
      ValueError: like :func:`pdt_optax.ire.scale_by_ire`.
    """
    return optax.chain(base, scale_by_ire(kappa, **options))


def _enlarged(update: jax.Array, boost: Any) -> jax.Array:
    """``(1 + boost) * update``, computed in float32 at least."""
    dtype = _leaves.compute_dtype(update)
    return (update.astype(dtype) * (1 + jnp.asarray(boost, dtype))).astype(update.dtype)


def _usable(magnitudes: list[jax.Array]) -> jax.Array:
    """Whether all are finite and one is not zero."""
    greatest = jnp.stack([leaf.max() for leaf in magnitudes]).max()
    return (greatest > 0) & (greatest < jnp.inf)


def _curvature_leaves(curvature: Any, params: Any) -> list[jax.Array]:
    _leaves.check_shapes("curvature", curvature, params)
    floats = _leaves.FloatLeaves(params)
    return [leaf.astype(jnp.float32) for leaf in floats.of(curvature)]


def _float_tree(make: Callable[[Any], Any], params: Any) -> Any:
    """`make` of each floating-point leaf; in place of the others False of the same shape."""
    return jax.tree.map(
        lambda leaf: make(leaf) if _leaves.is_float(leaf) else jnp.zeros_like(leaf, dtype=bool),
        params,
    )
