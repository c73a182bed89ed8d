"""The Allen-Cahn equation, stiff and with sharp layers.

Settings of Raissi, Perdikaris and Karniadakis (2019), the first condition weighted as in Wight and
Zhao (2020), on fewer points.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from experiments.science.tasks.physics import Function, Problem, derivatives, slope

DIFFUSION = 1e-4
RATE = 5.0


def solution(x: np.ndarray, t: np.ndarray, modes: int = 1024, steps: int = 400) -> np.ndarray:
    """A Fourier spectral solution, ETDRK4 in time.

    Kassam and Trefethen (2005), "Fourth-order time-stepping for stiff PDEs".

    Args:
      x: (n,) places in [-1, 1].
      t: (m,) times, evenly spaced from 0 to 1.
      modes: points of the Fourier grid.
      steps: about as many steps in time, a multiple of m - 1.

    Returns:
      (m, n) float64.
    """
    grid = -1 + 2 * np.arange(modes) / modes
    wave_numbers = np.pi * np.arange(modes // 2 + 1)
    state = np.fft.rfft(grid**2 * np.cos(np.pi * grid))
    every = max(1, round(steps / (len(t) - 1)))
    advance = _etdrk4(RATE - DIFFUSION * wave_numbers**2, 1 / ((len(t) - 1) * every), modes)
    rows = [state]
    for _ in t[1:]:
        for _ in range(every):
            state = advance(state)
        rows.append(state)
    half = np.where(np.arange(modes // 2 + 1) % (modes // 2) == 0, 1.0, 2.0) / modes
    waves = half[:, None] * np.exp(1j * wave_numbers[:, None] * (x[None] + 1))
    return np.real(np.stack(rows) @ waves)


def _etdrk4(linear: np.ndarray, dt: float, modes: int):
    """One step of u' = linear u - 5 u^3 for Fourier coefficients, `linear` diagonal."""
    circle = np.exp(1j * np.pi * (np.arange(32) + 0.5) / 32)
    z = dt * linear[:, None] + circle[None]
    whole, half = np.exp(dt * linear), np.exp(dt * linear / 2)
    q = dt * np.mean((np.exp(z / 2) - 1) / z, 1).real
    f1 = dt * np.mean((-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3, 1).real
    f2 = dt * np.mean((2 + z + np.exp(z) * (z - 2)) / z**3, 1).real
    f3 = dt * np.mean((-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3, 1).real

    def cubic(state: np.ndarray) -> np.ndarray:
        return -RATE * np.fft.rfft(np.fft.irfft(state, modes) ** 3)

    def advance(state: np.ndarray) -> np.ndarray:
        n = cubic(state)
        a = half * state + q * n
        na = cubic(a)
        b = half * state + q * na
        nb = cubic(b)
        c = half * a + q * (2 * nb - n)
        return whole * state + f1 * n + 2 * f2 * (na + nb) + f3 * cubic(c)

    return advance


def problem() -> Problem:
    """u_t = 1e-4 u_xx + 5 u - 5 u^3 on -1 <= x <= 1, periodic, u(x, 0) = x^2 cos(pi x)."""

    def residual(u: Function, points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        inside, start = points["interior"], points["bottom"]
        left, right = points["left"], points["right"]
        value, _, twice = derivatives(u, inside, 0)
        x = start[:, 0]
        return {
            "interior": slope(u, inside, 1) - DIFFUSION * twice - RATE * (value - value**3),
            "initial": u(start) - x**2 * jnp.cos(jnp.pi * x),
            "periodic": u(left) - u(right),
            "smooth": slope(u, left, 0) - slope(u, right, 0),
        }

    return Problem(
        residual=residual,
        low=(-1.0, 0.0),
        high=(1.0, 1.0),
        numbers={"interior": 2000, "bottom": 200, "left": 50, "right": 50},
        solution=solution,
        weights={"initial": 100.0},
    )
