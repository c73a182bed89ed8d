"""When a snapshot is kept and when weights may jump: one step of Algorithm 1."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pdt_optax._core import Core
from pdt_optax._event import Limits
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
        predicts = (
            ends
            & (period >= max(jump.start, jump.kind.least_snapshots))
            & ((state.predictions == 0) | (period - state.last_prediction > interval))
        )

        def predict(carry):
            updates, report = carry
            event = core.fit(state.history, updates, report, state.predictions, limits)
            landing = jump.land(event, **extra)
            return landing.updates, report.after(event, landing)

        updates, report = run_if(predicts, predict, (updates, state.report))
        newest = core.arrive(updates)  # The parameters that `optax.apply_updates` will make.
        history = run_if(ends, lambda history: core.push(history, newest), state.history)
        count = optax.safe_increment(state.predictions)
        return updates, state._replace(
            pdt_count=jnp.where(ends | stays, 0, state.pdt_count + 1),
            predictions=jnp.where(predicts, count, state.predictions),
            last_prediction=jnp.where(predicts, period, state.last_prediction),
            history=history,
            report=report,
        )
