"""The jumps that an event weighs: predictors, horizons, and the paths there."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax.criteria import Criterion
from pdt_optax.predictors import DMD, Predictor, check_coefficients


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Every predictor at every horizon, under one criterion.

    Attributes:
      predictors: at least one.
      horizons: at least one, the nearest first.
      points: at how many evenly spaced points a path is judged.
      criterion: the mask of all candidates.
    """

    predictors: tuple[Predictor, ...]
    horizons: tuple[int, ...]
    points: int
    criterion: Criterion

    @property
    def has_dmd(self) -> bool:
        """Whether a DMD is fitted, whose operator is reported."""
        return any(isinstance(predictor, DMD) for predictor in self.predictors)

    def fit(
        self, gram: Any, reach: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Coefficients of the candidates, in the order of time.

        Args:
          gram: Gram matrices of the history, as the predictors take them, with an axis of
            groups in front.
          reach: float32 scalar; no horizon lies beyond it.

        Returns:
          Paths ``(G, candidates, points, h)``; the first predictor's first step ``(G, h)``;
          operators of the first DMD ``(G, h-1, h-1)``, None if there is none.
        """
        if gram.matrix.shape[0] > 1:
            return jax.vmap(self._fit, in_axes=(0, None))(gram, reach)
        fitted = self._fit(jax.tree.map(lambda array: array[0], gram), reach)
        return jax.tree.map(lambda array: array[None], fitted)

    def _fit(self, gram, reach) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        furthest = self.horizons[-1]
        steps, operator = [], None
        for predictor in self.predictors:
            if isinstance(predictor, DMD) and operator is None:
                coefficients, operator = predictor.solve(gram, furthest)
            else:
                coefficients = predictor(gram, furthest)
            check_coefficients(coefficients, furthest, gram)
            steps.append(coefficients)
        if self.horizons == (self.points,) and reach is None:
            paths = jnp.stack(steps)
        else:
            weights = self._interpolation(np if reach is None else jnp, reach)
            weights = jnp.asarray(weights, gram.matrix.dtype)
            paths = jnp.concatenate([_on_paths(weights, c) for c in steps])
        if operator is not None:
            operator = jnp.where(jnp.isfinite(operator), operator, 0)
        return paths, steps[0][0], operator

    def _interpolation(self, xnp: Any, reach: jax.Array | None) -> Any:
        """Weights of the steps in the points of each path, ``(horizons, points, furthest)``.

        Linear between snapshots: exactly one step each if `points` is the horizon, which
        a product with rounded fractions would miss.
        """
        horizons = np.asarray(self.horizons, np.float32)
        horizons = horizons if reach is None else jnp.minimum(horizons, reach)
        numbers = np.arange(1, self.points + 1, dtype=np.float32)
        times = xnp.outer(horizons, numbers / np.float32(self.points))
        times = xnp.where(horizons[:, None] == self.points, numbers[None], times)
        steps = np.arange(1, self.horizons[-1] + 1, dtype=np.float32)
        return xnp.maximum(0, 1 - xnp.abs(times[:, :, None] - steps[None, None]))


def _on_paths(weights: jax.Array, coefficients: jax.Array) -> jax.Array:
    """Coefficients ``(horizons, points, h)``; steps of weight zero need not be finite."""
    weights = weights[..., None]
    return jnp.where(weights == 0, 0, weights * coefficients[None, None]).sum(axis=2)
