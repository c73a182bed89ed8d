"""The acceleration scheduler: the clock under an :class:`pdt_optax.Adaptive`, and a way back."""

from typing import Any

import jax
import jax.numpy as jnp

from pdt_optax import _checks, _leaves, _sums
from pdt_optax._adaptive import Adaptive, Schedule
from pdt_optax._clock import Clock
from pdt_optax._core import Core
from pdt_optax._history import snapshot
from pdt_optax._landing import Limits
from pdt_optax._run_if import run_if
from pdt_optax._state import PDTState


class Scheduler:
    """The clock of a transformation under an :class:`Adaptive`."""

    def __init__(self, clock: Clock, adaptive: Adaptive):
        self._clock, self._adaptive = clock, adaptive
        self._horizon, self._interval = clock.jump.horizon, clock.jump.interval

    @classmethod
    def of(cls, clock: Clock) -> "Scheduler | None":
        """That of a way of jumping, if it has one."""
        adaptive = getattr(clock.jump, "scheduler", None)
        return adaptive and cls(clock, adaptive)

    def init(self, core: Core) -> Schedule:
        """The schedule before the first step."""
        fallback = None
        if self._adaptive.rollback:
            fallback = core.layout.floats.tree(map(snapshot, core.leaves))
        return Schedule.initial(self._horizon, self._interval, fallback)

    def tick(
        self,
        core: Core,
        state: PDTState,
        updates: list[jax.Array],
        extra: dict[str, Any],
        value: Any,
    ) -> tuple[list[jax.Array], PDTState]:
        """One step: perhaps a way back, then that of the clock within the current limits.

        Args:
          core: of the parameters.
          state: of the transformation.
          updates: the optimizer's, of the leaves that take part.
          extra: what the way of jumping takes.
          value: the loss of this step, or None.
        """
        adaptive, rolls_back = self._adaptive, self._adaptive.rollback
        schedule = self._within_arguments(state.schedule)
        fallback = jax.tree.leaves(schedule.fallback)
        regrets = jnp.zeros([], bool)
        if value is not None:
            value = _checks.scalar("value", value)
            _sums.check_same("value", value, core.leaves, core.axis_name)
            is_safe = jnp.ones([], bool)
            if rolls_back:
                arrived, jumped = core.arrive(updates), schedule.jump_watched
                is_safe = can_come_back(arrived, fallback, jumped, core.axis_name)
            schedule, regrets = schedule.observe(
                value,
                is_safe,
                self._clock.ends(state),
                self._clock.snapshot_every,
                adaptive.value_tolerance,
            )
        returns = regrets & rolls_back
        schedule = schedule._replace(value_sum=jnp.where(returns, 0, schedule.value_sum))
        if rolls_back:
            carry = updates, state.history
            updates, history = run_if(returns, lambda c: core.back_to(fallback, *c), carry)
            state = state._replace(history=history)
        way_back = leaves_a_way_back if rolls_back else None
        limits = Limits(schedule.jump_horizon, schedule.jump_interval, adaptive.max_error, way_back)
        before, made, jumped = updates, state.predictions, state.jumps
        updates, state = self._clock.tick(core, state, updates, extra, limits, returns)
        predicts = state.predictions != made
        if rolls_back:
            fallback = run_if(predicts, lambda _: core.arrive(before), fallback)
            schedule = schedule._replace(fallback=core.layout.floats.tree(fallback))
        watched = schedule.jump_watched | (state.jumps != jumped)
        schedule = schedule._replace(jump_watched=watched)
        bad = regrets | (state.report.jump_candidate < 0)
        schedule = self._after(schedule, predicts | regrets, bad)
        return updates, state._replace(schedule=schedule)

    def _within_arguments(self, schedule: Any) -> Schedule:
        """They may have changed since the state was saved."""
        return schedule._replace(
            jump_horizon=jnp.minimum(schedule.jump_horizon, self._horizon),
            jump_interval=jnp.maximum(schedule.jump_interval, self._interval),
        )

    def _after(self, schedule: Schedule, turns: jax.Array, bad: jax.Array) -> Schedule:
        changed = self._adaptive.next(schedule, bad, self._horizon, self._interval)
        horizon = jnp.where(turns, changed.jump_horizon, schedule.jump_horizon)
        interval = jnp.where(turns, changed.jump_interval, schedule.jump_interval)
        return schedule._replace(jump_horizon=horizon, jump_interval=interval)


def leaves_a_way_back(landing: jax.Array, arrived: jax.Array, own: jax.Array) -> jax.Array:
    """Whether a coordinate may return by an update later.

    Only if the place it jumps to is not so far that its digits are lost there: if the loss is
    below a hundredth of the optimizer's move, or if it lands within four times its own size.
    """
    rounding = float(jnp.finfo(landing.dtype).eps) * jnp.abs(landing).astype(own.dtype)
    return (rounding <= 0.01 * jnp.abs(own)) | (jnp.abs(landing) <= 4 * jnp.abs(arrived))


def can_come_back(
    arrived: list[jax.Array], fallback: list[jax.Array], jumped: jax.Array, axis_name: Any
) -> jax.Array:
    """Whether every coordinate is finite, and after a jump an update leads to the fallback.

    What the rounding at `arrived` may cost must be below a hundredth of each leaf of
    the fallback, in the sum of magnitudes, unless the leaf is not four times as large.
    """

    def loss(here: jax.Array, there: jax.Array) -> jax.Array:
        eps = float(jnp.finfo(there.dtype).eps)
        here, there = (jnp.abs(leaf.astype(_leaves.compute_dtype(leaf))) for leaf in (here, there))
        lost = jnp.where((there == 0) & jnp.isfinite(here), 0, eps * here)
        return (lost - max(0.01, 4 * eps) * there).astype(jnp.float32)

    terms = map(loss, arrived, fallback)
    sums = [_sums.of_block([term], leaf) for leaf, term in enumerate(terms)]
    losses = _sums.by_group(sums, list(range(len(sums))), len(sums), axis_name)
    return jnp.where(jumped, losses <= 0, jnp.isfinite(losses)).all()
