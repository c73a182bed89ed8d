"""Burgers' equation of viscosity 0.01 / pi, whose solution grows a front.

Settings of Raissi, Perdikaris and Karniadakis (2019), on fewer points.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from experiments.science.tasks.physics import Function, Problem, derivatives, slope

VISCOSITY = 0.01 / np.pi


def solution(x: np.ndarray, t: np.ndarray, nodes: int = 200) -> np.ndarray:
    """The Cole-Hopf solution from u(x, 0) = -sin(pi x), its integrals by Gauss-Hermite quadrature.

    Basdevant et al. (1986), "Spectral and finite difference solutions of the Burgers equation".

    Args:
      x: (n,) places.
      t: (m,) times from 0.
      nodes: of the quadrature.

    Returns:
      (m, n) float64.
    """
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    shifted = x[None, :, None] - np.sqrt(4 * VISCOSITY * t)[:, None, None] * z
    density = weights * np.exp(-np.cos(np.pi * shifted) / (2 * np.pi * VISCOSITY))
    return -np.sum(np.sin(np.pi * shifted) * density, -1) / np.sum(density, -1)


def problem() -> Problem:
    """u_t + u u_x = 0.01 / pi u_xx on -1 <= x <= 1, u = 0 at the ends, u(x, 0) = -sin(pi x)."""

    def residual(u: Function, points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        inside, start = points["interior"], points["bottom"]
        value, along, twice = derivatives(u, inside, 0)
        return {
            "interior": slope(u, inside, 1) + value * along - VISCOSITY * twice,
            "initial": u(start) + jnp.sin(jnp.pi * start[:, 0]),
            "left": u(points["left"]),
            "right": u(points["right"]),
        }

    return Problem(
        residual=residual,
        low=(-1.0, 0.0),
        high=(1.0, 1.0),
        numbers={"interior": 2000, "bottom": 100, "left": 50, "right": 50},
        solution=solution,
    )
