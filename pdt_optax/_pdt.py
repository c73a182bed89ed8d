"""Predictive Differential Training as an optax gradient transformation."""

from collections.abc import Callable
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pdt_optax import (
    _checks,
    _criteria,
    _event,
    _leaves,
    _momentum,
    _predictors,
    _restore,
    _state,
    _storage,
    _sums,
)
from pdt_optax._candidates import Candidates
from pdt_optax._event import Event
from pdt_optax._history import History
from pdt_optax._once import at_most_once, once_if
from pdt_optax._ring import Ring
from pdt_optax._schedule import Adaptive, Pace
from pdt_optax._state import PDTState, PredictionReport
from pdt_optax._streaming import Streaming
from pdt_optax._verify import Verify


def pdt(
    snapshot_every: int,
    *,
    history: int | Streaming = 5,
    horizon: int = 5,
    start: int = 5,
    interval: int = 1,
    criteria: str | _criteria.Criterion = "paper",
    predictor: str | _predictors.Predictor = "dmd",
    svd_rank: int | float | None = None,
    scope: Any | Callable[[Any], Any] = "global",
    history_dtype: Any = None,
    exclude: Any | Callable[[Any], Any] = False,
    axis_name: str | tuple[str, ...] | None = None,
    verify: Verify | None = None,
    adaptive: Adaptive | None = None,
    rollback: bool = False,
    value_tolerance: float = 0.0,
    optimizer: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lets weights jump ahead along their predicted training dynamics.

    The last link of a chain. Every `snapshot_every` steps it keeps a snapshot of
    the weights. With :math:`w(t)` the snapshots, :math:`w_{opt}(t)` where the
    optimizer alone arrives from :math:`w(t-1)`, and :math:`d = w_{opt}(t) -
    w(t-1)`, a prediction fits a Dynamic Mode Decomposition to the last `history`
    snapshots, extrapolates it `horizon` snapshots from :math:`w(t-1)` to
    :math:`p_\tau`, and merges

    .. math::
      w(t) = m \odot p_\tau + (1 - m) \odot w_{opt}(t),

    where the mask :math:`m` holds the coordinates whose prediction agrees with
    :math:`d` by the `criteria`. Between predictions, and wherever the mask is
    false, the updates of the optimizer pass bit for bit. The optimizer's own
    state is left alone, unless it is given as `optimizer`.

    The state holds `history` arrays for each parameter, or ``rank + 1`` of a streaming
    history, sharded like it, and one more with `rollback`. The update is not
    reverse-mode differentiable. Call it under :func:`jax.jit`: outside of it every call
    compiles anew, which takes seconds.

    Args:
      snapshot_every: optimizer steps in a snapshot period, the unit of time of
        all other arguments; an epoch in the paper.
      history: snapshots kept and fitted, ``h >= 3``; or a
        :class:`pdt_optax.Streaming`: all snapshots are fitted, in a few directions.
      horizon: snapshots to predict ahead, ``tau >= 1``.
      start: the first prediction may come at the end of this period, counted
        from 1, once `history` snapshots are held, or three seen.
      interval: least number of periods without a prediction between two.
      criteria: ``'paper'``: :math:`|D| \ge \tau |d|` for the displacement
        :math:`D = p_\tau - w(t-1)`, and every predicted step has the sign of
        :math:`d` (Eqs. 6 and 7); ``'bounded'``: :math:`|d| \le |D| \le \tau |d|`
        and the same signs (Eq. 8); ``'reference'``: :math:`|d| \le |D| \le
        (\tau + 1) |d|` and the sign of :math:`D` alone (the authors' code); or a
        function from a :class:`pdt_optax.Proposal` to a boolean array.
      predictor: ``'dmd'``, ``'affine_dmd'``, ``'linear'``, ``'last_increment'``,
        ``'average'``, or a function ``(gram, horizon) -> coefficients``; see
        :func:`pdt_optax.dmd`.
      svd_rank: rank of the DMD with PyDMD's meaning: -1 full, 0 Gavish-Donoho, a
        positive int, or a float in (0, 1) for the energy kept. None takes that
        of the criteria: 0 for ``'reference'`` unless the history is streaming,
        otherwise -1. A :func:`pdt_optax.dmd` as `predictor` has its own.
      scope: leaves that share one set of coefficients: ``'global'`` all,
        ``'leaf'`` each its own, or a tree of labels (a prefix of the parameters'
        tree) or a function from parameters to it, as in
        :func:`optax.multi_transform`.
      history_dtype: dtype of the stored increments: None for that of the parameters
        (bfloat16 for those of eight bits), a floating dtype, or ``'int8'``. Numbers of
        eight bits, ``'float8_e4m3fn'`` too, get a scale for each block of 64 to 256
        along the last axis, or for all of it if none of these divides it. The newest
        snapshot is kept in the parameters' dtype.
      exclude: leaves that take no part: a tree of booleans (a prefix of the
        parameters' tree) or a function from parameters to it. Their updates pass
        untouched, no history of them is kept, and `rollback` does not restore them.
      axis_name: inside :func:`jax.shard_map` the mesh axes that divide the parameters,
        one name or several. Without ``check_vma`` every leaf counts as divided along
        all of them; with it those are known that are not. Under ``jit`` alone the
        shardings of the parameters are followed without it.
      verify: a :class:`pdt_optax.Verify`: jump only where it lowers the loss that
        ``value_fn``, an extra argument of ``update``, gives for parameters. It has
        its own criteria, predictors and horizons, so `criteria`, `predictor`,
        `horizon` and `svd_rank` are left out; ``interval=0`` is safe and best with it.
      adaptive: a :class:`pdt_optax.Adaptive`: shorter and rarer predictions after
        bad ones.
      rollback: whether the parameters return to the optimizer's result of before
        the jump if the mean of ``value``, the loss of each step and an extra
        argument of ``update``, is higher over the period after a jump than over
        the one before, or if the loss or a weight is not finite. Coordinates do not
        jump so far that they could not come back, and return before a step that would
        take them so far. Costs one more copy of the parameters and a pass over both at
        each step. The optimizer's state stays as it is; wrap an optimizer with a state
        in :func:`optax.apply_if_finite`.
      value_tolerance: by what part that mean may rise; also for `adaptive` if
        ``value`` is passed.
      optimizer: an optimizer with a momentum (a state with a field ``mu`` or ``trace``),
        in place of the links before: where a coordinate jumps, its momentum becomes
        zero. It points to where the coordinate came from; the larger the learning
        rate, the more there is to forget. The state is that of
        ``optax.chain(optimizer, pdt(...))``.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`. Its ``update`` needs
      ``params``, with `verify` ``value_fn``, and with `rollback` ``value``; other
      extra arguments go to the `optimizer`, if there is one. Inside
      :func:`jax.shard_map` ``value`` and what ``value_fn`` returns must be the same on
      all devices that hold one model, by :func:`jax.lax.pmean`. Leaves that are not
      floating-point pass through untouched.

    Raises:
      ValueError: at construction for an argument out of range; from ``init`` for
        complex parameters, an `optimizer` without a momentum, or labels or an `exclude`
        that do not fit the parameters; from ``update`` if ``params``, or a needed
        ``value_fn`` or ``value``, is missing, has another structure or shape than it
        must or is known to differ between devices, or if the state is one of other
        arguments, as from an old checkpoint.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import pdt_optax
      >>> loss = lambda params: jnp.sum(jnp.array([1., 10.]) * params**2)
      >>> tx = optax.chain(optax.sgd(0.01), pdt_optax.pdt(snapshot_every=2))
      >>> params = jnp.array([1., 1.])
      >>> state = tx.init(params)
      >>> @jax.jit
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
    snapshot_every = _checks.as_int("snapshot_every", snapshot_every, 1)
    horizon = _checks.as_int("horizon", horizon, 1)
    start = _checks.as_int("start", start, 1)
    interval = _checks.as_int("interval", interval, 0)
    if isinstance(history, Streaming):
        if svd_rank == 0:
            raise ValueError(
                "`svd_rank` must not be 0 where `history` is a pdt_optax.Streaming, which holds no "
                "singular values of the snapshots; got 0."
            )
        kind = history
    else:
        kind = Ring(_checks.as_int("history", history, 3))
    _checks.check_optional("verify", verify, Verify)
    if verify is not None:
        defaults = inspect.signature(pdt).parameters
        for name, given in (
            ("criteria", criteria),
            ("predictor", predictor),
            ("horizon", horizon),
            ("svd_rank", svd_rank),
        ):
            _checks.check_default(name, given, defaults[name].default, "verify")
    if isinstance(predictor, _predictors.DMD):
        _checks.check_default("svd_rank", svd_rank, None, "predictor")
    _checks.check_optional("adaptive", adaptive, Adaptive)
    _storage.check_dtype("history_dtype", history_dtype)
    _sums.check_axis_name("axis_name", axis_name)
    _checks.check_bool("rollback", rollback)
    _checks.check_not_negative("value_tolerance", value_tolerance)
    _leaves.check_scope(scope)
    criterion, preset_rank = _criteria.resolve(criteria)
    dmd = _predictors.dmd(preset_rank if svd_rank is None else svd_rank)
    blind = Candidates(
        predictors=(kind.resolve(predictor, dmd.svd_rank),),
        horizons=(horizon,),
        points=horizon,
        criterion=criterion,
        spectrum=kind.resolve("dmd", dmd.svd_rank),
    )
    candidates = blind if verify is None else verify.candidates(kind.resolve)
    greatest_horizon = max(candidates.horizons)

    def init_fn(params):
        return _state.init(
            params,
            history=kind,
            dtype=history_dtype,
            scope=scope,
            exclude=exclude,
            rollback=rollback,
            pace=Pace.initial(greatest_horizon, interval),
        )

    def predict(updates, weights, held, groups, state, value):
        """The updates with the jumps of the accepted coordinates, which they are, and a report."""
        columns, reach = held.basis(), state.pace.jump_horizon
        oldest = kind.oldest(state.snapshots_taken)
        paths, usable, error, operators = _event.fit(
            candidates,
            reach,
            columns,
            weights,
            updates,
            oldest,
            *groups,
            axis_name=axis_name,
            stream=held.stream,
        )
        event = Event(
            weights,
            updates,
            columns,
            groups[0],
            paths,
            usable,
            candidates.at(reach),
            state.predictions,
            restorable=rollback,
            axis_name=axis_name,
        )
        if verify is not None:
            merged, masks, accepted, candidate, calls = _event.verified_merge(
                event, candidates, value, verify.gain_share
            )
            calls += state.report.value_calls
        else:
            off = jnp.zeros([], bool) if adaptive is None else adaptive.is_off(error)
            event = event._replace(usable=usable & ~off)
            merged, masks, accepted = _event.merge(event, candidates, 0)
            candidate, calls = -off.astype(jnp.int32), state.report.value_calls
        sizes = jnp.array(_sums.leaf_sizes(weights, axis_name), jnp.float32)
        report = PredictionReport(
            operators=operators,
            leaf_mask_ratio=accepted / jnp.maximum(sizes, 1),
            mask_ratio=accepted.sum() / jnp.maximum(sizes.sum(), 1),
            prediction_error=error,
            jump_candidate=candidate,
            value_calls=calls,
        )
        return merged, masks, report

    def advance(updates, state, params, own, value, value_fn):
        """New updates and states; `own`, of the optimizer, forgets where a coordinate jumps."""
        if verify is not None:
            _checks.check_passed(
                "value_fn", value_fn, "params, value_fn=lambda params: loss(params)"
            )
        if rollback:
            _checks.check_passed("value", value, "params, value=loss")
        _leaves.check_shapes("updates", updates, params)
        _leaves.check_structure("params", params, state.anchor, "those given to `init`")
        _restore.check_state(state, jax.eval_shape(init_fn, params))
        left_out = _leaves.booleans("exclude", exclude, params)
        floats = _leaves.FloatLeaves(params, left_out)
        if not floats:
            return updates, state, own
        weights, moving = floats.of(params), floats.of(updates)
        held = History(
            floats.of(state.anchor),
            tuple(map(floats.of, state.increments)),
            tuple(map(floats.of, state.scales)),
            state.stream,
        )
        fallback = floats.of(state.fallback) if rollback else []
        period, pace = state.snapshots_taken, state.pace
        oldest = kind.oldest(period)
        groups = _leaves.groups(scope, params, floats)
        nowhere = jax.tree.map(lambda _: False, params)

        def arrive(updates):
            return list(map(_leaves.apply_update, weights, updates))

        def scalar(name, value):
            value = _checks.scalar(name, value)
            _sums.check_same(name, value, weights, axis_name)
            return value

        def value_after(moving):
            def alone(param, update, is_out):
                own = is_out and _leaves.is_float(param)
                return _leaves.apply_update(param, update) if own else param

            others = jax.tree.map(alone, params, updates, left_out)
            return scalar("value_fn", value_fn(floats.replace(others, arrive(moving))))

        ends = state.pdt_count == snapshot_every - 1
        regrets = is_pending = jnp.zeros([], bool)
        if value is not None:
            value = scalar("value", value)
            if rollback:
                is_safe = _event.leaves_a_way_back(
                    arrive(moving), fallback, pace.jump_watched, axis_name
                )
                value = jnp.where(is_safe, value, jnp.nan)
            pace, regrets = pace.observe(value, ends, snapshot_every, value_tolerance)
        returns = regrets & rollback
        pace = pace._replace(value_sum=jnp.where(returns, 0, pace.value_sum))
        predicts = (
            ends
            & ~returns
            & (period >= max(start, kind.least_snapshots))
            & ((state.predictions == 0) | (period - state.last_prediction > pace.jump_interval))
        )
        if rollback:

            def restore(carry):
                updates, held = carry
                back = zip(fallback, weights, updates, strict=True)
                updates = [(f - w).astype(u.dtype) for f, w, u in back]
                return updates, kind.replace_newest(held, arrive(updates), oldest)

            moving, held = once_if(returns, restore, (moving, held))
            is_pending, fallback = at_most_once(predicts, lambda _: arrive(moving), fallback)

        def jump(carry):
            updates, _, own = carry
            updates, masks, report = predict(updates, weights, held, groups, state, value_after)
            return updates, report, _momentum.reset(own, floats.replace(nowhere, masks))

        # XLA copies updates that are merged before the fallback is made of them.
        moving, report, own = once_if(predicts & ~is_pending, jump, (moving, state.report, own))
        arrived = arrive(moving)
        held = once_if(
            ends & ~returns,
            lambda held: kind.push(held, arrived, oldest, groups, axis_name),
            held,
        )
        pace = pace._replace(jump_watched=pace.jump_watched | (predicts & (report.mask_ratio > 0)))
        if adaptive is not None:
            bad = regrets | (report.jump_candidate < 0)
            changed = adaptive.next(pace, bad, greatest_horizon, interval)
            pace = jax.tree.map(functools.partial(jnp.where, predicts | regrets), changed, pace)
        state = PDTState(
            pdt_count=jnp.where(ends | returns, 0, state.pdt_count + 1),
            snapshots_taken=jnp.where(ends & ~returns, optax.safe_increment(period), period),
            predictions=jnp.where(
                predicts, optax.safe_increment(state.predictions), state.predictions
            ),
            last_prediction=jnp.where(predicts, period, state.last_prediction),
            anchor=floats.replace(state.anchor, held.anchor),
            increments=tuple(map(floats.replace, state.increments, held.increments)),
            scales=tuple(map(floats.replace, state.scales, held.scales)),
            fallback=floats.replace(state.fallback, fallback) if rollback else None,
            stream=held.stream,
            pace=pace,
            report=report,
        )
        return floats.replace(updates, moving), state, own

    if optimizer is not None:
        return _momentum.forgetting(optimizer, init_fn, advance)

    def update_fn(updates, state, params=None, *, value=None, value_fn=None, **extra_args):
        del extra_args
        _checks.check_passed("params", params, "params")
        return advance(updates, state, params, (), value, value_fn)[:2]

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
