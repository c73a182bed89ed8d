"""How straight a run of weights is, and where the straight line leads; NumPy, after the fact.

A path is an array (snapshots, coordinates) of one tensor, the first snapshot in front, evenly
spaced in steps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Linearity(NamedTuple):
    """Of the path of one tensor.

    Attributes:
      weights: coefficient of determination of a line through each single weight, the mean of
        those that move (RLVR-Linearity).
      energy: share of the sum of squares of the displacements since the start that one
        direction holds (RELEX).
      trend: coefficient of determination of a line through the coefficient of that direction.
    """

    weights: float
    energy: float
    trend: float


def r_squared(values: np.ndarray) -> np.ndarray:
    """Of a line with intercept through each column, against its number; nan if one is constant."""
    fitted = _line(values, np.arange(len(values)))
    left = ((values - fitted) ** 2).sum(0)
    total = ((values - values.mean(0)) ** 2).sum(0)
    return np.where(total > 0, 1 - left / np.where(total > 0, total, 1), np.nan)


def linearity(path: np.ndarray) -> Linearity:
    """Measures a path; the start itself is in no line, and what rests has zeros."""
    since = (path - path[:1])[1:].astype(np.float64)
    if not since.any():
        return Linearity(0.0, 0.0, 0.0)
    coefficients, _ = _rank_one(since)
    return Linearity(
        weights=float(np.nanmean(r_squared(since))),
        energy=float((coefficients**2).sum() / (since**2).sum()),
        trend=float(r_squared(coefficients[:, None])[0]),
    )


def random_walk(path: np.ndarray, seed: int) -> np.ndarray:
    """A path of the same shape with independent normal increments: what no trend at all gives."""
    steps = np.random.default_rng(seed).normal(size=path.shape)
    return np.cumsum(steps, axis=0)


def relex(path: np.ndarray, time: float) -> np.ndarray:
    """Where the line of the one direction is at a time, counted in snapshots from the start."""
    since = (path - path[:1])[1:].astype(np.float64)
    coefficients, direction = _rank_one(since)
    ahead = _line(coefficients[:, None], np.array([time - 1.0]))[0, 0]
    return path[0] + ahead * direction


def secant(path: np.ndarray, time: float) -> np.ndarray:
    """Where the line from the first to the newest snapshot is at a time (ExPO)."""
    return path[0] + time / (len(path) - 1) * (path[-1] - path[0])


def paths(snapshots: Sequence[Any]) -> dict[str, np.ndarray]:
    """The path of each tensor by its name, from trees of parameters."""
    named = [jax.tree_util.tree_leaves_with_path(tree) for tree in snapshots]
    return {
        jax.tree_util.keystr(leaves[0][0], simple=True, separator="."): np.stack(
            [np.ravel(leaf) for _, leaf in leaves]
        )
        for leaves in zip(*named, strict=True)
    }


def extrapolated(snapshots: Sequence[Any], time: float, way: Any) -> Any:
    """The tree of parameters at a time, each tensor by `relex` or `secant`."""

    def of_tensor(*leaves: Any) -> np.ndarray:
        path = np.stack([np.ravel(leaf) for leaf in leaves])
        return way(path, time).reshape(np.shape(leaves[0])).astype(np.float32)

    return jax.tree.map(of_tensor, *snapshots)


def _rank_one(since: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the best direction, and the direction."""
    left, sizes, right = np.linalg.svd(since, full_matrices=False)
    return left[:, 0] * sizes[0], right[0]


def _line(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The line through rows 0, 1, .. of each column, at some times."""
    numbers = np.arange(len(values)) - (len(values) - 1) / 2
    slopes = numbers @ (values - values.mean(0)) / (numbers @ numbers)
    return values.mean(0) + np.outer(times - (len(values) - 1) / 2, slopes)
