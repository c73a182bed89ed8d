"""The published way of jumping: along the prediction, under a mask, blind."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from pdt_optax import _checks
from pdt_optax import criteria as _criteria
from pdt_optax import predictors as _predictors
from pdt_optax._adaptive import Adaptive
from pdt_optax._candidates import Candidates
from pdt_optax._event import Event
from pdt_optax._jump import Jump, check_passed
from pdt_optax._landing import Landing
from pdt_optax._streaming import Streaming


@dataclasses.dataclass(frozen=True)
class Extrapolate(Jump):
    r"""Jumps to the prediction wherever it agrees with the optimizer.

    Algorithm 1 of the paper. With :math:`w(t)` the snapshots, :math:`w_{opt}(t)` where the
    optimizer alone arrives from :math:`w(t-1)`, and :math:`d = w_{opt}(t) - w(t-1)`, a
    Dynamic Mode Decomposition of the last `history` snapshots is extrapolated `horizon`
    snapshots from :math:`w(t-1)` to :math:`p_\tau`, and

    .. math::
      w(t) = m \odot p_\tau + (1 - m) \odot w_{opt}(t),

    where the mask :math:`m` holds the coordinates whose prediction agrees with :math:`d` by
    the `criteria`. Times are in snapshot periods.

    Attributes:
      criteria: ``'paper'``: :math:`|D| \ge \tau |d|` for the displacement
        :math:`D = p_\tau - w(t-1)`, and every predicted step has the sign of
        :math:`d` (Eqs. 6 and 7); ``'bounded'``: :math:`|d| \le |D| \le \tau |d|`
        and the same signs (Eq. 8); ``'reference'``: :math:`|d| \le |D| \le
        (\tau + 1) |d|` and the sign of :math:`D` alone (the authors' code), with the DMD's
        rank by the Gavish-Donoho threshold; or a function from a
        :class:`pdt_optax.criteria.Proposal` to a boolean array.
      horizon: snapshots to predict ahead, ``tau >= 1``.
      history: snapshots kept and fitted, ``h >= 3``; or a
        :class:`pdt_optax.Streaming`: all snapshots are fitted, in a few directions.
      start: the first prediction may come at the end of this period, counted
        from 1, once `history` snapshots are held, or three seen.
      interval: least number of periods without a prediction between two.
      predictor: ``'dmd'``, ``'affine_dmd'``, ``'linear'``, ``'last_increment'``,
        ``'average'``, or a function ``(gram, horizon) -> coefficients``, such as
        :func:`pdt_optax.predictors.dmd` of another rank.
      scheduler: a :class:`pdt_optax.Adaptive`: shorter and rarer predictions after
        bad ones, and a way back.

    Raises:
      ValueError: for an argument out of range.

    Examples:
      >>> import pdt_optax
      >>> link = pdt_optax.pdt(100, pdt_optax.Extrapolate(criteria="bounded", horizon=10))

    References:
      Wang et al., `Predictive Differential Training Guided by Training Dynamics
      <https://openreview.net/forum?id=zSTgrLkpRi>`_, ICLR 2026
    """

    criteria: str | _criteria.Criterion = "paper"
    horizon: int = 5
    history: int | Streaming = 5
    start: int = 5
    interval: int = 1
    predictor: str | _predictors.Predictor = "dmd"
    scheduler: Adaptive | None = None

    def __post_init__(self):
        _checks.set_int(self, "horizon", 1)
        _checks.set_int(self, "start", 1)
        _checks.set_int(self, "interval", 0)
        _checks.check_optional("scheduler", self.scheduler, Adaptive)
        self._candidates()

    def check_passed(self, given: Mapping[str, Any]) -> None:
        """Raises ValueError where a way back needs the loss."""
        if self.scheduler and self.scheduler.rollback:
            check_passed("value", given, "loss")

    @property
    def has_dmd(self) -> bool:
        """Whether a predictor is one."""
        return self._candidates().has_dmd

    def _candidates(self) -> Candidates:
        criterion, rank = _criteria.resolve(self.criteria)
        return Candidates(
            predictors=(self.kind.resolve(self.predictor, rank),),
            horizons=(self.horizon,),
            points=self.horizon,
            criterion=criterion,
        )

    def land(self, event: Event, **functions: Any) -> Landing:
        """Where the accepted coordinates land."""
        del functions
        candidates, limits = self._candidates(), event.limits
        horizon = jnp.float32(self.horizon) if limits is None else limits.horizon
        paths, first, operators = candidates.fit(event.gram, None if limits is None else horizon)
        usable = event.finite & jnp.isfinite(paths).all(axis=(1, 2, 3))
        error = event.relative_error(first, usable)
        is_off = False
        if limits is not None:
            is_any = math.isinf(limits.max_error)
            is_off = jnp.isnan(error) if is_any else ~(error <= limits.max_error)
        usable &= ~jnp.asarray(is_off)
        updates, accepted = event.merge(paths[:, 0], usable, horizon, candidates.criterion)
        candidate = -jnp.asarray(is_off, jnp.int32)
        return Landing(updates, accepted, operators, error, candidate, calls=0)
