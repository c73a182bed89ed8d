"""Dynamic Mode Decomposition computed from the Gram matrix of a weight history.

Snapshots are never formed. They are written in the basis ``B = [delta_1, ..,
delta_{h-1}, s_h]`` of increments and newest snapshot, whose Gram matrix fixes
every inner product, so that all algebra is on ``h x h`` matrices.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax._checks import is_int, is_number
from pdt_optax._svd import least_squares, root, svd


class Gram(NamedTuple):
    r"""Inner products of a weight history.

    Attributes:
      matrix: shape ``(h, h)``, float32 or float64. Gram matrix :math:`B^\top B`
        of the basis :math:`B = [\delta_1, \dots, \delta_{h-1}, s_h]`: the
        increments :math:`\delta_j = s_{j+1} - s_j`, oldest first, then the
        newest snapshot.
      size: shape ``()``, floating. Number of coordinates summed over.
    """

    matrix: jax.Array
    size: jax.Array


class Fit(NamedTuple):
    r"""A DMD model, in coordinates of the right singular vectors of ``X``.

    With :math:`X = U S V^\top` and :math:`Y = X + \Delta`, the reduced operator
    :math:`U^\top Y V S^{-1}` is similar to :math:`I + E`,
    :math:`E = S^{-1} U^\top \Delta V`. This form has no entry that grows with
    the distance of the weights from the origin.

    Attributes:
      change: shape ``(m, m)``, the matrix :math:`E`, zero outside the rank.
      modes: shape ``(h, m)``, coefficients in ``B`` of the (unnormalised) modes.
      amplitudes: shape ``(m,)``, of the last snapshot in these modes.
      kept: shape ``(m,)``, bool, the singular directions within the rank.
    """

    change: jax.Array
    modes: jax.Array
    amplitudes: jax.Array
    kept: jax.Array


def snapshot_coordinates(history: int) -> np.ndarray:
    r"""Coordinates of the snapshots in ``B``; shape ``(h, h)``, one a column.

    :math:`s_j = s_h - \sum_{i \ge j} \delta_i`.
    """
    coordinates = -np.tril(np.ones((history, history)))
    coordinates[-1] = 1.0
    return coordinates


def centering_rotation(size: int) -> np.ndarray:
    """Orthogonal matrix, shape ``(size, size)``, whose first column is uniform.

    Applied to the columns of ``X`` it separates their common part, which may be
    many orders larger than the rest, from their differences (Helmert).
    """
    rotation = np.zeros((size, size))
    rotation[:, 0] = size**-0.5
    for j in range(1, size):
        rotation[:j, j] = (j * (j + 1)) ** -0.5
        rotation[j, j] = -j * (j * (j + 1)) ** -0.5
    return rotation


def fit(
    gram: Gram,
    x: jax.Array,
    y: jax.Array,
    last: jax.Array,
    *,
    svd_rank: int | float,
    exact: bool,
) -> Fit:
    """Fits ``Y = A X`` and expands the last snapshot ``Y @ last`` in its modes.

    Args:
      gram: Gram matrix of the basis ``B``.
      x: shape ``(h, m)``, coordinates of ``X`` in ``B``.
      y: shape ``(h, m)``, coordinates of ``Y`` in ``B``.
      last: shape ``(m,)``, combination of the columns of ``Y`` to expand.
      svd_rank: truncation with PyDMD's meaning.
      exact: exact modes ``Y V`` (Tu et al. 2014), otherwise projected ``X V``.

    Returns:
      The fitted model.
    """
    eps = jnp.finfo(gram.matrix.dtype).eps
    history = x.shape[0]

    sizes = root(jnp.diagonal(gram.matrix))
    norms = _nonzero(sizes)
    _, values, vectors = svd(gram.matrix / jnp.outer(norms, norms))
    factor = jnp.outer(root(values), norms) * vectors.T

    snapshots = factor @ x
    u, s, v = svd(snapshots)
    noise = history * eps * jnp.sum((sizes[:, None] * (x @ v)) ** 2, axis=0)
    rounding = history * eps * (jnp.linalg.norm(snapshots, axis=0) @ jnp.abs(v))
    kept = _within_rank(s, svd_rank, gram.size) & (s**2 > noise) & (s > rounding)
    v = jnp.where(kept[None], v, 0)
    inverse = jnp.diag(jnp.where(kept, 1 / _nonzero(s), 0))
    change = inverse @ (u.T @ (factor @ ((y - x) @ v)))

    if exact:
        modes = y @ v
        discarded = y @ (last - v @ (v.T @ last))
        correction = least_squares(factor @ modes, factor @ discarded)
    else:
        modes = x @ v
        correction = inverse @ (u.T @ (factor @ ((y - x) @ last)))
    return Fit(change, modes, v.T @ last + correction, kept)


def displacements(model: Fit, horizon: int) -> jax.Array:
    r"""Displacements of the last snapshot, in coordinates of ``B``.

    Row :math:`k-1` is :math:`\Phi (\Lambda^k - I) \Phi^+ s_h`, evaluated with
    real powers of the reduced operator: the same numbers as by its
    eigendecomposition, on every backend and for defective operators too.

    Args:
      model: the fitted DMD.
      horizon: number of steps.

    Returns:
      Shape ``(horizon, h)``.
    """

    def step(moved, _):
        moved = moved + model.change @ (moved + model.amplitudes)
        return moved, model.modes @ moved

    return jax.lax.scan(step, jnp.zeros_like(model.amplitudes), length=horizon)[1]


def _within_rank(s: jax.Array, svd_rank: int | float, size: jax.Array) -> jax.Array:
    m = s.shape[0]
    index = jnp.arange(m)
    if svd_rank == 0:
        ratio = jnp.minimum(m / size, size / m).astype(s.dtype)
        omega = 0.56 * ratio**3 - 0.95 * ratio**2 + 1.82 * ratio + 1.43
        count = jnp.minimum(m, size).astype(jnp.int32)  # The others are zero by construction.
        middle = (s[(count - 1) // 2] + s[count // 2]) / 2
        return (s > omega * middle) | (index == 0)
    if 0 < svd_rank < 1:
        tail = jnp.cumsum(s[::-1] ** 2)[::-1]
        return (index == 0) | (tail > (1 - svd_rank) * tail[0])
    return index < (m if svd_rank < 0 else svd_rank)


def _nonzero(x: jax.Array) -> jax.Array:
    return jnp.where(x == 0, 1, x)


def along(slope: jax.Array, horizon: int) -> jax.Array:
    """Coefficients ``(horizon, h)`` of a straight line with the slope ``(h,)`` a snapshot."""
    return jnp.outer(jnp.arange(1, horizon + 1, dtype=slope.dtype), slope)


@dataclasses.dataclass(frozen=True)
class DMD:
    """A predictor; made by :func:`pdt_optax.predictors.dmd` and its affine twin."""

    svd_rank: int | float
    exact: bool
    affine: bool

    def __post_init__(self):
        rank = self.svd_rank
        is_energy = is_number(rank) and 0 < rank < 1
        if not (is_energy or is_int(rank, -1)):
            raise ValueError(
                "`svd_rank` must be -1 (no truncation), 0 (Gavish-Donoho threshold), a positive "
                f"int, or a float in (0, 1) (energy kept); got {rank!r}."
            )

    def pairs(self, gram: Gram) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`x`, `y` and `last` of :func:`fit`."""
        history = gram.matrix.shape[-1]
        if self.affine:
            increments = np.eye(history, history - 1)
            x, y = increments[:, :-1], increments[:, 1:]
            last = np.eye(history - 2)[-1]
        else:
            snapshots = snapshot_coordinates(history)
            rotation = centering_rotation(history - 1)
            x, y = snapshots[:, :-1] @ rotation, snapshots[:, 1:] @ rotation
            x[-1, 1:] = y[-1, 1:] = 0.0
            last = rotation[-1]
        x, y, last = (jnp.asarray(a, gram.matrix.dtype) for a in (x, y, last))
        return x, y, last

    def fit(self, gram: Gram) -> Fit:
        """The fitted model."""
        return fit(gram, *self.pairs(gram), svd_rank=self.svd_rank, exact=self.exact)

    def __call__(self, gram: Gram, horizon: int) -> jax.Array:
        """Coefficients ``(horizon, h)`` of the predicted displacements."""
        return self.solve(gram, horizon)[0]

    def solve(self, gram: Gram, horizon: int) -> tuple[jax.Array, jax.Array]:
        """Coefficients, and the fitted linear map up to similarity.

        Args:
          gram: Gram matrix of the history, ``(h, h)``.
          horizon: number of snapshots ahead.

        Returns:
          Coefficients ``(horizon, h)`` and the operator ``(h-1, h-1)``, which is zero
          outside the rank and has the eigenvalues of the DMD.
        """
        with jax.default_matmul_precision("highest"):
            model = self.fit(gram)
            coefficients = displacements(model, horizon)
        if self.affine:
            _, y, last = self.pairs(gram)
            coefficients = jnp.cumsum(coefficients, axis=0) + along(y @ last, horizon)
        operator = jnp.diag(model.kept.astype(model.change.dtype)) + model.change
        rank = gram.matrix.shape[-1] - 1
        missing = max(rank - operator.shape[-1], 0)
        return coefficients, jnp.pad(operator, (0, missing))[:rank, :rank]
