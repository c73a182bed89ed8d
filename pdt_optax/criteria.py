"""Criteria: which coordinates may follow their prediction.

A criterion is an element-wise function from a :class:`Proposal` to a boolean
array. Whatever it says, :func:`pdt_optax.pdt` rejects a coordinate which the
optimizer did not move or whose predicted value is not finite.
"""

from collections.abc import Callable
import functools
import math
import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax._checks import check_is_called

__all__ = [
    "Criterion",
    "Proposal",
    "accept_all",
    "all_of",
    "final_sign",
    "magnitude_bounds",
    "path_sign",
    "random_mask",
]


class Proposal(NamedTuple):
    """What is proposed for one leaf of the parameters at a prediction.

    Attributes:
      move: the optimizer's own move ``d = w_opt(t) - w(t-1)``, an array of the
        leaf's shape, float32 or float64; small leaves are laid end to end.
      path: the predicted displacements from ``w(t-1)``, arrays like `move`:
        ``(D_1, .., D_tau)``, one for each snapshot; of a verified candidate, and
        of an adaptive horizon, at evenly spaced points up to ``D_tau``.
      horizon: float32 scalar, ``tau``.
      event: int32 scalar, the number of predictions made before this one.
      leaf: position of the array: one of small leaves, then the large ones.
    """

    move: jax.Array
    path: tuple[jax.Array, ...]
    horizon: jax.Array
    event: jax.Array
    leaf: int


Criterion = Callable[[Proposal], jax.Array]
"""From a proposal to a boolean array of the leaf's shape: the coordinates that jump."""

Bound = float | Callable[[jax.Array], jax.Array]


def magnitude_bounds(lower: Bound = 0.0, upper: Bound = math.inf) -> Criterion:
    r"""Accepts where :math:`a |d| \le |D_\tau| \le b |d|`.

    Args:
      lower: the factor :math:`a`, or a function of the horizon that gives it.
      upper: the factor :math:`b`, or a function of the horizon that gives it.

    Returns:
      A criterion.

    Raises:
      ValueError: if a factor is negative or nan, or ``lower > upper``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import pdt_optax
      >>> proposal = pdt_optax.criteria.Proposal(
      ...     move=jnp.array([1.0, 1.0, -1.0]),
      ...     path=(jnp.array([0.1, 2.0, -9.0]),),
      ...     horizon=jnp.array(1.0), event=jnp.array(0), leaf=0,
      ... )
      >>> pdt_optax.criteria.magnitude_bounds(1.0, 5.0)(proposal)
      Array([False,  True, False], dtype=bool)
    """
    for name, bound in (("lower", lower), ("upper", upper)):
        if not callable(bound) and not (isinstance(bound, numbers.Real) and bound >= 0):
            raise ValueError(
                f"`{name}` must be a factor >= 0 or a function of the horizon, got {bound!r}."
            )
    if not callable(lower) and not callable(upper) and lower > upper:
        raise ValueError(f"`lower` must be at most `upper`, got {lower!r} > {upper!r}.")

    def criterion(proposal: Proposal) -> jax.Array:
        horizon = proposal.horizon.astype(proposal.move.dtype)
        least = lower(horizon) if callable(lower) else lower
        most = upper(horizon) if callable(upper) else upper
        distance, unit = jnp.abs(proposal.path[-1]), jnp.abs(proposal.move)
        accepted = distance >= least * unit
        return accepted if upper == math.inf else accepted & (distance <= most * unit)

    return criterion


def path_sign() -> Criterion:
    r"""Accepts where every predicted step goes the optimizer's way.

    :math:`\mathrm{sign}(p_k - p_{k-1}) = \mathrm{sign}(d)` for
    :math:`k = 1, \dots, \tau`.

    Returns:
      A criterion.
    """

    def criterion(proposal: Proposal) -> jax.Array:
        sign = jnp.sign(proposal.move)
        starts = (jnp.zeros_like(proposal.move), *proposal.path[:-1])
        steps = [end - start for start, end in zip(starts, proposal.path, strict=True)]
        return functools.reduce(jnp.logical_and, [jnp.sign(step) == sign for step in steps])

    return criterion


def final_sign() -> Criterion:
    r"""Accepts where the whole displacement goes the optimizer's way.

    :math:`\mathrm{sign}(D_\tau) = \mathrm{sign}(d)`.

    Returns:
      A criterion.
    """
    return lambda proposal: jnp.sign(proposal.path[-1]) == jnp.sign(proposal.move)


def random_mask(ratio: float, key: jax.Array) -> Criterion:
    """Accepts each coordinate with a fixed probability. A control.

    Args:
      ratio: probability of acceptance, in [0, 1].
      key: random key; folded with the event and the leaf. Inside :func:`jax.shard_map` all
        devices draw the same.

    Returns:
      A criterion.

    Raises:
      ValueError: if `ratio` is outside [0, 1].
    """
    if not isinstance(ratio, numbers.Real) or not 0 <= ratio <= 1:
        raise ValueError(f"`ratio` must be in [0, 1], got {ratio!r}.")

    def criterion(proposal: Proposal) -> jax.Array:
        leaf_key = jax.random.fold_in(jax.random.fold_in(key, proposal.event), proposal.leaf)
        return jax.random.bernoulli(leaf_key, ratio, proposal.move.shape)

    return criterion


def accept_all() -> Criterion:
    """Accepts every coordinate: non-selective prediction. A control.

    Returns:
      A criterion.

    References:
      Tano et al., `Accelerating training in artificial neural networks with
      dynamic mode decomposition <https://arxiv.org/abs/2006.14371>`_, 2020
    """
    return lambda proposal: jnp.ones(proposal.move.shape, bool)


def resolve(criteria: str | Criterion) -> tuple[Criterion, int]:
    """The criterion of that name with its `svd_rank`, or the function, checked, with -1."""
    if isinstance(criteria, str) and criteria in PRESETS:
        return PRESETS[criteria]
    factories = (accept_all, all_of, final_sign, magnitude_bounds, path_sign, random_mask)
    check_is_called("criteria", criteria, factories)
    if not callable(criteria):
        raise ValueError(
            "`criteria` must be 'paper', 'bounded', 'reference', or a function of a Proposal; "
            f"got {criteria!r}."
        )
    return _checked(criteria), -1


def _checked(criterion: Criterion) -> Criterion:
    def checked(proposal: Proposal) -> jax.Array:
        mask, shape = criterion(proposal), proposal.move.shape
        dtype = mask.dtype if hasattr(mask, "dtype") else np.dtype(type(mask))
        if dtype != np.bool_ or np.shape(mask) not in ((), shape):
            raise ValueError(
                f"`criteria` must return a boolean array of the leaf's shape {shape}, got {mask!r}."
            )
        return jnp.asarray(mask)

    return checked


def all_of(*criteria: str | Criterion) -> Criterion:
    """Accepts where every one of `criteria` does.

    Args:
      *criteria: criteria, or names of presets. Of a preset the mask alone is taken, not its
        `svd_rank`.

    Returns:
      A criterion.

    Raises:
      ValueError: if there are none, or one is neither a preset nor a function.
    """
    if not criteria:
        raise ValueError("`all_of` needs at least one criterion, got none.")
    parts = [resolve(criterion)[0] for criterion in criteria]
    return lambda proposal: functools.reduce(jnp.logical_and, [part(proposal) for part in parts])


PRESETS: dict[str, tuple[Criterion, int]] = {
    "paper": (all_of(magnitude_bounds(lower=lambda tau: tau), path_sign()), -1),
    "bounded": (all_of(magnitude_bounds(1.0, upper=lambda tau: tau), path_sign()), -1),
    "reference": (all_of(magnitude_bounds(1.0, upper=lambda tau: tau + 1.0), final_sign()), 0),
}
