"""How far to predict and how often, by how the last predictions turned out."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pdt_optax._checks import is_int, is_number


@dataclasses.dataclass(frozen=True)
class Adaptive:
    r"""Shorter and rarer predictions after bad ones, longer and more frequent after good ones.

    A prediction is bad if its error one snapshot ahead, :math:`\|p_1 - w_{opt}\| /
    \|d\|`, exceeds `max_error` (it is then not made, unless
    :class:`pdt_optax.Verify` is to judge it), if ``value`` is passed to
    ``update`` and rises over the period after the jump, or, with
    :class:`pdt_optax.Verify`, if no candidate gained. A bad prediction scales the
    horizon by `shrink` and doubles the interval (plus one); a good one scales the
    horizon by `grow` and halves the interval. `horizon` and `interval` of
    :func:`pdt_optax.pdt` are the greatest horizon and the least interval.

    Attributes:
      max_error: greatest error one snapshot ahead, in units of the optimizer's move.
      min_horizon: least horizon, at least 1.
      max_interval: greatest interval.
      shrink: factor in (0, 1] on the horizon after a bad prediction.
      grow: factor of at least 1 on the horizon after a good one.

    Raises:
      ValueError: for an argument out of range.
    """

    max_error: float = 10.0
    min_horizon: float = 1.0
    max_interval: int = 8
    shrink: float = 0.5
    grow: float = 1.25

    def __post_init__(self):
        for name, valid, what in (
            ("max_error", is_number(self.max_error) and self.max_error > 0, "positive"),
            ("min_horizon", is_number(self.min_horizon) and self.min_horizon >= 1, "at least 1"),
            ("max_interval", is_int(self.max_interval, 0), "an int of at least 0"),
            ("shrink", is_number(self.shrink) and 0 < self.shrink <= 1, "in (0, 1]"),
            ("grow", is_number(self.grow) and self.grow >= 1, "at least 1"),
        ):
            if not valid:
                raise ValueError(f"`{name}` must be {what}, got {getattr(self, name)!r}.")
            python = int if name == "max_interval" else float
            object.__setattr__(self, name, python(getattr(self, name)))

    def is_off(self, error: jax.Array) -> jax.Array:
        """Whether a prediction with that error one snapshot ahead is not to be made."""
        return ~(error <= self.max_error)

    def next(self, pace: "Pace", bad: jax.Array, horizon: int, interval: int) -> "Pace":
        """The pace after a prediction, within `horizon` and `interval` of the transform."""
        factor = jnp.where(bad, self.shrink, self.grow).astype(jnp.float32)
        changed = jnp.where(bad, 2 * pace.jump_interval + 1, pace.jump_interval // 2)
        return pace._replace(
            jump_horizon=jnp.clip(
                pace.jump_horizon * factor, min(self.min_horizon, horizon), horizon
            ),
            jump_interval=jnp.clip(changed, interval, max(self.max_interval, interval)),
        )


class Pace(NamedTuple):
    """How far and how often is predicted now, and the watch on the last jump.

    Attributes:
      jump_horizon: float32, snapshots ahead.
      jump_interval: int32, periods without a prediction between two.
      jump_watched: bool, whether the period after a jump is running.
      value_sum: float32, sum of ``value`` over the running period.
      value_before: float32, mean of ``value`` over the last period in which it was
        finite and not too high after a jump; inf before the first.
      bad_jumps: int32, jumps after which ``value`` rose or was not finite.
    """

    jump_horizon: jax.Array
    jump_interval: jax.Array
    jump_watched: jax.Array
    value_sum: jax.Array
    value_before: jax.Array
    bad_jumps: jax.Array

    @classmethod
    def initial(cls, horizon: int, interval: int) -> "Pace":
        """The greatest horizon and the least interval."""
        return cls(
            jump_horizon=jnp.full([], horizon, jnp.float32),
            jump_interval=jnp.full([], interval, jnp.int32),
            jump_watched=jnp.zeros([], bool),
            value_sum=jnp.zeros([], jnp.float32),
            value_before=jnp.full([], jnp.inf, jnp.float32),
            bad_jumps=jnp.zeros([], jnp.int32),
        )

    def observe(
        self, value: jax.Array, ends: jax.Array, period: int, tolerance: float
    ) -> tuple["Pace", jax.Array]:
        """Takes in the loss of one step.

        Args:
          value: float32, the loss.
          ends: bool, whether the period ends with this step.
          period: steps in a period.
          tolerance: by what part the mean may exceed that of the period before.

        Returns:
          The pace, and whether the last jump proves bad now: the mean over the
          period after it is higher, or the loss is not finite.
        """
        total = self.value_sum + value
        mean = total / period
        allowed = jnp.where(jnp.isinf(self.value_before), 0, tolerance * jnp.abs(self.value_before))
        too_high = ends & ~(mean <= self.value_before + allowed)
        bad = self.jump_watched & (too_high | ~jnp.isfinite(value))
        return self._replace(
            jump_watched=self.jump_watched & ~ends & ~bad,
            value_sum=jnp.where(ends, 0, total),
            value_before=jnp.where(ends & ~bad & jnp.isfinite(mean), mean, self.value_before),
            bad_jumps=self.bad_jumps + bad,
        ), bad
