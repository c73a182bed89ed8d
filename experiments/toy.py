"""The paper's example in six variables (Sec. 3, Figs. 7 and 8), in float64.

Counts the steps until f <= 0.1 of

  f = x^2 + y^2 + sin z + u^2 - cos v + w^2 + x y + y sin z + u v w

from (2, 2, 1, 0.5, -0.5, 1.5), prints them, and draws the trajectories and the losses.

Example:
  python -m experiments.toy --run_dir=runs/toy
"""

from collections.abc import Mapping
import functools
import textwrap
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np
import optax

from experiments import cli
from experiments.settings import Config, setting
import pdt_optax

START = (2.0, 2.0, 1.0, 0.5, -0.5, 1.5)
TARGET = 0.1
LEARNING_RATE = 0.01
MAX_STEPS = 1000
RATES = np.array([3, 3, 3, 1, 1, 1])

GRADIENT_DESCENT = optax.sgd(LEARNING_RATE)
ARMS: Mapping[str, optax.GradientTransformation] = {
    "gradient descent": GRADIENT_DESCENT,
    "x, y, z at three times the step": optax.chain(
        GRADIENT_DESCENT, optax.stateless_with_tree_map(lambda u, _: u * RATES)
    ),
    "PDT bounded, history 4, interval 0": optax.chain(
        GRADIENT_DESCENT, pdt_optax.pdt(1, pdt_optax.Extrapolate("bounded", history=4, interval=0))
    ),
    "PDT bounded": optax.chain(
        GRADIENT_DESCENT, pdt_optax.pdt(1, pdt_optax.Extrapolate("bounded"))
    ),
    "PDT paper": optax.chain(GRADIENT_DESCENT, pdt_optax.pdt(1, pdt_optax.Extrapolate("paper"))),
}
# Colour and line width of each arm; a wide line shows beside a narrow one that covers it.
LINES: Mapping[str, tuple[str, float]] = {
    "gradient descent": ("#b3b3b3", 5),
    "x, y, z at three times the step": ("#009E73", 1.5),
    "PDT bounded, history 4, interval 0": ("#F2B48C", 5),
    "PDT bounded": ("#B03A00", 1.5),
    "PDT paper": ("#0072B2", 1.5),
}


class Settings(Config):
    """Where the figures go."""

    run_dir: str = setting("runs/toy", "Folder of the two figures.")


class Descent(NamedTuple):
    """A trajectory from the start to the target; entry k is after k steps.

    Attributes:
      points: (steps + 1, 6) float64.
      losses: (steps + 1,) float64.
    """

    points: np.ndarray
    losses: np.ndarray

    @property
    def steps(self) -> int:
        """Steps it took."""
        return len(self.losses) - 1


def objective(point: Any) -> Any:
    """The function f of (x, y, z, u, v, w), each a scalar or an array; arrays broadcast."""
    x, y, z, u, v, w = point
    squares = x**2 + y**2 + u**2 + w**2
    return squares + jnp.sin(z) - jnp.cos(v) + x * y + y * jnp.sin(z) + u * v * w


@functools.cache
def descend(optimizer: optax.GradientTransformation) -> Descent:
    """Follows an optimizer from the start until the target is reached.

    Raises:
      RuntimeError: if it is not reached in `MAX_STEPS` steps.
    """

    @functools.partial(jax.jit, donate_argnums=1)
    def step(point: Any, state: optax.OptState) -> tuple[Any, optax.OptState]:
        updates, state = optimizer.update(jax.grad(objective)(point), state, point)
        return optax.apply_updates(point, updates), state

    with jax.enable_x64(True):
        point = jnp.array(START)
        state = optimizer.init(point)
        points, losses = [point], [objective(point)]
        while not losses[-1] <= TARGET:
            if len(points) > MAX_STEPS:
                raise RuntimeError(f"f = {losses[-1]:.3g} after {MAX_STEPS} steps.")
            point, state = step(point, state)
            points.append(point)
            losses.append(objective(point))
    return Descent(np.stack(points), np.stack(losses))


def draw_trajectories(descents: Mapping[str, Descent]) -> Figure:
    """Draws each trajectory in the x-y plane, a dot per step, over f.

    The other four variables of the map are those that gradient descent ends with, so that it ends
    at the line f = 0.1.
    """
    figure = Figure(figsize=(12, 3.2), dpi=150, layout="compressed")
    panels = figure.subplots(1, len(descents), sharex=True, sharey=True)
    rest = descents["gradient descent"].points[-1, 2:]
    x, y = np.meshgrid(np.linspace(-0.25, 2.25, 100), np.linspace(-0.25, 2.25, 100))
    values = np.asarray(objective((x, y, *rest)))
    for axes, (name, descent) in zip(panels, descents.items(), strict=True):
        colors = axes.pcolormesh(x, y, values, shading="gouraud", cmap="viridis", rasterized=True)
        axes.contour(x, y, values, levels=[TARGET], colors="white", linestyles="--", linewidths=1)
        axes.plot(*descent.points[:, :2].T, color="white", marker=".", linewidth=0.8, markersize=5)
        axes.set_title(f"{textwrap.fill(name, 20)}\n{descent.steps} steps", size=9)
        axes.set(xlabel="x", aspect="equal")
    panels[0].set_ylabel("y")
    figure.colorbar(
        colors, ax=panels, label=f"f (dashed: {TARGET}), z, u, v, w\nas gradient descent ends"
    )
    return figure


def draw_losses(descents: Mapping[str, Descent]) -> Figure:
    """Draws f against the step."""
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.axhline(TARGET, color="black", linestyle="--", linewidth=1)
    for name, descent in descents.items():
        color, width = LINES[name]
        label = f"{name}: {descent.steps} steps"
        axes.plot(descent.losses, color=color, linewidth=width, label=label)
        axes.plot(descent.steps, descent.losses[-1], "o", color=color, markeredgecolor="white")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set(xlabel="step", ylabel="f")
    axes.legend(frameon=False)
    return figure


def main(config: Settings) -> None:
    """Runs the program."""
    out = cli.folder(config.run_dir)
    descents = {name: descend(optimizer) for name, optimizer in ARMS.items()}
    width = max(map(len, descents))
    for name, descent in descents.items():
        print(f"{name:{width}}  {descent.steps:3} steps  f = {descent.losses[-1]:6.3f}")
    for name, draw in {"trajectories": draw_trajectories, "losses": draw_losses}.items():
        path = out / f"{name}.png"
        draw(descents).savefig(path)
        print(path)


if __name__ == "__main__":
    cli.run(main, Settings)
