"""The jumps that an event weighs: predictors, horizons, and the paths there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax._criteria import Criterion
from pdt_optax._dmd import Gram
from pdt_optax._predictors import DMD, Predictor


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Every predictor at every horizon, under one criterion.

    Attributes:
      predictors: at least one.
      horizons: at least one.
      points: at how many evenly spaced points a path is judged.
      criterion: the mask of all candidates.
      spectrum: the DMD whose operator is reported if no predictor is one.
    """

    predictors: tuple[Predictor, ...]
    horizons: tuple[int, ...]
    points: int
    criterion: Criterion
    spectrum: DMD

    def __len__(self) -> int:
        return len(self.predictors) * len(self.horizons)

    def horizon(self, index: jax.Array | int) -> jax.Array:
        """Horizon of a candidate, int32."""
        return jnp.asarray(self.horizons, jnp.int32)[index % len(self.horizons)]

    def fit(self, gram: Gram) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Coefficients of the candidates, from the Gram matrix of one group.

        Args:
          gram: Gram matrix of the history, ``(h, h)``.

        Returns:
          Paths ``(candidates, points, h)``; the first predictor's first step
          ``(h,)``; a DMD operator ``(h-1, h-1)``.
        """
        history, furthest = gram.matrix.shape[-1], max(self.horizons)
        at_points = jnp.asarray(_interpolation(self.horizons, self.points), gram.matrix.dtype)
        steps, operator = [], None
        for predictor in self.predictors:
            if isinstance(predictor, DMD) and operator is None:
                coefficients, operator = predictor.solve(gram, furthest)
            else:
                coefficients = predictor(gram, furthest)
            if coefficients.shape != (furthest, history):
                raise ValueError(
                    "`predictor` must return coefficients of shape (horizon, h) = "
                    f"{(furthest, history)}, got {coefficients.shape}."
                )
            steps.append(coefficients)
        if operator is None:
            operator = self.spectrum.solve(gram, 1)[1]
        with jax.default_matmul_precision("highest"):
            paths = jnp.concatenate([jnp.tensordot(at_points, c, axes=1) for c in steps])
        return paths, steps[0][0], operator


def _interpolation(horizons: tuple[int, ...], points: int) -> np.ndarray:
    """Weights of the steps in the points of each path, ``(horizons, points, furthest)``.

    Linear between snapshots: exactly one step each if `points` is the horizon.
    """
    weights = np.zeros((len(horizons), points, max(horizons) + 1))
    for row, horizon in enumerate(horizons):
        for point in range(points):
            before, rest = divmod(horizon * (point + 1), points)
            weights[row, point, before] += 1 - rest / points
            if rest:
                weights[row, point, before + 1] += rest / points
    return weights[..., 1:]
