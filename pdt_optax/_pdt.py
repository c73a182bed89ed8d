"""Predictive Differential Training as an optax gradient transformation."""

from collections.abc import Callable
import functools
import numbers
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
import jax.numpy as jnp
import optax

from pdt_optax import _criteria, _event, _history, _leaves, _predictors
from pdt_optax._candidates import Candidates
from pdt_optax._checks import check_int
from pdt_optax._event import Event, PredictionReport
from pdt_optax._once import once_if
from pdt_optax._schedule import Adaptive, Pace
from pdt_optax._verify import Verify


class PDTState(NamedTuple):
    """State of :func:`pdt_optax.pdt`.

    Attributes:
      pdt_count: int32, update calls since the last snapshot.
      snapshots_taken: int32, snapshots so far; the initial parameters are one.
      predictions: int32, predictions made so far.
      last_prediction: int32, snapshot period of the last prediction; 0 if none.
      anchor: the newest snapshot, a tree like the parameters.
      increments: ``h - 1`` trees like the parameters, oldest first.
      fallback: with `rollback` the optimizer's result of before the last jump, a
        tree like the parameters; otherwise None.
      pace: how far and how often is predicted now.
      report: of the last prediction; read by :func:`pdt_optax.metrics`.
    """

    pdt_count: jax.Array
    snapshots_taken: jax.Array
    predictions: jax.Array
    last_prediction: jax.Array
    anchor: Any
    increments: tuple[Any, ...]
    fallback: Any
    pace: Pace
    report: PredictionReport


def pdt(
    snapshot_every: int,
    *,
    history: int = 5,
    horizon: int = 5,
    start: int = 5,
    interval: int = 1,
    criteria: str | _criteria.Criterion = "paper",
    predictor: str | _predictors.Predictor = "dmd",
    svd_rank: int | float | None = None,
    scope: Any | Callable[[Any], Any] = "global",
    history_dtype: Any = None,
    verify: Verify | None = None,
    adaptive: Adaptive | None = None,
    rollback: bool = False,
    value_tolerance: float = 0.0,
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
    state is left alone.

    The state holds `history` arrays for each parameter, sharded like it, and one
    more with `rollback`. The update is not reverse-mode differentiable.

    Args:
      snapshot_every: optimizer steps in a snapshot period, the unit of time of
        all other arguments; an epoch in the paper.
      history: snapshots kept and fitted, ``h >= 3``.
      horizon: snapshots to predict ahead, ``tau >= 1``.
      start: the first prediction may come at the end of this period, counted
        from 1, once `history` snapshots are held.
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
        of the criteria: 0 for ``'reference'``, otherwise -1.
      scope: leaves that share one set of coefficients: ``'global'`` all,
        ``'leaf'`` each its own, or a tree of labels (a prefix of the parameters'
        tree) or a function from parameters to it, as in
        :func:`optax.multi_transform`.
      history_dtype: floating dtype of the stored increments; None for that of
        the parameters. The newest snapshot is kept in the parameters' dtype.
      verify: a :class:`pdt_optax.Verify`: jump only where it lowers the loss that
        ``value_fn``, an extra argument of ``update``, gives for parameters. It
        replaces `criteria`, `predictor`, `horizon` and `svd_rank`; ``interval=0``
        is safe and best with it.
      adaptive: a :class:`pdt_optax.Adaptive`: shorter and rarer predictions after
        bad ones.
      rollback: whether the parameters return to the optimizer's result of before
        the jump if the mean of ``value``, the loss of each step and an extra
        argument of ``update``, is higher over the period after a jump than over
        the one before, or if the loss or a weight is not finite. Coordinates do not
        jump so far that they could not come back. Costs one more copy of the
        parameters and a pass over them at each step. The optimizer's state stays as
        it is; wrap an optimizer with a state in :func:`optax.apply_if_finite`.
      value_tolerance: by what part that mean may rise; also for `adaptive` if
        ``value`` is passed.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`. Its ``update`` needs
      ``params``, with `verify` ``value_fn``, and with `rollback` ``value``; it
      ignores other extra arguments. Leaves that are not floating-point pass
      through untouched.

    Raises:
      ValueError: at construction for an argument out of range; from ``init`` for
        complex parameters or labels that do not fit them; from ``update`` if
        ``params``, or a needed ``value_fn`` or ``value``, is missing or has another
        structure or shape than it must.

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
    check_int("snapshot_every", snapshot_every, 1)
    check_int("history", history, 3)
    check_int("horizon", horizon, 1)
    check_int("start", start, 1)
    check_int("interval", interval, 0)
    for name, argument, kind in (("verify", verify, Verify), ("adaptive", adaptive, Adaptive)):
        if argument is not None and not isinstance(argument, kind):
            raise ValueError(
                f"`{name}` must be None or a pdt_optax.{kind.__name__}, got {argument!r}."
            )
    if not isinstance(rollback, bool):
        raise ValueError(f"`rollback` must be a bool, got {rollback!r}.")
    is_number = isinstance(value_tolerance, numbers.Real | jax.Array)
    if not is_number or (not isinstance(value_tolerance, Tracer) and not value_tolerance >= 0):
        raise ValueError(f"`value_tolerance` must be at least 0, got {value_tolerance!r}.")
    criterion, preset_rank = _criteria.resolve(criteria)
    dmd = _predictors.dmd(preset_rank if svd_rank is None else svd_rank)
    candidates = (
        Candidates(
            predictors=(_predictors.resolve(predictor, dmd.svd_rank),),
            horizons=(horizon,),
            points=horizon,
            criterion=criterion,
            spectrum=dmd,
        )
        if verify is None
        else verify.candidates()
    )
    greatest_horizon = max(candidates.horizons)
    _leaves.check_scope(scope)
    if history_dtype is not None and not _is_floating(history_dtype):
        raise ValueError(
            f"`history_dtype` must be None or a floating dtype, got {history_dtype!r}."
        )

    def init_fn(params):
        _leaves.check_real(params)
        anchor, increments = _history.init(params, history, history_dtype)
        leaves = jax.tree.leaves(anchor)
        num_groups = _leaves.groups(scope, params)[1]
        dtype = _leaves.compute_dtype(*leaves)
        return PDTState(
            pdt_count=jnp.zeros([], jnp.int32),
            snapshots_taken=jnp.ones([], jnp.int32),
            predictions=jnp.zeros([], jnp.int32),
            last_prediction=jnp.zeros([], jnp.int32),
            anchor=anchor,
            increments=increments,
            fallback=_history.init(params, 1, None)[0] if rollback else None,
            pace=Pace.initial(greatest_horizon, interval),
            report=PredictionReport(
                operators=jnp.zeros((num_groups, history - 1, history - 1), dtype),
                leaf_mask_ratio=jnp.zeros(len(leaves), jnp.float32),
                mask_ratio=jnp.zeros([], jnp.float32),
                prediction_error=jnp.zeros([], jnp.float32),
                candidate=jnp.full([], -1, jnp.int32),
                value_calls=jnp.zeros([], jnp.int32),
            ),
        )

    def predict(updates, state, params, value_fn):
        """The updates with the jumps of the accepted coordinates, and a report."""
        groups, num_groups = _leaves.groups(scope, params)
        weights = _leaves.float_leaves(params, params)
        columns = _history.basis(state.anchor, state.increments)
        reach = state.pace.horizon
        paths, usable, first, operators = _event.fit(candidates, reach, columns, groups, num_groups)
        event = Event(
            weights,
            updates,
            columns,
            groups,
            paths,
            usable,
            candidates.at(reach),
            state.predictions,
            restorable=rollback,
        )
        error = _event.prediction_error(event, first)

        def value(updates):
            arrived = list(map(_leaves.apply_update, weights, updates))
            loss = value_fn(_leaves.replace_float_leaves(params, params, arrived))
            return _scalar("value_fn", loss)

        candidate, calls = jnp.zeros([], jnp.int32), 0
        if verify is not None:
            merged, accepted, candidate = _event.verified_merge(
                event, candidates, value, verify.margin
            )
            calls = len(candidates) + 1
        else:
            if adaptive is not None:
                event = event._replace(usable=usable & (error <= adaptive.max_error))
            merged, accepted = _event.merge(event, candidates, 0)

        accepted = accepted.astype(jnp.float32)
        sizes = jnp.array([weight.size for weight in weights], jnp.float32)
        return merged, PredictionReport(
            operators=operators,
            leaf_mask_ratio=accepted / jnp.maximum(sizes, 1),
            mask_ratio=accepted.sum() / jnp.maximum(sizes.sum(), 1),
            prediction_error=error,
            candidate=candidate,
            value_calls=state.report.value_calls + calls,
        )

    def next_pace(pace, predicts, report, regrets):
        """The pace after a step, which may have predicted or proved the last jump bad."""
        jumped = predicts & (report.mask_ratio > 0)
        pace = pace._replace(watched=pace.watched | jumped)
        if adaptive is None:
            return pace
        bad = report.candidate < 0
        if verify is None:
            bad = ~(report.prediction_error <= adaptive.max_error)
        changed = adaptive.next(pace, bad | regrets, greatest_horizon, interval)
        judged = predicts | regrets
        return jax.tree.map(functools.partial(jnp.where, judged), changed, pace)

    def update_fn(updates, state, params=None, *, value=None, value_fn=None, **extra_args):
        del extra_args
        for name, given, needed, example in (
            ("params", params, True, ""),
            ("value_fn", value_fn, verify is not None, ", value_fn=lambda params: loss(params)"),
            ("value", value, rollback, ", value=loss"),
        ):
            if needed and given is None:
                raise ValueError(
                    f"`{name}` must be passed to `update`: tx.update(grads, state, "
                    f"params{example}); got None."
                )
        _leaves.check_structure("updates", updates, params, "`params`")
        floats = _leaves.float_tree(lambda leaf: leaf, params)
        _leaves.check_structure("params", floats, state.anchor, "those given to `init`")
        moving = _leaves.float_leaves(updates, params)
        if not moving:
            return updates, state
        weights = _leaves.float_leaves(params, params)
        period, pace = state.snapshots_taken, state.pace
        ends = state.pdt_count == snapshot_every - 1
        regrets = jnp.zeros([], bool)
        if value is not None:
            value = _scalar("value", value)
            if rollback:
                arrived = map(_leaves.apply_update, weights, moving)
                finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in arrived]).all()
                value = jnp.where(finite, value, jnp.nan)
            pace, regrets = pace.observe(value, ends, snapshot_every, value_tolerance)
        returns = regrets & rollback
        predicts = (
            ends
            & ~returns
            & (period >= max(start, history))
            & ((state.predictions == 0) | (period - state.last_prediction > pace.interval))
        )
        held = (state.anchor, state.increments)
        fallback = state.fallback
        if rollback:
            safe = jax.tree.leaves(fallback)

            def restore(_):
                back = zip(safe, weights, moving, strict=True)
                updates = [(s - w).astype(u.dtype) for s, w, u in back]
                returned = list(map(_leaves.apply_update, weights, updates))
                return updates, _history.replace_newest(held[0], held[1], returned)

            moving, held = once_if(returns, restore, (moving, held))
            arrived = list(map(_leaves.apply_update, weights, moving))
            structure = jax.tree.structure(fallback)
            fallback = once_if(predicts, lambda _: jax.tree.unflatten(structure, arrived), fallback)
        moving, report = once_if(
            predicts,
            lambda carry: predict(carry[0], state, params, value_fn),
            (moving, state.report),
        )
        arrived = list(map(_leaves.apply_update, weights, moving))
        anchor, increments = once_if(
            ends & ~returns, lambda old: _history.push(old[0], old[1], arrived), held
        )
        return _leaves.replace_float_leaves(updates, params, moving), PDTState(
            pdt_count=jnp.where(ends | returns, 0, state.pdt_count + 1),
            snapshots_taken=jnp.where(ends & ~returns, optax.safe_increment(period), period),
            predictions=jnp.where(
                predicts, optax.safe_increment(state.predictions), state.predictions
            ),
            last_prediction=jnp.where(predicts, period, state.last_prediction),
            anchor=anchor,
            increments=increments,
            fallback=fallback,
            pace=next_pace(pace, predicts, report, regrets),
            report=report,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _scalar(name: str, value: Any) -> jax.Array:
    value = jnp.asarray(value, jnp.float32)
    if value.shape:
        raise ValueError(f"`{name}` must be a scalar, got an array of shape {value.shape}.")
    return value


def _is_floating(dtype: Any) -> bool:
    try:
        return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        return False
