"""Verified horizons: a jump is made only if it lowers the loss."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pdt_optax import _checks
from pdt_optax import criteria as _criteria
from pdt_optax import predictors as _predictors
from pdt_optax._candidates import Candidates
from pdt_optax._core import Core
from pdt_optax._event import Event
from pdt_optax._jump import Jump, check_function, check_passed, with_extras
from pdt_optax._landing import NO_LOSS, Landing
from pdt_optax._run_if import run_if
from pdt_optax._search import Search
from pdt_optax._streaming import Streaming

_PATH_POINTS = 5
_FIRST_PERIOD, _FIRST_STEP = 5, 100
_PATH_SIGN = _criteria.path_sign()


@dataclasses.dataclass(frozen=True)
class Verify(Jump):
    r"""Scores several jumps and the optimizer's own result, and makes a jump that gains.

    A line search along the predicted path: by default the straight line through the oldest
    and the newest snapshot. The candidates are every predictor at every horizon, each under
    its own mask. Of those that keep at least `gain_share`
    of the best candidate's gain over the optimizer's own result the furthest is
    taken, of two as far the better one. A tie, a loss that is not finite or no gain
    means the optimizer's own result, so the loss that ``value_fn``, an extra argument
    of ``update``, gives right after the event is never above it.

    Each predictor's horizons are tried from the nearest up to the first that gains
    nothing, or less than `gain_share` of the best gain so far. One event thus calls
    ``value_fn`` at most once for each candidate and once for the optimizer's result;
    one candidate is in memory at a time.

    The lowest loss now is not the best place to train on from: a short jump that
    averages noise away gains at once and leads nowhere (Wu et al., 2018). Hence the
    furthest of the good candidates, not the best, and hence no DMD by default: near
    horizons of a DMD go back to the mean of the last snapshots.

    The path of a candidate is judged at five evenly spaced points. Times are in snapshot
    periods.

    Attributes:
      horizons: numbers of snapshots to predict ahead; kept sorted.
      predictors: names of predictors, or functions; see :class:`pdt_optax.Extrapolate`.
      criteria: the mask of all candidates; by default only the sign of the path.
      gain_share: in (0, 1]; 1 takes the candidate with the least loss.
      history: snapshots kept and fitted, or a :class:`pdt_optax.Streaming`.
      start: the first jump may come at the end of this period, counted from 1, once
        `history` snapshots are held, or three seen. None is the fifth period, but not before
        step 100: jumps in the first steps of a language model may end above the optimizer. A
        period of one step may be an epoch (:func:`pdt_optax.end_period`), and counts as one.
      interval: least number of periods without a prediction between two.

    Raises:
      ValueError: for an argument out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import pdt_optax
      >>> loss = lambda params: jnp.sum(jnp.array([1., 10.]) * params**2)
      >>> tx = optax.chain(optax.sgd(0.01), pdt_optax.pdt(20, pdt_optax.Verify()))
      >>> params = jnp.array([1., 1.])
      >>> state = tx.init(params)
      >>> @jax.jit
      ... def step(params, state):
      ...   updates, state = tx.update(
      ...       jax.grad(loss)(params), state, params, value_fn=loss
      ...   )
      ...   return optax.apply_updates(params, updates), state
      >>> for _ in range(120):
      ...   params, state = step(params, state)
      >>> print(pdt_optax.metrics(state).value_calls)
      4

    References:
      Wu et al., `Understanding Short-Horizon Bias in Stochastic Meta-Optimization
      <https://arxiv.org/abs/1803.02021>`_, ICLR 2018
    """

    horizons: Sequence[int] = (2, 5, 20)
    predictors: Sequence[str | _predictors.Predictor] = ("linear",)
    criteria: str | _criteria.Criterion = _PATH_SIGN
    gain_share: float = 0.5
    history: int | Streaming = 5
    start: int | None = None
    interval: int = 0

    def __post_init__(self):
        for name in ("horizons", "predictors"):
            if not isinstance(getattr(self, name), tuple | list):
                raise ValueError(f"`{name}` must be a tuple, got {getattr(self, name)!r}.")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.horizons or any(not _checks.is_int(h, 1, _checks.MOST) for h in self.horizons):
            raise ValueError(
                f"`horizons` must be one or more ints of at least 1, got {self.horizons!r}."
            )
        object.__setattr__(self, "horizons", tuple(sorted(set(self.horizons))))
        if not self.predictors:
            raise ValueError("`predictors` must be one or more predictors, got none.")
        share = self.gain_share
        if not _checks.is_number(share) or not 0 < share <= 1:
            raise ValueError(f"`gain_share` must be in (0, 1], got {share!r}.")
        if self.start is not None:
            _checks.set_int(self, "start", 1)
        _checks.set_int(self, "interval", 0)
        self._candidates()

    def first_period(self, snapshot_every: int) -> int:
        """The period at whose end the first jump may come, for so many steps in a period."""
        if self.start is not None:
            return self.start
        is_epoch = snapshot_every == 1
        return _FIRST_PERIOD if is_epoch else max(_FIRST_PERIOD, -(-_FIRST_STEP // snapshot_every))

    def check_passed(self, given: Mapping[str, Any]) -> None:
        """Raises ValueError without a loss, or if it is no function."""
        check_passed("value_fn", given, "lambda params: loss(params)")
        check_function("value_fn", given)

    def functions(self, core: Core, updates: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """The loss of updates."""
        return {"value_fn": core.value_fn(with_extras(given["value_fn"], given), updates)}

    @property
    def has_dmd(self) -> bool:
        """Whether a predictor is one."""
        return self._candidates().has_dmd

    def _candidates(self) -> Candidates:
        criterion, rank = _criteria.resolve(self.criteria)
        return Candidates(
            predictors=tuple(self.kind.resolve(p, rank) for p in self.predictors),
            horizons=tuple(self.horizons),
            points=_PATH_POINTS,
            criterion=criterion,
        )

    def land(self, event: Event, value_fn: Callable[[list[jax.Array]], jax.Array]) -> Landing:
        """The furthest of the candidates that gain on the optimizer's own result.

        Args:
          event: the event.
          value_fn: from updates of the leaves to a loss.
        """
        candidates = self._candidates()
        paths, first, operators = candidates.fit(event.gram)
        usable = event.finite[:, None] & jnp.isfinite(paths).all(axis=(2, 3))
        horizons = jnp.tile(jnp.asarray(self.horizons, jnp.float32), len(self.predictors))
        last = len(horizons) + 1

        def turn(number: jax.Array, search: Search) -> Search:
            """The optimizer's own result is scored first, then each candidate; one is made last."""
            taken = search.taken(horizons, self.gain_share)
            index = jnp.where(number == last, jnp.maximum(taken, 0), jnp.maximum(number - 1, 0))
            is_made = jnp.where(number == last, taken >= 0, number > 0)
            goes_on = search.goes_on | (index % len(self.horizons) == 0)

            def land(search: Search) -> Search:
                """One program for all turns: they differ in what is scored and made."""
                updates, accepted = event.merge(
                    paths[:, index],
                    usable[:, index] & is_made,
                    horizons[index],
                    candidates.criterion,
                )
                loss = jax.lax.cond(number < last, lambda: value_fn(updates), lambda: search.own)
                landed = search._replace(updates=updates, accepted=accepted, candidate=taken)
                return landed.scored(loss, number, self.gain_share)

            search = search._replace(goes_on=jnp.zeros_like(goes_on))
            return run_if(goes_on | (number == last), land, search)

        search = jax.lax.fori_loop(0, last + 1, turn, Search.start(event, len(horizons)))
        error = event.relative_error(first, usable[:, 0])
        candidate = jnp.where(~jnp.isfinite(search.own), NO_LOSS, search.candidate)
        landed = search.updates, search.accepted
        return Landing(*landed, operators, error, candidate, search.calls - 1)
