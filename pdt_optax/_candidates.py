"""The jumps that an event weighs: predictors, horizons, and the paths there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax._criteria import Criterion
from pdt_optax._dmd import Gram
from pdt_optax._predictors import DMD, Predictor, check_coefficients


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
    spectrum: Predictor

    def __len__(self) -> int:
        return len(self.predictors) * len(self.horizons)

    def at(self, reach: jax.Array) -> jax.Array:
        """Horizons of all candidates, float32, none beyond `reach`."""
        horizons = jnp.minimum(jnp.asarray(self.horizons, jnp.float32), reach)
        return jnp.tile(horizons, len(self.predictors))

    def fit(self, gram: Gram, reach: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Coefficients of the candidates, from the Gram matrix of one group.

        Args:
          gram: Gram matrix of the history, ``(h, h)``, as the predictors take it.
          reach: float32 scalar, the greatest horizon now.

        Returns:
          Paths ``(candidates, points, h)``; the first predictor's first step
          ``(h,)``; a DMD operator ``(h-1, h-1)``.
        """
        furthest = max(self.horizons)
        horizons = self.at(reach)[: len(self.horizons)]
        at_points = _interpolation(horizons, self.points, furthest).astype(gram.matrix.dtype)
        steps, operator = [], None
        for predictor in self.predictors:
            if isinstance(predictor, DMD) and operator is None:
                coefficients, operator = predictor.solve(gram, furthest)
            else:
                coefficients = predictor(gram, furthest)
            check_coefficients(coefficients, furthest, gram)
            steps.append(coefficients)
        if operator is None:
            operator = self.spectrum.solve(gram, 1)[1]
        return jnp.concatenate([_on_paths(at_points, c) for c in steps]), steps[0][0], operator


def _interpolation(horizons: jax.Array, points: int, furthest: int) -> jax.Array:
    """Weights of the steps in the points of each path, ``(horizons, points, furthest)``.

    Linear between snapshots: exactly one step each if `points` is the horizon, which
    a product with rounded fractions would miss.
    """
    numbers = np.arange(1, points + 1, dtype=np.float32)
    fractions = jnp.asarray(numbers / np.float32(points))
    times = jnp.where(horizons[:, None] == points, numbers[None], jnp.outer(horizons, fractions))
    steps = jnp.arange(1, furthest + 1, dtype=horizons.dtype)
    return jnp.maximum(0, 1 - jnp.abs(times[:, :, None] - steps[None, None]))


def _on_paths(at_points: jax.Array, coefficients: jax.Array) -> jax.Array:
    """Coefficients ``(horizons, points, h)``; steps of weight zero need not be finite."""
    weights = at_points[..., None]
    return jnp.where(weights == 0, 0, weights * coefficients[None, None]).sum(axis=2)
