"""When a snapshot is kept and when weights may jump: one step of Algorithm 1."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pdt_optax._checks import MOST
from pdt_optax._core import Core
from pdt_optax._landing import Limits
from pdt_optax._run_if import run_if
from pdt_optax._state import PDTState


@dataclasses.dataclass(frozen=True)
class Clock:
    """Periods of `snapshot_every` steps, at the end of which `jump` may act."""

    snapshot_every: int
    jump: Any

    def ends(self, state: PDTState) -> jax.Array:
        """Whether the period ends with this step, also where it was longer before."""
        return state.pdt_count >= self.snapshot_every - 1

    @property
    def _first(self) -> int:
        """The first period at whose end a jump may come."""
        first = self.jump.first_period(self.snapshot_every)
        return max(first, self.jump.kind.least_snapshots)

    @property
    def steps_until_first(self) -> int:
        """Update calls up to the first that may jump."""
        return min(self._first * self.snapshot_every, MOST)

    def _periods_left(self, state: PDTState, interval: Any) -> jax.Array:
        """How many periods end before the one at whose end the next jump may come."""
        period, first = state.history.snapshots_taken, self._first
        since_last = period - state.last_prediction
        pause = jnp.where(state.predictions == 0, 0, interval - since_last + 1)
        return jnp.maximum(jnp.maximum(first - period, pause), 0)

    def steps_until_jump(self, state: PDTState, interval: Any) -> jax.Array:
        """Update calls up to the next that may jump; what int32 cannot hold is its greatest."""
        periods, every = self._periods_left(state, interval), self.snapshot_every
        in_reach = periods <= (MOST - every) // every
        steps = jnp.where(in_reach, periods, 0) * every
        return jnp.where(in_reach, steps + jnp.maximum(every - state.pdt_count, 1), MOST)

    def tick(
        self,
        core: Core,
        state: PDTState,
        updates: list[jax.Array],
        extra: dict[str, Any],
        limits: Limits | None = None,
        stays: jax.Array | bool = False,
    ) -> tuple[list[jax.Array], PDTState]:
        """One step.

        Args:
          core: of the parameters.
          state: of the transformation.
          updates: the optimizer's, of the leaves that take part.
          extra: what the way of jumping takes.
          limits: of a scheduler.
          stays: whether the period begins anew instead.

        Returns:
          The updates, those of the optimizer where nothing jumps, and the state.
        """
        jump, period = self.jump, state.history.snapshots_taken
        ends = self.ends(state) & ~jnp.asarray(stays)
        interval = jump.interval if limits is None else limits.interval
        predicts = ends & (self._periods_left(state, interval) == 0)

        def predict(carry):
            updates, report = carry
            event = core.fit(state.history, updates, report, state.predictions, limits)
            landing = jump.land(event, **extra)
            return landing.updates, report.after(event, landing)

        updates, report = run_if(predicts, predict, (updates, state.report))
        newest = core.arrive(updates)  # The parameters that `optax.apply_updates` will make.
        history = run_if(ends, lambda history: core.push(history, newest), state.history)
        jumps = predicts & (report.mask_ratio > 0)
        return updates, state._replace(
            pdt_count=jnp.where(ends | stays, 0, state.pdt_count + 1),
            predictions=_counted(state.predictions, predicts),
            last_prediction=jnp.where(predicts, period, state.last_prediction),
            jumps=_counted(state.jumps, jumps),
            history=history,
            report=report,
        )


def _counted(count: jax.Array, happened: jax.Array) -> jax.Array:
    return jnp.where(happened, optax.safe_increment(count), count)
