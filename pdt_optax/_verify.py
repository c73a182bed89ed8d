"""Verified horizons: a jump is made only if it lowers the loss."""

import dataclasses
import numbers

from pdt_optax import _criteria, _predictors
from pdt_optax._candidates import Candidates
from pdt_optax._checks import is_int

_PATH_POINTS = 5
_PATH_SIGN = _criteria.path_sign()


@dataclasses.dataclass(frozen=True)
class Verify:
    r"""Scores several jumps and the optimizer's own result, and takes the best.

    A line search along the predicted path. The candidates are every predictor at
    every horizon, each under its own mask. A tie, a loss that is not finite or no
    gain means the optimizer's own result, so the loss that `value_fn` gives right after the
    event is never above it. One event calls `value_fn` once for each candidate and once for
    the optimizer's result; one candidate is in memory at a time.

    The path of a candidate is judged at five evenly spaced points.

    Attributes:
      horizons: numbers of snapshots to predict ahead.
      predictors: names of predictors, or functions; see :func:`pdt_optax.pdt`.
      criteria: the mask of all candidates; by default only the sign of the path.
      margin: least relative gain, ``loss < (1 - margin) * own loss``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import pdt_optax
      >>> loss = lambda params: jnp.sum(jnp.array([1., 10.]) * params**2)
      >>> tx = optax.chain(
      ...     optax.sgd(0.01),
      ...     pdt_optax.pdt(snapshot_every=2, interval=0, verify=pdt_optax.Verify()),
      ... )
      >>> params = jnp.array([1., 1.])
      >>> state = tx.init(params)
      >>> for _ in range(12):
      ...   updates, state = tx.update(
      ...       jax.grad(loss)(params), state, params, value_fn=loss
      ...   )
      ...   params = optax.apply_updates(params, updates)
      >>> print(pdt_optax.metrics(state).value_calls)
      14
    """

    horizons: tuple[int, ...] = (2, 5, 20)
    predictors: tuple[str | _predictors.Predictor, ...] = ("dmd", "linear")
    criteria: str | _criteria.Criterion = _PATH_SIGN
    margin: float = 0.0

    def __post_init__(self):
        for name in ("horizons", "predictors"):
            if not isinstance(getattr(self, name), tuple | list):
                raise ValueError(f"`{name}` must be a tuple, got {getattr(self, name)!r}.")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.horizons or any(not is_int(horizon, 1) for horizon in self.horizons):
            raise ValueError(
                f"`horizons` must be one or more ints of at least 1, got {self.horizons!r}."
            )
        if not self.predictors:
            raise ValueError("`predictors` must be one or more predictors, got none.")
        if not isinstance(self.margin, numbers.Real) or not 0 <= self.margin < 1:
            raise ValueError(f"`margin` must be in [0, 1), got {self.margin!r}.")
        self.candidates()

    def candidates(self) -> Candidates:
        """The candidates of an event."""
        criterion, rank = _criteria.resolve(self.criteria)
        return Candidates(
            predictors=tuple(_predictors.resolve(p, rank) for p in self.predictors),
            horizons=tuple(self.horizons),
            points=_PATH_POINTS,
            criterion=criterion,
            spectrum=_predictors.dmd(rank),
        )
