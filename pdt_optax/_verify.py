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
    r"""Scores several jumps and the optimizer's own result, and makes a jump that gains.

    A line search along the predicted path. The candidates are every predictor at
    every horizon, each under its own mask. Of those that keep at least `gain_share`
    of the best candidate's gain over the optimizer's own result the furthest is
    taken, of two as far the better one. A tie, a loss that is not finite or no gain
    means the optimizer's own result, so the loss that `value_fn` gives right after
    the event is never above it.

    Each predictor's horizons are tried from the nearest up to the first that gains
    nothing, or less than `gain_share` of the best gain so far. One event thus calls
    `value_fn` at most once for each candidate and once for the optimizer's result;
    one candidate is in memory at a time.

    The lowest loss now is not the best place to train on from: a short jump that
    averages noise away gains at once and leads nowhere (Wu et al., 2018). Hence the
    furthest of the good candidates, not the best.

    The path of a candidate is judged at five evenly spaced points.

    Attributes:
      horizons: numbers of snapshots to predict ahead; kept sorted.
      predictors: names of predictors, or functions; see :func:`pdt_optax.pdt`.
      criteria: the mask of all candidates; by default only the sign of the path.
      gain_share: in (0, 1]; 1 takes the candidate with the least loss.

    Raises:
      ValueError: for an argument out of range.

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
      >>> @jax.jit
      ... def step(params, state):
      ...   updates, state = tx.update(
      ...       jax.grad(loss)(params), state, params, value_fn=loss
      ...   )
      ...   return optax.apply_updates(params, updates), state
      >>> for _ in range(12):
      ...   params, state = step(params, state)
      >>> print(pdt_optax.metrics(state).value_calls)
      10

    References:
      Wu et al., `Understanding Short-Horizon Bias in Stochastic Meta-Optimization
      <https://arxiv.org/abs/1803.02021>`_, ICLR 2018
    """

    horizons: tuple[int, ...] = (2, 5, 20)
    predictors: tuple[str | _predictors.Predictor, ...] = ("dmd", "linear")
    criteria: str | _criteria.Criterion = _PATH_SIGN
    gain_share: float = 0.5

    def __post_init__(self):
        for name in ("horizons", "predictors"):
            if not isinstance(getattr(self, name), tuple | list):
                raise ValueError(f"`{name}` must be a tuple, got {getattr(self, name)!r}.")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.horizons or any(not is_int(horizon, 1) for horizon in self.horizons):
            raise ValueError(
                f"`horizons` must be one or more ints of at least 1, got {self.horizons!r}."
            )
        object.__setattr__(self, "horizons", tuple(sorted(self.horizons)))
        if not self.predictors:
            raise ValueError("`predictors` must be one or more predictors, got none.")
        if not isinstance(self.gain_share, numbers.Real) or not 0 < self.gain_share <= 1:
            raise ValueError(f"`gain_share` must be in (0, 1], got {self.gain_share!r}.")
        self.candidates()

    def candidates(self, resolve: _predictors.Resolve = _predictors.resolve) -> Candidates:
        """The candidates of an event; `resolve` finds a predictor from its name and a rank."""
        criterion, rank = _criteria.resolve(self.criteria)
        return Candidates(
            predictors=tuple(resolve(p, rank) for p in self.predictors),
            horizons=tuple(self.horizons),
            points=_PATH_POINTS,
            criterion=criterion,
            spectrum=resolve("dmd", rank),
        )
