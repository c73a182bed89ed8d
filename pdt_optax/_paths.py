"""Predicted paths of the weights, and their errors, from the snapshots of a run."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax import _basis, _checks, _leaves
from pdt_optax import predictors as _predictors
from pdt_optax._snapshots import check_snapshots, columns_of, displacement, gram
from pdt_optax.predictors import Predictor


def predicted_path(
    snapshots: Sequence[Any],
    horizon: int,
    observable: Callable[[Any], Any] = lambda params: params,
    *,
    predictor: str | Predictor = "dmd",
    scope: Any = "global",
) -> Any:
    """What a predictor expects of the weights, or of anything that depends on them.

    Args:
      snapshots: as in :func:`pdt_optax.dynamics.spectrum`; all of them are fitted.
      horizon: snapshots to predict ahead.
      observable: a traceable function of parameters: some of the weights, or a loss. By
        default the parameters themselves, `horizon` copies of them.
      predictor: as in :class:`pdt_optax.Extrapolate`.
      scope: leaves that share one fit, as in :func:`pdt_optax.pdt`.

    Returns:
      What `observable` returns, each array with a leading axis of size `horizon`. The
      predicted weights are in float32 or float64.

    Raises:
      ValueError: if there are fewer than three snapshots, they differ in structure or
        shape, the labels do not fit, `horizon` is no positive int, or a `predictor`
        returns coefficients of another shape than it must.

    Examples:
      >>> import jax.numpy as jnp, pdt_optax
      >>> path = [{"w": 0.5**t * jnp.array([16., 3.])} for t in range(3)]
      >>> first = lambda params: params["w"][0]
      >>> pdt_optax.dynamics.predicted_path(path, 3, first).round(3)
      Array([2. , 1. , 0.5], dtype=float32)
    """
    horizon = _checks.as_int("horizon", horizon, 1)
    check_snapshots(snapshots, 3)
    columns, floats = columns_of(snapshots), _leaves.FloatLeaves(snapshots[-1])
    groups, num_groups = _leaves.groups(scope, snapshots[-1])
    predictor = _predictors.resolve(predictor, -1)
    coefficients = _coefficients(columns, tuple(groups), num_groups, predictor, horizon)

    def at(row):
        pairs = zip(columns, groups, strict=True)
        leaves = [column[-1] + _basis.combine(row[g], column) for column, g in pairs]
        return observable(floats.replace(snapshots[-1], leaves))

    return jax.lax.map(at, jnp.swapaxes(coefficients, 0, 1))


def prediction_errors(
    snapshots: Sequence[Any],
    *,
    history: int = 5,
    horizon: int = 20,
    predictor: str | Predictor = "dmd",
    scope: Any = "global",
) -> Any:
    r"""How far a trajectory can be predicted, from when, and in which leaf.

    Every `history` successive snapshots predict those that follow. With the prediction
    :math:`p_k` of :math:`s_{t+k}` from the snapshots up to :math:`s_t` the error is
    :math:`\|p_k - s_{t+k}\| / \|s_{t+k} - s_t\|`: 0 is perfect, and 1 is what the guess
    that the weights stay where they are gets.

    Args:
      snapshots: as in :func:`pdt_optax.dynamics.spectrum`, more than `history`.
      history: snapshots fitted, at least 3.
      horizon: snapshots to predict ahead.
      predictor: as in :class:`pdt_optax.Extrapolate`.
      scope: leaves that share one fit, as in :func:`pdt_optax.pdt`.

    Returns:
      A tree like the parameters, each leaf of shape ``(len(snapshots) - history, horizon)``,
      float64: row ``i`` starts from ``snapshots[history - 1 + i]``, column ``k - 1`` is ``k``
      snapshots ahead; nan beyond the last snapshot. Inf where only the prediction moves.
      Leaves that are not floating-point are :class:`optax.MaskedNode`.

    Raises:
      ValueError: as :func:`pdt_optax.dynamics.predicted_path`, or if there are too few snapshots.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, pdt_optax
      >>> path = [jnp.array([0.5**t, 0.9**t]) for t in range(6)]
      >>> errors = pdt_optax.dynamics.prediction_errors(path, history=3, horizon=2)
      >>> bool((errors[:2] < 1e-3).all())
      True
      >>> print(np.isnan(errors[2]))  # One snapshot follows, not two.
      [False  True]
    """
    history = _checks.as_int("history", history, 3)
    horizon = _checks.as_int("horizon", horizon, 1)
    check_snapshots(snapshots, history + 1)
    groups, num_groups = _leaves.groups(scope, snapshots[-1])
    predictor = _predictors.resolve(predictor, -1)
    starts = len(snapshots) - history
    errors: dict[tuple[int, int], jax.Array] = {}
    for start in range(starts):
        *fitted, newest = snapshots[start : start + history]
        columns = columns_of([*fitted, newest])
        coefficients = _coefficients(columns, tuple(groups), num_groups, predictor, horizon)
        for ahead, actual in enumerate(snapshots[start + history :][:horizon]):
            truths = displacement(newest, actual)
            errors[start, ahead] = _relative_errors(
                columns, tuple(groups), coefficients, ahead, truths
            )
    table = np.full((len(groups), starts, horizon), np.nan)
    for (start, ahead), error in errors.items():
        table[:, start, ahead] = error
    return _leaves.unflatten(snapshots[-1], table)


@functools.partial(jax.jit, static_argnames=("groups", "num_groups", "predictor", "horizon"))
def _coefficients(
    columns: list[list[jax.Array]],
    groups: tuple[int, ...],
    num_groups: int,
    predictor: Predictor,
    horizon: int,
) -> jax.Array:
    """Coefficients of the displacements of each group, ``(G, horizon, h)``."""
    grams = gram(columns, groups, num_groups)

    def of_group(gram):
        coefficients = predictor(gram, horizon)
        _predictors.check_coefficients(coefficients, horizon, gram)
        return coefficients

    return jax.vmap(of_group)(grams)


@functools.partial(jax.jit, static_argnames="groups")
def _relative_errors(
    columns: list[list[jax.Array]],
    groups: tuple[int, ...],
    coefficients: jax.Array,
    ahead: jax.Array | int,
    truths: list[jax.Array],
) -> jax.Array:
    """``||prediction - truth|| / ||truth||`` of the displacements of each leaf; 0 / 0 is 0."""
    ratios = []
    for column, group, truth in zip(columns, groups, truths, strict=True):
        predicted = _basis.combine(coefficients[group, ahead], column)
        error = jnp.sqrt(jnp.sum((predicted - truth) ** 2))
        ratios.append(jnp.where(error == 0, 0, error / jnp.sqrt(jnp.sum(truth**2))))
    return jnp.stack(ratios)
