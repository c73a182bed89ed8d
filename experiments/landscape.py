r"""Trajectories over the loss landscape, in two principal directions (after Fig. 1 of the paper).

Trains the fully connected network with and without PDT and keeps the weights of every epoch. The
plane is that of the first two principal components of all of them (Li et al., 2018,
https://arxiv.org/abs/1712.09913); the loss on it is that of some training images.

Example:
  python -m experiments.landscape --run_dir=runs/landscape
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import matplotlib
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
import numpy as np
import optax
from sklearn.decomposition import PCA

from experiments import cli
from experiments.data import mnist5k
from experiments.models import MODELS
from experiments.reports.figures import COLORS, STYLE
from experiments.runs import workloads
from experiments.runs.step import TrainState, train_step
from experiments.runs.workloads import Workload
from experiments.settings import Config, setting
import pdt_optax

_BATCH, _SCORED, _SHOWN, _POINTS, _MARGIN = 256, 512, 1000, 31, 0.15


class Settings(Config):
    """What is trained, and where the picture goes."""

    run_dir: str = setting("runs/landscape", "Folder of the picture.")
    epochs: int = setting(60, "Epochs of each run.", least=6)
    seed: int = setting(0, "Of network and batches.", least=0)
    learning_rate: float = setting(0.01, "Of SGD.", above=0)


class Plane(NamedTuple):
    """The loss on a plane through the weights.

    Attributes:
      paths: run -> its epochs in the plane, ``(epochs + 1, 2)``.
      explained: part of the variance that each direction holds, ``(2,)``.
      axes: coordinates along the two directions, ``(2, points)``.
      losses: entry [i, j] is at the i-th coordinate along the second, j-th along the first.
    """

    paths: Mapping[str, np.ndarray]
    explained: np.ndarray
    axes: np.ndarray
    losses: np.ndarray


def main(config: Settings) -> None:
    """Runs the program."""
    out = cli.folder(config.run_dir)
    workload = workloads.create(MODELS["fcn"], mnist5k.load())
    every = workload.dataset.steps_per_epoch(_BATCH)
    sgd = optax.sgd(config.learning_rate)
    verified = pdt_optax.pdt(every, pdt_optax.Verify())
    runs = {
        name: trajectory(workload, optimizer, config.seed, config.epochs)
        for name, optimizer in {
            "base": sgd,
            "paper": optax.chain(sgd, pdt_optax.pdt(every)),
            "verified": optax.chain(sgd, verified),
        }.items()
    }
    found = plane(workload, runs, config.seed)
    draw(found).savefig(out / "landscape.png", dpi=150)
    print(out / "landscape.png")


def trajectory(
    workload: Workload, optimizer: optax.GradientTransformation, seed: int, epochs: int
) -> np.ndarray:
    """Trains, and returns the weights before training and after each epoch, ``(epochs + 1, N)``."""
    params, model_state = workload.init(seed)
    state = TrainState(params, model_state, optimizer.init(params))
    step = jax.jit(train_step(workload.loss, optimizer, workload.score), donate_argnums=0)
    scored = next(workload.dataset.epoch_batches(seed, 0, _SCORED))
    weights = [np.asarray(ravel_pytree(params)[0])]
    for epoch in range(1, epochs + 1):
        for batch in workload.dataset.epoch_batches(seed, epoch, _BATCH):
            state = step(state, batch, scored)
        weights.append(np.asarray(ravel_pytree(state.params)[0]))
    return np.stack(weights)


def plane(workload: Workload, runs: Mapping[str, np.ndarray], seed: int) -> Plane:
    """Finds the plane of the runs and the loss on a grid around them.

    Args:
      workload: what was trained.
      runs: run -> its weights, ``(epochs + 1, N)``.
      seed: of the training images whose loss is shown.
    """
    components = PCA(2, svd_solver="randomized", random_state=0)
    joint = components.fit_transform(np.concatenate(list(runs.values())))
    ends = np.cumsum([len(weights) for weights in runs.values()])[:-1]
    low, high = joint.min(axis=0), joint.max(axis=0)
    room = _MARGIN * (high - low)
    axes = np.linspace(low - room, high + room, _POINTS).T

    params, model_state = workload.init(seed)
    restore = ravel_pytree(params)[1]
    images = next(workload.dataset.epoch_batches(seed, 0, _SHOWN))
    center, directions = map(jnp.asarray, (components.mean_, components.components_))

    @jax.jit
    def loss(place: jax.Array) -> jax.Array:
        return workload.score(restore(center + place @ directions), model_state, images)

    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2).astype(center.dtype)
    losses = np.array([loss(place) for place in grid]).reshape(_POINTS, _POINTS)
    return Plane(
        dict(zip(runs, np.split(joint, ends), strict=True)),
        components.explained_variance_ratio_,
        axes,
        losses,
    )


@matplotlib.rc_context(STYLE)
def draw(found: Plane) -> Figure:
    """Contours of the loss, and the path of each run; a dot is an epoch."""
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axes = figure.subplots()
    levels = np.geomspace(found.losses.min(), found.losses.max(), 16)
    norm = LogNorm(levels[0], levels[-1])
    filled = axes.contourf(*found.axes, found.losses, levels, cmap="Greys", norm=norm, alpha=0.6)
    decades = 10.0 ** np.arange(np.ceil(np.log10(levels[0])), np.log10(levels[-1]))
    bar = figure.colorbar(filled, ax=axes, label="train loss", format="{x:g}", ticks=decades)
    bar.outline.set_visible(False)
    for name, path in found.paths.items():
        color = COLORS[name]
        axes.plot(*path.T, "-o", color=color, markersize=3, linewidth=1.4, label=name)
        axes.plot(*path[-1], "*", color=color, markersize=13, markeredgecolor="white")
    axes.plot(*next(iter(found.paths.values()))[0], "ks", markersize=6)
    first, second = (f"{100 * part:.0f} % of the variance" for part in found.explained)
    axes.set(xlabel=f"first direction, {first}", ylabel=f"second direction, {second}")
    axes.grid(visible=False)
    axes.legend(frameon=False)
    note = "Square: initialisation. Dot: an epoch. Star: the last one."
    figure.supxlabel(note, x=0.01, ha="left", size=9)
    return figure


if __name__ == "__main__":
    cli.run(main, Settings)
