"""Predictive Differential Training as an optax gradient transformation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pdt_optax import _checks, _leaves, _quantize, _restore, _sums
from pdt_optax._clock import Clock
from pdt_optax._core import Core
from pdt_optax._eager import works_outside
from pdt_optax._extrapolate import Extrapolate
from pdt_optax._jump import Jump, check_jump, warn_of_residuals
from pdt_optax._scheduler import Scheduler
from pdt_optax._state import PDTState


def pdt(
    snapshot_every: int,
    jump: Jump = Extrapolate(),  # noqa: B008
    *,
    scope: Any | Callable[[Any], Any] = None,
    history_dtype: Any = None,
    exclude: Any | Callable[[Any], Any] = False,
    axis_name: str | tuple[str, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lets weights jump ahead along their training dynamics.

    The last link of a chain. Every `snapshot_every` steps it keeps a snapshot of
    the weights. From some of the snapshots on, as `jump` says, it fits a model of the
    dynamics to the last few, and weights land where `jump` decides. Between these steps,
    and wherever a coordinate does not jump, the updates of the optimizer pass bit for bit.
    The optimizer's own state is left alone; see :func:`pdt_optax.reset_momentum`.

    The state holds `history` arrays for each parameter, or ``rank + 1`` of a streaming
    history, sharded like it; leaves of up to 4,096 numbers lie end to end in one array,
    replicated. Give the state and the parameters to ``jit``'s ``donate_argnums``: otherwise
    every step copies the history. The update is not reverse-mode differentiable. Call it
    under :func:`jax.jit`. Outside of it the first call compiles it alone; with ``value_fn`` or
    ``residual_fn`` it runs operation by operation, and an event takes seconds.

    Args:
      snapshot_every: optimizer steps in a snapshot period, the unit of time of `jump`;
        an epoch in the paper.
      jump: a way of jumping: :class:`pdt_optax.Extrapolate`, :class:`pdt_optax.Verify` or
        :class:`pdt_optax.Solve`.
      scope: leaves that share one set of coefficients: ``'global'`` all,
        ``'leaf'`` each its own, or a tree of labels (a prefix of the parameters'
        tree) or a function from parameters to it, as in
        :func:`optax.multi_transform`. None is what suits `jump`.
      history_dtype: dtype of the stored increments: None for that of the parameters, a
        floating dtype, or ``'int8'``, with a scale for each block of 64 to 256 numbers
        along the last axis, or for all of it if none of these divides it. The newest
        snapshot is kept in the parameters' dtype.
      exclude: leaves that take no part: a tree of booleans (a prefix of the
        parameters' tree) or a function from parameters to it. Their updates pass
        untouched, no history of them is kept, and nothing restores them.
      axis_name: inside :func:`jax.shard_map` the mesh axes that divide the parameters,
        one name or several. Without ``check_vma`` every leaf counts as divided along
        all of them; with it those are known that are not. Under ``jit`` alone the
        shardings of the parameters are followed without it.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`. Its ``update`` needs
      ``params``, with :class:`pdt_optax.Verify` also ``value_fn``, with
      :class:`pdt_optax.Solve` ``residual_fn`` or ``value_fn``. These functions are called
      with parameters, and with those of the extra arguments of ``update`` that they take
      by name, as in optax's line searches. Inside :func:`jax.shard_map` what ``value_fn``
      returns must be the same on all devices that hold one model, by
      :func:`jax.lax.pmean`. Leaves that are not floating-point pass through untouched.

    Raises:
      ValueError: at construction for an argument out of range; from ``init`` for
        complex parameters, or labels or an `exclude` that do not fit the parameters; from
        ``update`` if ``params``, or a needed ``value_fn`` or ``value``, is missing, has
        another structure or shape than it must or is known to differ between devices, or
        if the state is one of other arguments, as from an old checkpoint.

    Examples:
      >>> import functools, jax, jax.numpy as jnp, optax
      >>> import pdt_optax
      >>> loss = lambda params: jnp.sum(jnp.array([1., 10.]) * params**2)
      >>> tx = optax.chain(optax.sgd(0.01), pdt_optax.pdt(snapshot_every=2))
      >>> params = jnp.array([1., 1.])
      >>> state = tx.init(params)
      >>> @functools.partial(jax.jit, donate_argnums=(0, 1))
      ... def step(params, state):
      ...   updates, state = tx.update(jax.grad(loss)(params), state, params)
      ...   return optax.apply_updates(params, updates), state
      >>> for _ in range(20):
      ...   params, state = step(params, state)
      >>> print(pdt_optax.metrics(state).predictions)
      3

    References:
      Wang et al., `Predictive Differential Training Guided by Training Dynamics
      <https://openreview.net/forum?id=zSTgrLkpRi>`_, ICLR 2026
    """
    _checks.check_no_optimizer(snapshot_every, jump)
    snapshot_every = _checks.as_int("snapshot_every", snapshot_every, 1)
    check_jump(jump)
    _quantize.check_dtype("history_dtype", history_dtype)
    _sums.check_axis_name("axis_name", axis_name)
    scope = jump.scope if scope is None else scope
    _leaves.check_scope(scope)
    clock = Clock(snapshot_every, jump)
    scheduler = Scheduler.of(clock)

    def core_of(params: Any) -> Core:
        return Core(jump.kind, params, scope, history_dtype, exclude, axis_name)

    def init_fn(params) -> Any:
        core = core_of(params)
        history, report = core.init(jump.damping, jump.has_dmd)
        return PDTState(
            pdt_count=jnp.zeros([], jnp.int32),
            predictions=jnp.zeros([], jnp.int32),
            last_prediction=jnp.zeros([], jnp.int32),
            jumps=jnp.zeros([], jnp.int32),
            steps_until_jump=jnp.full([], clock.steps_until_first, jnp.int32),
            foreign_changes=jnp.zeros([], jnp.int32),
            history=history,
            schedule=scheduler and scheduler.init(core),
            report=report,
        )

    def update_fn(updates, state: Any, params=None, **extra_args) -> Any:
        _checks.check_passed("params", params, "params")
        jump.check_passed(extra_args)
        warn_of_residuals(jump, extra_args)
        _leaves.check_shapes("updates", updates, params)
        _restore.check_is_state(state)
        _leaves.check_structure("params", params, state.history.anchor, "those given to `init`")
        _restore.check_state(state, jax.eval_shape(init_fn, params))
        core = core_of(params)
        if not len(core.layout):
            return updates, state
        changes = core.foreign_changes(state)
        # Never negative; XLA copies what is read and written later unless one waits for the other.
        count = jnp.where(changes < 0, 0, state.pdt_count)
        state = state._replace(pdt_count=count, foreign_changes=changes)
        extra = jump.functions(core, updates, extra_args)
        leaves = core.layout.floats.of(updates)
        if scheduler is None:
            leaves, state = clock.tick(core, state, leaves, extra)
            interval = jump.interval
        else:
            leaves, state = scheduler.tick(core, state, leaves, extra, extra_args.get("value"))
            interval = state.schedule.jump_interval
        state = state._replace(steps_until_jump=clock.steps_until_jump(state, interval))
        return core.layout.floats.replace(updates, leaves), state

    return optax.GradientTransformationExtraArgs(init_fn, works_outside(update_fn))


def end_period(
    link: optax.GradientTransformationExtraArgs, params: Any, state: Any, **extra_args: Any
) -> tuple[Any, Any]:
    """Ends a snapshot period outside of the training step: between two epochs, say.

    For loops that know their epochs. The step then holds nothing of PDT, and the event is a
    pure function of its own, which is compiled by itself.

    Args:
      link: of :func:`pdt_optax.pdt`; each call is the end of a period, whatever its
        ``snapshot_every``. With 1 ``steps_until_jump`` counts these calls.
      params: as the optimizer leaves them at the end of the period.
      state: of the link, at first ``link.init(params)``.
      **extra_args: as for the link's ``update``.

    Returns:
      The parameters from which training goes on, and the state.

    Examples:
      >>> import functools, jax, jax.numpy as jnp, optax
      >>> import pdt_optax
      >>> loss = lambda params: jnp.sum(jnp.array([1., 10.]) * params**2)
      >>> optimizer = optax.sgd(0.01)
      >>> link = pdt_optax.pdt(1, pdt_optax.Verify())
      >>> params = jnp.array([1., 1.])
      >>> state, history = optimizer.init(params), link.init(params)
      >>> @functools.partial(jax.jit, donate_argnums=(0, 1))
      ... def step(params, state):
      ...   updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      ...   return optax.apply_updates(params, updates), state
      >>> @functools.partial(jax.jit, donate_argnums=(0, 1))
      ... def end_epoch(params, history):
      ...   return pdt_optax.end_period(link, params, history, value_fn=loss)
      >>> for epoch in range(6):
      ...   for _ in range(10):
      ...     params, state = step(params, state)
      ...   params, history = end_epoch(params, history)
      >>> print(pdt_optax.metrics(history).predictions)
      2
    """

    def nothing(param):
        return jnp.full_like(param, -0.0) if _leaves.is_float(param) else param  # x + -0.0 is x.

    def moved(param, update):
        return _leaves.apply_update(param, update) if _leaves.is_float(param) else param

    # The period ends with this step, however long it was; only its first looks for changes.
    state = optax.tree.set(state, pdt_count=jnp.full([], _checks.MOST, jnp.int32))
    updates, state = link.update(jax.tree.map(nothing, params), state, params, **extra_args)
    return jax.tree.map(moved, params, updates), state
