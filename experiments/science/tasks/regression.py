"""Regression with tanh networks: a smooth function in eight variables, and measured tables."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets

from experiments.science.tasks import networks
from experiments.science.tasks.task import Task, fit

RIDGE = 3e-3
"""Of the tables' loss: this times the sum of the squared weights is added.

Of 1e-3, 3e-3 and 1e-2 the one with the least held-out error where L-BFGS ends.
"""


def synthetic(
    width: int = 64,
    depth: int = 2,
    dtype: Any = jnp.float32,
    examples: int = 2000,
    batch_size: int = 512,
) -> Task:
    """A surrogate of a noise-free function of 8 variables, another 1,000 examples held out."""
    inputs = np.random.default_rng(0).uniform(-1, 1, (examples + 1000, 8))
    a, b, c, d, e, f, g, h = inputs.T
    targets = np.sin(2 * a * b) + c**2 * d + np.exp(-(e**2)) + 0.5 * f * np.cos(3 * g) + 0.3 * h
    return _task(
        "regression_synthetic",
        inputs,
        targets[:, None],
        examples,
        (width, depth),
        dtype,
        batch_size,
    )


def tables(
    width: int = 64, depth: int = 2, dtype: Any = jnp.float32, batch_size: int = 128
) -> Task:
    """The largest cells of a biopsy from the means of all, a quarter of the biopsies held out.

    The breast cancer table of scikit-learn (Street, Wolberg and Mangasarian, 1993): 569 biopsies;
    from the mean and the standard error of ten features of the cells the network tells the mean of
    the three largest values of each. Measurements are noisy: the loss has a ridge.
    """
    biopsies: Any = datasets.load_breast_cancer()
    rows = np.random.default_rng(0).permutation(biopsies.data)
    train = len(rows) - len(rows) // 4
    shape, table = (width, depth), (rows[:, :20], rows[:, 20:])
    return _task("regression_tables", *table, train, shape, dtype, batch_size, ridge=RIDGE)


def _task(
    name: str,
    inputs: np.ndarray,
    targets: np.ndarray,
    train: int,
    shape: tuple[int, int],
    dtype: jnp.dtype,
    batch_size: int,
    ridge: float = 0.0,
) -> Task:
    """Fits the first `train` rows; columns are standardized by the train rows."""

    def standard(columns: np.ndarray) -> jax.Array:
        mean, deviation = columns[:train].mean(0), columns[:train].std(0)
        return jnp.asarray((columns - mean) / deviation, dtype)

    rows = {"inputs": standard(inputs), "targets": standard(targets)}
    widths = networks.sizes(inputs.shape[1], *shape, targets.shape[1])

    def misfit(params: networks.Layers, points: dict[str, jax.Array]) -> jax.Array:
        return networks.perceptron(params, points["inputs"]) - points["targets"]

    def decay(params: networks.Layers) -> list[jax.Array]:
        return [np.sqrt(ridge).astype(dtype) * layer["w"] for layer in params]

    init = functools.partial(networks.init_perceptron, widths=widths, dtype=dtype)
    penalty = decay if ridge else None
    return fit(name, init, misfit, rows, "targets", train, batch_size, penalty)
