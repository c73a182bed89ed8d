"""How far to predict and how often, by how the last predictions turned out."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pdt_optax import _checks
from pdt_optax._checks import MOST, is_int, is_number


@dataclasses.dataclass(frozen=True)
class Adaptive:
    r"""Shorter and rarer predictions after bad ones, longer and more frequent after good ones.

    The `scheduler` of :class:`pdt_optax.Extrapolate`. A prediction is bad if its error one
    snapshot ahead, :math:`\|p_1 - w_{opt}\| / \|d\|`, exceeds `max_error` (it is then not
    made), or if ``value``, the loss of each step and an extra argument of ``update``, is
    passed and rises over the period after the jump. A bad prediction scales the horizon by
    `shrink` and doubles the interval (plus one); a good one scales the horizon by `grow` and
    halves the interval. `horizon` and `interval` of :class:`pdt_optax.Extrapolate` are the
    greatest horizon and the least interval.

    Attributes:
      max_error: greatest error one snapshot ahead, in units of the optimizer's move.
      min_horizon: least horizon, at least 1.
      max_interval: greatest interval.
      shrink: factor in (0, 1] on the horizon after a bad prediction.
      grow: factor of at least 1 on the horizon after a good one.
      rollback: whether the parameters return to the optimizer's result of before
        the jump if the mean of ``value`` is higher over the period after a jump than over
        the one before, or if the loss or a weight is not finite. Coordinates do not
        jump so far that they could not come back, and return before a step that would
        take them so far. Costs one more copy of the parameters and a pass over both at
        each step. The optimizer's state stays as it is; wrap an optimizer with a state
        in :func:`optax.apply_if_finite`.
      value_tolerance: by what part that mean may rise.

    Raises:
      ValueError: for an argument out of range.

    Examples:
      >>> import pdt_optax
      >>> scheduler = pdt_optax.Adaptive(rollback=True)
      >>> link = pdt_optax.pdt(100, pdt_optax.Extrapolate(scheduler=scheduler))
    """

    max_error: float = 10.0
    min_horizon: float = 1.0
    max_interval: int = 8
    shrink: float = 0.5
    grow: float = 1.25
    rollback: bool = False
    value_tolerance: float = 0.0

    def __post_init__(self):
        for name, valid, what in (
            ("max_error", is_number(self.max_error) and self.max_error > 0, "positive"),
            ("min_horizon", is_number(self.min_horizon) and self.min_horizon >= 1, "at least 1"),
            ("max_interval", is_int(self.max_interval, 0, MOST), "an int of at least 0"),
            ("shrink", is_number(self.shrink) and 0 < self.shrink <= 1, "in (0, 1]"),
            ("grow", is_number(self.grow) and self.grow >= 1, "at least 1"),
        ):
            if not valid:
                raise ValueError(f"`{name}` must be {what}, got {getattr(self, name)!r}.")
            python = int if name == "max_interval" else float
            object.__setattr__(self, name, python(getattr(self, name)))
        _checks.check_bool("rollback", self.rollback)
        _checks.check_not_negative("value_tolerance", self.value_tolerance)

    def next(self, schedule: "Schedule", bad: jax.Array, horizon: int, interval: int) -> "Schedule":
        """The schedule after a prediction, within `horizon` and `interval`."""
        factor = jnp.where(bad, self.shrink, self.grow).astype(jnp.float32)
        changed = jnp.where(bad, 2 * schedule.jump_interval + 1, schedule.jump_interval // 2)
        return schedule._replace(
            jump_horizon=jnp.clip(
                schedule.jump_horizon * factor, min(self.min_horizon, horizon), horizon
            ),
            jump_interval=jnp.clip(changed, interval, max(self.max_interval, interval)),
        )


class Schedule(NamedTuple):
    """How far and how often is predicted now, and the watch on the last jump.

    Attributes:
      jump_horizon: float32, snapshots ahead.
      jump_interval: int32, periods without a prediction between two.
      jump_watched: bool, whether the period after a jump is running.
      value_sum: float32, sum of ``value`` over the running period.
      value_before: float32, mean of ``value`` over the last period in which it was
        finite and not too high after a jump.
      has_value_before: bool, whether there was such a period.
      bad_jumps: int32, jumps after which ``value`` rose or was not finite.
      fallback: with `rollback` the optimizer's result of before the last jump, leaves that
        take part in a tree like the parameters; otherwise None.
    """

    jump_horizon: jax.Array
    jump_interval: jax.Array
    jump_watched: jax.Array
    value_sum: jax.Array
    value_before: jax.Array
    has_value_before: jax.Array
    bad_jumps: jax.Array
    fallback: Any

    @classmethod
    def initial(cls, horizon: int, interval: int, fallback: Any) -> "Schedule":
        """The greatest horizon and the least interval."""
        return cls(
            jump_horizon=jnp.full([], horizon, jnp.float32),
            jump_interval=jnp.full([], interval, jnp.int32),
            jump_watched=jnp.zeros([], bool),
            value_sum=jnp.zeros([], jnp.float32),
            value_before=jnp.zeros([], jnp.float32),
            has_value_before=jnp.zeros([], bool),
            bad_jumps=jnp.zeros([], jnp.int32),
            fallback=fallback,
        )

    def observe(
        self,
        value: jax.Array,
        is_safe: jax.Array,
        ends: jax.Array,
        period: int,
        tolerance: float,
    ) -> tuple["Schedule", jax.Array]:
        """Takes in the loss of one step.

        Args:
          value: float32, the loss.
          is_safe: whether the weights can still come back.
          ends: bool, whether the period ends with this step.
          period: steps in a period.
          tolerance: by what part the mean may exceed that of the period before.

        Returns:
          The schedule, and whether the last jump proves bad now: the mean over the
          period after it is higher, or the loss is not finite.
        """
        total = self.value_sum + value
        mean = total / period
        most = self.value_before + tolerance * jnp.abs(self.value_before)
        too_high = jnp.where(self.has_value_before, ~(mean <= most), jnp.isnan(mean))
        bad = self.jump_watched & ((ends & too_high) | ~jnp.isfinite(value) | ~is_safe)
        is_kept = ends & ~bad & jnp.isfinite(mean)
        return self._replace(
            jump_watched=self.jump_watched & ~ends & ~bad,
            value_sum=jnp.where(ends, 0, total),
            value_before=jnp.where(is_kept, mean, self.value_before),
            has_value_before=self.has_value_before | is_kept,
            bad_jumps=self.bad_jumps + bad.astype(jnp.int32),
        ), bad
