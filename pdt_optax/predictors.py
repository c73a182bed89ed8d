"""Predictors: from the Gram matrix of the history to coefficients of its basis.

A predictor is a function ``(gram, horizon) -> coefficients`` with coefficients
of shape ``(horizon, h)``: the predicted displacement from the newest snapshot
after ``k`` snapshots is ``D_k = sum_j coefficients[k - 1, j] * B_j`` in the basis
``B = [delta_1, .., delta_{h-1}, s_h]`` (see :class:`pdt_optax.predictors.Gram`).
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax._checks import check_is_called
from pdt_optax._dmd import DMD, Gram, along

__all__ = [
    "DMD",
    "Gram",
    "Predictor",
    "affine_dmd",
    "average",
    "dmd",
    "last_increment",
    "linear",
]

Predictor = Callable[[Gram, int], jax.Array]
"""From the Gram matrix of a history and a horizon to coefficients ``(horizon, h)``.

The predicted displacement from the newest snapshot after ``k`` snapshots is
``sum_j coefficients[k - 1, j] * B_j`` in the basis ``B`` of :class:`pdt_optax.predictors.Gram`.
"""


def dmd(svd_rank: int | float = -1, *, exact: bool = True) -> DMD:
    r"""Dynamic Mode Decomposition of the snapshots.

    With :math:`X = [s_1, \dots, s_{h-1}] = U S V^\top` (truncated) and
    :math:`Y = [s_2, \dots, s_h]`, the reduced operator
    :math:`U^\top Y V S^{-1} = E \Lambda E^{-1}` gives the prediction

    .. math::
      p_k = s_h + \mathrm{Re}\,\Phi (\Lambda^k - I) \Phi^+ s_h.

    Args:
      svd_rank: truncation with PyDMD's meaning: -1 none, 0 the Gavish-Donoho
        threshold, a positive int that many singular directions, a float in
        (0, 1) the fraction of energy kept. Directions which the Gram matrix
        cannot tell from zero in its precision are always left out.
      exact: exact modes :math:`\Phi = Y V S^{-1} E` (Tu et al. 2014); if False
        projected modes :math:`\Phi = U E`.

    Returns:
      A predictor.

    Raises:
      ValueError: if `svd_rank` has none of these forms.

    Examples:
      >>> import jax.numpy as jnp
      >>> import pdt_optax
      >>> snapshots = jnp.outer(jnp.array([8., 4., 2.]), jnp.array([1., 3.]))
      >>> basis = jnp.vstack([jnp.diff(snapshots, axis=0), snapshots[-1:]])
      >>> gram = pdt_optax.predictors.Gram(basis @ basis.T, jnp.array(2.))
      >>> displacements = pdt_optax.predictors.dmd()(gram, 2) @ basis
      >>> bool(jnp.allclose(displacements, jnp.array([[-1., -3.], [-1.5, -4.5]])))
      True

    References:
      Schmid, `Dynamic mode decomposition of numerical and experimental data
      <https://doi.org/10.1017/S0022112010001217>`_, 2010

      Tu et al., `On dynamic mode decomposition: theory and applications
      <https://arxiv.org/abs/1312.0041>`_, 2014
    """
    return DMD(svd_rank, exact, affine=False)


def affine_dmd(svd_rank: int | float = -1, *, exact: bool = True) -> DMD:
    r"""Dynamic Mode Decomposition of the increments.

    The DMD of :math:`\delta_1, \dots, \delta_{h-1}` predicts increments, whose
    sums are the displacements. Fits :math:`s_{j+1} = A s_j + b`: coefficients of
    the snapshots that sum to one, independent of where the origin lies.

    Args:
      svd_rank: as in :func:`pdt_optax.predictors.dmd`, for the increments.
      exact: as in :func:`pdt_optax.predictors.dmd`.

    Returns:
      A predictor.

    Raises:
      ValueError: if `svd_rank` has none of its forms.

    References:
      Hirsh et al., `Centering data improves the dynamic mode decomposition
      <https://arxiv.org/abs/1906.05973>`_, 2020
    """
    return DMD(svd_rank, exact, affine=True)


def linear() -> Predictor:
    """Straight line through the oldest and the newest snapshot.

    ``D_k = k (s_h - s_1) / (h - 1)``. A control: what a prediction without any
    dynamics achieves.

    Returns:
      A predictor.

    Examples:
      >>> import jax.numpy as jnp
      >>> import pdt_optax
      >>> increments_and_newest = jnp.array([[1., 0.5, 3.]])  # s = 1.5, 2.5, 3
      >>> gram = pdt_optax.predictors.Gram(
      ...     increments_and_newest.T @ increments_and_newest, jnp.array(1.)
      ... )
      >>> pdt_optax.predictors.linear()(gram, 2)
      Array([[0.5, 0.5, 0. ],
             [1. , 1. , 0. ]], dtype=float32)
    """

    def predict(gram: Gram, horizon: int) -> jax.Array:
        history = gram.matrix.shape[-1]
        slope = jnp.full(history, 1 / (history - 1), gram.matrix.dtype).at[-1].set(0)
        return along(slope, horizon)

    return predict


def last_increment() -> Predictor:
    """The last increment repeated: ``D_k = k (s_h - s_{h-1})``. A control.

    Returns:
      A predictor.
    """

    def predict(gram: Gram, horizon: int) -> jax.Array:
        slope = jnp.zeros(gram.matrix.shape[-1], gram.matrix.dtype).at[-2].set(1)
        return along(slope, horizon)

    return predict


def average() -> Predictor:
    """The average of the held snapshots, whatever the horizon.

    ``D_k = mean(s_1, .., s_h) - s_h``. A control.

    Returns:
      A predictor.

    References:
      Kaddour, `Stop Wasting My Time! Saving Days of ImageNet and BERT Training
      with Latest Weight Averaging <https://arxiv.org/abs/2209.14981>`_, 2022
    """

    def predict(gram: Gram, horizon: int) -> jax.Array:
        history = gram.matrix.shape[-1]
        to_mean = -np.arange(1, history + 1) / history
        to_mean[-1] = 0.0
        return jnp.broadcast_to(jnp.asarray(to_mean, gram.matrix.dtype), (horizon, history))

    return predict


def check_coefficients(coefficients: jax.Array, horizon: int, gram: Gram) -> None:
    """Raises ValueError unless what a predictor returned has the shape it must have."""
    expected = horizon, gram.matrix.shape[-1]
    if jnp.shape(coefficients) != expected:
        raise ValueError(
            f"`predictor` must return coefficients of shape (horizon, h) = {expected}, got "
            f"{jnp.shape(coefficients)}."
        )


def resolve(predictor: str | Predictor, svd_rank: int | float) -> Predictor:
    """The predictor of that name, or the function itself."""
    if isinstance(predictor, str) and predictor in _NAMES:
        return _named(predictor, svd_rank)
    check_is_called("predictor", predictor, (dmd, affine_dmd, linear, last_increment, average))
    if not callable(predictor):
        raise ValueError(
            f"`predictor` must be one of {', '.join(map(repr, _NAMES))}, or a function "
            f"(gram, horizon) -> coefficients; got {predictor!r}."
        )
    return predictor


_NAMES = ("dmd", "affine_dmd", "linear", "last_increment", "average")


@functools.cache  # The same function each time, for which jit compiles once.
def _named(name: str, svd_rank: int | float) -> Predictor:
    plain = {"linear": linear, "last_increment": last_increment, "average": average}
    if name in plain:
        return plain[name]()
    return dmd(svd_rank) if name == "dmd" else affine_dmd(svd_rank)
