"""Koopman spectra of training, and how far apart two of them are."""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pdt_optax import _basis, _dmd, _leaves
from pdt_optax import predictors as _predictors
from pdt_optax._snapshots import check_snapshots, columns_of, gram
from pdt_optax.predictors import Predictor


class Spectrum(NamedTuple):
    r"""Koopman spectrum of a piece of training; made by :func:`pdt_optax.dynamics.spectrum`.

    ``G`` is the number of groups of leaves (`scope`), ``m`` that of modes.

    Attributes:
      eigenvalues: complex, shape ``(G, m)``, largest modulus first. On the unit circle a mode
        persists, inside it decays; the angle is its rotation in a snapshot period.
      rank: int, shape ``(G,)``: the first so many eigenvalues belong to modes, the rest are zero.
      groups: the group of each leaf, a tree like the parameters.
      magnitudes: a tree like the parameters, each leaf of shape ``(m,)``: the norm
        :math:`\|b_i \phi_i\|` of the part that mode :math:`i` has in this leaf of the newest
        snapshot :math:`\sum_i b_i \phi_i`; of the newest increment with
        :func:`pdt_optax.predictors.affine_dmd`. In the order of the group's eigenvalues.

    In `groups` and `magnitudes` leaves that are not floating-point are
    :class:`optax.MaskedNode`.
    """

    eigenvalues: np.ndarray
    rank: np.ndarray
    groups: Any
    magnitudes: Any


def spectrum(
    snapshots: Sequence[Any], *, predictor: str | Predictor = "dmd", scope: Any = "global"
) -> Spectrum:
    """The eigenvalues of the training dynamics and how strong each mode is in each leaf.

    Args:
      snapshots: three or more trees of parameters at equal distances in training, oldest
        first; of a run with PDT also :func:`pdt_optax.dynamics.snapshots`.
      predictor: ``'dmd'``, ``'affine_dmd'``, or what :func:`pdt_optax.predictors.dmd` or
        :func:`pdt_optax.predictors.affine_dmd` returns.
      scope: leaves that share one fit, as in :func:`pdt_optax.pdt`.

    Returns:
      The spectrum.

    Raises:
      ValueError: if there are fewer than three snapshots (four with ``'affine_dmd'``), they
        differ in structure or shape, are not finite or have a squared norm that is not, the
        predictor is no DMD, or the labels do not fit.

    Examples:
      >>> import jax.numpy as jnp, pdt_optax
      >>> w, v = jnp.array([4., 3.]), jnp.array([1., 0.])
      >>> path = [{"w": 0.5**t * w, "v": 0.9**t * v} for t in range(3)]
      >>> found = pdt_optax.dynamics.spectrum(path)
      >>> print(found.eigenvalues.round(3), found.magnitudes["w"].round(3))
      [[0.9+0.j 0.5+0.j]] [0.   1.25]

    References:
      Dogra and Redman, `Optimizing Neural Networks via Koopman Operator Theory
      <https://arxiv.org/abs/2006.02361>`_, NeurIPS 2020
    """
    predictor = _predictors.resolve(predictor, -1)
    if not isinstance(predictor, _predictors.DMD):
        raise ValueError(
            "`predictor` must be 'dmd', 'affine_dmd', or what pdt_optax.predictors.dmd(...) or "
            f"pdt_optax.predictors.affine_dmd(...) returns, got {predictor!r}."
        )
    check_snapshots(snapshots, 4 if predictor.affine else 3)
    columns = columns_of(snapshots)
    groups, num_groups = _leaves.groups(scope, snapshots[-1])
    models = _models(columns, tuple(groups), num_groups, predictor)
    if not all(np.isfinite(part).all() for part in models):
        raise ValueError("`snapshots` must be finite, and so must be their squared norms.")
    eigenvalues, modes = zip(*map(_eigen, *models), strict=True)
    magnitudes = [
        np.asarray(_mode_norms(column, modes[group].real, modes[group].imag))
        for column, group in zip(columns, groups, strict=True)
    ]
    return Spectrum(
        eigenvalues=np.stack(eigenvalues),
        rank=np.asarray(models.kept.sum(axis=-1)),
        groups=_leaves.unflatten(snapshots[-1], groups),
        magnitudes=_leaves.unflatten(snapshots[-1], magnitudes),
    )


def spectral_distance(first: Any, second: Any) -> float:
    r"""Wasserstein distance of two sets of eigenvalues in the complex plane.

    The least mean distance :math:`|\lambda_i - \mu_{\pi(i)}|` over all ways to move one set
    onto the other, each eigenvalue having the same weight. Runs whose dynamics are conjugate
    have distance zero, whatever their weights and parametrisations are.

    Args:
      first: eigenvalues, shape ``(n,)``, such as the first ``n`` of a row of
        ``Spectrum.eigenvalues``, ``n`` being the rank of the fit.
      second: as many eigenvalues; fits with the same `svd_rank` have as many.

    Returns:
      The distance.

    Raises:
      ValueError: if a set is empty, has not one axis, or is not finite, or if their sizes
        differ.

    Examples:
      >>> import pdt_optax
      >>> print(pdt_optax.dynamics.spectral_distance([1.0, 0.5], [0.5, 1.0 + 0.2j]))
      0.1

    References:
      Redman et al., `Identifying Equivalent Training Dynamics
      <https://arxiv.org/abs/2302.09160>`_, NeurIPS 2024
    """
    sets = []
    for name, values in (("first", first), ("second", second)):
        values = np.asarray(values, complex)
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            raise ValueError(
                f"`{name}` must be a non-empty vector of finite eigenvalues, got {values!r}."
            )
        sets.append(values)
    if len(sets[0]) != len(sets[1]):
        raise ValueError(
            f"`second` must have as many eigenvalues as `first`, {len(sets[0])}, got "
            f"{len(sets[1])}."
        )
    costs = np.abs(sets[0][:, None] - sets[1][None])
    matched = _match(jnp.asarray(costs))
    return float(costs[matched].mean())


_match = jax.jit(optax.assignment.hungarian_algorithm)


@functools.partial(jax.jit, static_argnames=("groups", "num_groups", "predictor"))
def _models(
    columns: list[list[jax.Array]],
    groups: tuple[int, ...],
    num_groups: int,
    predictor: _predictors.DMD,
) -> _dmd.Fit:
    """The fitted DMD of each group, stacked."""
    return jax.vmap(predictor.fit)(gram(columns, groups, num_groups))


def _eigen(
    change: jax.Array, modes: jax.Array, amplitudes: jax.Array, kept: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues ``(m,)``, largest modulus first, and modes times amplitudes ``(h, m)``."""
    values, vectors = np.linalg.eig(np.diag(kept) + np.asarray(change, float))
    scaled = (np.asarray(modes) @ vectors) * np.linalg.lstsq(vectors, amplitudes + 0j)[0]
    order = np.argsort(-np.abs(values), stable=True)
    return values[order] + 0j, scaled[:, order]


@jax.jit
def _mode_norms(column: list[jax.Array], real: jax.Array, imag: jax.Array) -> jax.Array:
    """Norms ``(m,)`` of the modes in a leaf, from their coefficients ``(h, m)``."""

    def norm(parts):
        return jnp.sqrt(sum(jnp.sum(_basis.combine(part, column) ** 2) for part in parts))

    return jax.lax.map(norm, jnp.stack([real, imag]).transpose(2, 0, 1))
