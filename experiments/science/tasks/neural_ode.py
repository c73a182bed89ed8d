"""A neural ODE fitted to trajectories of a spiral.

Chen et al. (2018), "Neural ordinary differential equations": dy/dt = A y^3 in the plane.
"""

import functools
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate

from experiments.science.tasks import networks
from experiments.science.tasks.task import Task, fit

MATRIX = np.array([[-0.1, 2.0], [-2.0, -0.1]])
END = 3.0


def spiral(starts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Trajectories of dy/dt = A y^3, to 1e-10.

    Args:
      starts: (n, 2) at time 0.
      times: (m,) from 0.

    Returns:
      (n, m, 2) float64.
    """

    def slope(_: float, state: np.ndarray) -> np.ndarray:
        return (state.reshape(-1, 2) ** 3 @ MATRIX.T).ravel()

    ends = (0.0, float(times[-1]))
    solved = integrate.solve_ivp(
        slope, ends, starts.ravel(), "DOP853", times, rtol=1e-11, atol=1e-11
    )
    return solved.y.T.reshape(len(times), -1, 2).swapaxes(0, 1)


def task(
    width: int = 32,
    depth: int = 2,
    dtype: Any = jnp.float32,
    trajectories: int = 24,
    steps: int = 30,
    batch_size: int = 8,
) -> Task:
    """Fits the states at `steps` times; 16 other trajectories are held out."""
    generator = np.random.default_rng(0)
    radius = generator.uniform(0.5, 1.8, trajectories + 16)
    angle = generator.uniform(0, 2 * np.pi, trajectories + 16)
    starts = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    times = np.linspace(0, END, steps + 1)
    rows = {
        "starts": jnp.asarray(starts, dtype),
        "states": jnp.asarray(spiral(starts, times)[:, 1:], dtype),
    }

    def misfit(params: networks.Layers, points: dict[str, jax.Array]) -> jax.Array:
        solved = integrate_network(params, points["starts"], jnp.asarray(times, dtype))
        return solved[:, 1:] - points["states"]

    init = functools.partial(
        networks.init_perceptron, widths=networks.sizes(2, width, depth, 2), dtype=dtype
    )
    return fit("neural_ode", init, misfit, rows, "states", trajectories, batch_size)


def integrate_network(params: networks.Layers, starts: jax.Array, times: jax.Array) -> jax.Array:
    """Follows dy/dt = network(y) with a step of Tsitouras' method from each time to the next.

    Args:
      params: a network from 2 to 2 numbers.
      starts: (n, 2) states at the first time.
      times: (m,).

    Returns:
      (n, m, 2) states at all times.
    """
    term = diffrax.ODETerm(lambda t, y, layers: networks.perceptron(layers, y))
    solver = diffrax.Tsit5(scan_kind="bounded")  # Forward and reverse mode both work.

    def advance(carry: tuple[jax.Array, Any], ends: tuple[jax.Array, jax.Array]):
        state, held = carry
        state, _, _, held, _ = solver.step(term, *ends, state, params, held, made_jump=False)
        return (state, held), state

    held = solver.init(term, times[0], times[1], starts, params)
    _, states = jax.lax.scan(advance, (starts, held), (times[:-1], times[1:]))
    return jnp.concatenate([starts[:, None], jnp.swapaxes(states, 0, 1)], 1)
