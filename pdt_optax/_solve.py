"""Solved jumps: to the least loss in the span of the last increments."""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from pdt_optax import _checks, _quadratic, _sums
from pdt_optax._core import Core
from pdt_optax._event import Event
from pdt_optax._jump import WRAPPERS, Jump, check_function, with_extras
from pdt_optax._landing import NO_LOSS, Landing, Trust
from pdt_optax._leaves import compute_dtype
from pdt_optax._ring import Ring
from pdt_optax._span import Span

_MOST_DAMPING = 1e6
_MOST_RADIUS = 1024.0


@dataclasses.dataclass(frozen=True)
class Solve(Jump):
    r"""Jumps to the least loss in the span of the last increments, as a quadratic model has it.

    For a train loss that is the objective and nearly free of noise: physics-informed networks,
    neural fields, surrogates, neural ODEs, variational circuits. With :math:`B` the last
    increments of the weights and the optimizer's own move, and residuals :math:`r` whose sum of
    squares is the loss, it linearises :math:`r(w_{opt} + B a)` at :math:`a = 0` and takes the
    Levenberg-Marquardt step

    .. math::
      a = -(J^\top J + \lambda \operatorname{diag}(J^\top J))^{-1} J^\top r,
      \qquad J = \partial r / \partial a,

    which is made only if the loss there is finite and lower than where the optimizer arrives.
    :math:`\lambda` falls to a third where the loss fell by more than three quarters of what
    the model said, or where that was too little to be seen, and rises four times where it fell
    by less than a quarter. A jump that is too long is shortened to the radius of a trust region.
    That doubles where a shortened jump was as good, and falls to a quarter where :math:`\lambda`
    rises.

    The extra argument ``residual_fn`` of ``update`` is a function from parameters to a pytree of
    residuals. A factor of the loss changes nothing, so their mean square is as good; a sum of
    means is not: divide the residuals of each term by the square root of their number. With
    ``value_fn``, from parameters to a scalar, beside it, the jump must lower that too. If only
    ``value_fn`` is given, the model is that of the gradient and the Hessian in the span, with
    the absolute values of its eigenvalues (saddle-free Newton): an event then costs three to five
    times as much. New collocation points, or another
    mini-batch, at each event are fine: what is compared is the loss of one function.

    An event linearises the residuals once and pushes each of the ``history`` directions forward,
    which costs a bit more than two evaluations for each. One row of :math:`J` a direction is
    held, ``history`` times as many numbers as there are residuals; with ``scope='leaf'``
    there are ``history`` directions for each leaf.

    Attributes:
      history: the span: ``history - 1`` increments between snapshots, and the optimizer's move.
      damping: the first :math:`\lambda`.
      radius: of the trust region at first, in units of the root mean square of the lengths of
        the directions; it grows to at most 1,024 times that. A jump is never longer than 64 of
        the optimizer's own moves over a period. ``math.inf`` is no limit of either kind.
      chunk: directions that are pushed forward at a time. Each takes the memory of an
        evaluation's activations and of the parameters.
      start: the first jump may come at the end of this period, counted from 1.
      interval: least number of periods without a prediction between two.

    Raises:
      ValueError: for an argument out of range.

    Examples:
      >>> import functools, jax, jax.numpy as jnp, optax
      >>> import pdt_optax
      >>> def residuals(params):
      ...   return jnp.array([1., 10.]) * params - 1, params[0] * params[1]
      >>> def loss(params):
      ...   return sum(jnp.sum(r**2) for r in residuals(params))
      >>> jump = pdt_optax.Solve(history=4, radius=float('inf'))
      >>> tx = optax.chain(optax.adam(0.01), pdt_optax.pdt(5, jump))
      >>> params = jnp.array([2., 2.])
      >>> state = tx.init(params)
      >>> @functools.partial(jax.jit, donate_argnums=(0, 1))
      ... def step(params, state):
      ...   updates, state = tx.update(
      ...       jax.grad(loss)(params), state, params, residual_fn=residuals
      ...   )
      ...   return optax.apply_updates(params, updates), state
      >>> for _ in range(40):
      ...   params, state = step(params, state)
      >>> print(f"{loss(params):.4f}")
      0.0098

    References:
      Conn, Gould and Toint, `Trust Region Methods
      <https://doi.org/10.1137/1.9780898719857>`_, 2000

      Marquardt, `An algorithm for least-squares estimation of nonlinear parameters
      <https://doi.org/10.1137/0111030>`_, 1963

      Dauphin et al., `Identifying and attacking the saddle point problem in high-dimensional
      non-convex optimization <https://arxiv.org/abs/1406.2572>`_, NeurIPS 2014
    """

    history: int = 8
    damping: float = 1e-3
    radius: float = 1.0
    chunk: int = 16
    start: int = 1
    interval: int = 0
    takes_residuals = True

    def __post_init__(self):
        _checks.set_int(self, "history", 2)
        _checks.set_int(self, "chunk", 1)
        _checks.set_int(self, "start", 1)
        _checks.set_int(self, "interval", 0)
        if not _checks.is_number(self.damping) or not 0 < self.damping <= _MOST_DAMPING:
            raise ValueError(f"`damping` must be in (0, {_MOST_DAMPING:g}], got {self.damping!r}.")
        if not _checks.is_number(self.radius) or not self.radius > 0:
            raise ValueError(f"`radius` must be a number above 0, got {self.radius!r}.")

    @property
    def kind(self) -> Ring:
        """The history; places of increments that are not yet there hold zeros."""
        return Ring(self.history, least_snapshots=1)

    def check_passed(self, given: Mapping[str, Any]) -> None:
        """Raises ValueError without residuals and without a loss, or if one is no function."""
        if given.get("residual_fn") is None and given.get("value_fn") is None:
            raise ValueError(
                "`residual_fn` or `value_fn` must be passed to `update`: tx.update(grads, state, "
                f"params, residual_fn=lambda params: residuals(params)); got neither. {WRAPPERS}"
            )
        for name in ("residual_fn", "value_fn"):
            check_function(name, given)

    def functions(self, core: Core, updates: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """The residuals and the loss of updates, whatever is given."""
        residual_fn = given.get("residual_fn")
        known = set(_sums.axis_names(core.axis_name)) if residual_fn is not None else set()
        if unrecorded := [axis for axis in _sums.unrecorded_axes() if axis not in known]:
            raise ValueError(
                "`Solve` must know what differs between devices, got no record of it along "
                f"{unrecorded}: use jax.shard_map with check_vma=True, its default, and not pmap."
            )
        found: dict[str, Any] = {}
        if given.get("value_fn") is not None:
            found["value_fn"] = core.value_fn(with_extras(given["value_fn"], given), updates)
        if residual_fn is not None:
            residual_fn = with_extras(residual_fn, given)
            found["residual_fn"] = lambda leaves: residual_fn(core.params_after(leaves, updates))
        return found

    def land(
        self,
        event: Event,
        residual_fn: Callable[[list[jax.Array]], Any] | None = None,
        value_fn: Callable[[list[jax.Array]], jax.Array] | None = None,
    ) -> Landing:
        """The step of the quadratic model, if it lowers the loss.

        Args:
          event: the event.
          residual_fn: from updates of the leaves to residuals.
          value_fn: from updates of the leaves to a loss: that of the model, or beside residuals
            one that must become lower too.
        """
        dtype, shape = compute_dtype(*event.moves), (event.num_groups, self.history)
        span = Span(event)

        def moved(amplitudes: jax.Array) -> list[jax.Array]:
            return span.updates(amplitudes.reshape(shape))

        start, judge = jnp.zeros(shape[0] * shape[1], dtype), None
        if residual_fn is not None:

            def residuals(leaves: list[jax.Array]) -> list[jax.Array]:
                return _quadratic.real(residual_fn(leaves), dtype)

            def squares(leaves: list[jax.Array]) -> jax.Array:
                return _quadratic.sum_of_squares(residuals(leaves), event)

            loss_fn, judge = squares, value_fn
            model = _quadratic.gauss_newton(lambda a: residuals(moved(a)), start, self.chunk, event)
        elif value_fn is not None:
            loss_fn = value_fn
            model = _quadratic.newton(lambda a: value_fn(moved(a)), start, self.chunk)
        else:
            raise ValueError("`land` takes `residual_fn` or `value_fn`; got neither.")
        # The state of another way of jumping has none.
        trust = Trust(*(number.astype(dtype) for number in event.trust))
        trust = trust._replace(damping=jnp.where(trust.damping > 0, trust.damping, self.damping))
        step, share = model.step(trust.damping), jnp.ones([], dtype)
        if self.radius < math.inf:
            share = span.share(step.reshape(shape), self.radius * trust.radius)
        step *= share
        landing = moved(step)
        found = loss_fn(landing)
        is_lower = jnp.isfinite(found) & (found < model.loss)
        if judge is not None:
            is_lower &= judge(landing) < judge(event.proposed)
        updates = [
            jnp.where(is_lower, new, own) for new, own in zip(landing, event.proposed, strict=True)
        ]
        eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in event.params)
        gain, rounding = model.gain(step), 10 * eps * jnp.abs(model.loss)
        ratio = jnp.where(gain > 0, (model.loss - found) / jnp.where(gain > 0, gain, 1), 0)
        return Landing(
            updates=updates,
            accepted=event.jumped(updates),
            operators=None,
            error=jnp.abs(1 - ratio).astype(jnp.float32),
            candidate=jnp.where(is_lower, 0, jnp.where(jnp.isfinite(model.loss), -1, NO_LOSS)),
            calls=2 if judge is None else 4,
            trust=_next(trust, jnp.where(is_lower, ratio, 0), gain <= rounding, share < 1),
        )


def _next(trust: Trust, ratio: jax.Array, is_tiny: jax.Array, is_short: jax.Array) -> Trust:
    """More of the model after a good step, less after one that was too long.

    Args:
      trust: of this event, in its precision.
      ratio: share of the model's gain that was real; zero of a step that was not made.
      is_tiny: whether that gain was too little to be seen: the damping was too strong.
      is_short: whether the step was shortened to the radius.
    """
    is_good, is_poor = (ratio > 0.75) & ~is_tiny, (ratio < 0.25) & ~is_tiny
    damping = jnp.where(is_good | is_tiny, 1 / 3, jnp.where(is_poor, 4.0, 1.0))
    radius = jnp.where(is_good & is_short, 2.0, jnp.where(is_poor, 1 / 4, 1.0))
    dtype = trust.damping.dtype
    return Trust(
        jnp.clip(trust.damping * damping.astype(dtype), 10 * jnp.finfo(dtype).eps, _MOST_DAMPING),
        jnp.clip(trust.radius * radius.astype(dtype), 1, _MOST_RADIUS),
    )
