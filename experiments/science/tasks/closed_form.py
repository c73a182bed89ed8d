"""Poisson, convection, reaction and wave: equations whose solution can be written down.

The last three with the settings of Krishnapriyan et al. (2021), "Characterizing possible failure
modes in physics-informed neural networks", and Rathore et al. (2024), "Challenges in training
PINNs", on fewer points: 1,000 inside, 100 and 51 on the edges.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from experiments.science.tasks.physics import Function, Problem, derivatives, slope, value_and_slope

EDGES = {"bottom": 100, "left": 51, "right": 51}
"""Points at time 0 and on the two ends."""


def poisson() -> Problem:
    """Delta u = -5 pi^2 sin(pi x) sin(2 pi y) on the unit square, u = 0 on its edges."""

    def exact(points: jax.Array) -> jax.Array:
        return jnp.sin(jnp.pi * points[:, 0]) * jnp.sin(2 * jnp.pi * points[:, 1])

    def residual(u: Function, points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        inside = points["interior"]
        laplacian = derivatives(u, inside, 0)[2] + derivatives(u, inside, 1)[2]
        edges = {name: u(at) for name, at in points.items() if name != "interior"}
        return {"interior": laplacian + 5 * jnp.pi**2 * exact(inside), **edges}

    edges = ("left", "right", "bottom", "top")
    return Problem(
        residual=residual,
        low=(0.0, 0.0),
        high=(1.0, 1.0),
        numbers={"interior": 256, **dict.fromkeys(edges, 32)},
        solution=lambda x, y: np.sin(np.pi * x)[None] * np.sin(2 * np.pi * y)[:, None],
        labels=("x", "y"),
        weights=dict.fromkeys(edges, 25.0),
    )


def convection(beta: float) -> Problem:
    """u_t + beta u_x = 0, periodic in x, u(x, 0) = sin x."""
    return _periodic(
        lambda u, inside: slope(u, inside, 1) + beta * slope(u, inside, 0),
        start=jnp.sin,
        solution=lambda x, t: np.sin(x[None] - beta * t[:, None]),
    )


def reaction(rho: float) -> Problem:
    """u_t = rho u (1 - u), periodic in x, from a normal curve around pi."""

    def start(x, exp=jnp.exp):
        return exp(-((x - np.pi) ** 2) / (2 * (np.pi / 4) ** 2))

    def interior(u: Function, inside: jax.Array) -> jax.Array:
        value, rate = value_and_slope(u, inside, 1)
        return rate - rho * value * (1 - value)

    def solution(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        first = start(x, np.exp)[None]
        grown = first * np.exp(rho * t)[:, None]
        return grown / (grown + 1 - first)

    return _periodic(interior, start, solution)


def _periodic(
    interior: Callable[[Function, jax.Array], jax.Array],
    start: Callable[[jax.Array], jax.Array],
    solution: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Problem:
    """An equation on 0 <= x <= 2 pi, periodic, from u(x, 0) = start(x)."""

    def residual(u: Function, points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        bottom = points["bottom"]
        return {
            "interior": interior(u, points["interior"]),
            "initial": u(bottom) - start(bottom[:, 0]),
            "periodic": u(points["left"]) - u(points["right"]),
        }

    return Problem(
        residual=residual,
        low=(0.0, 0.0),
        high=(2 * np.pi, 1.0),
        numbers={"interior": 1000, **EDGES},
        solution=solution,
    )


def wave(beta: int = 5) -> Problem:
    """u_tt = 4 u_xx, fixed ends, from sin(pi x) + sin(beta pi x) / 2 at rest."""

    def mode(x: np.ndarray, t: np.ndarray, number: int) -> np.ndarray:
        return np.sin(number * np.pi * x)[None] * np.cos(2 * number * np.pi * t)[:, None]

    def residual(u: Function, points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        inside, start = points["interior"], points["bottom"]
        x = start[:, 0]
        return {
            "interior": derivatives(u, inside, 1)[2] - 4 * derivatives(u, inside, 0)[2],
            "initial": u(start) - jnp.sin(jnp.pi * x) - 0.5 * jnp.sin(beta * jnp.pi * x),
            "rest": slope(u, start, 1),
            "left": u(points["left"]),
            "right": u(points["right"]),
        }

    return Problem(
        residual=residual,
        low=(0.0, 0.0),
        high=(1.0, 1.0),
        numbers={"interior": 1000, **EDGES},
        solution=lambda x, t: mode(x, t, 1) + 0.5 * mode(x, t, beta),
    )
