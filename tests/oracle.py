"""A slow, obvious oracle of predictive differential training in float64 NumPy.

Everything is written down from the equations: N-sized singular value decompositions, complex modes
and their pseudo-inverse. A history is a matrix of shape (N, h), the newest snapshot last; a path is
a matrix of shape (horizon, N) that holds the displacements D_k = p_k - s_h.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

PREDICTORS = ("dmd", "affine_dmd", "linear", "last_increment", "average")
PRESETS = ("paper", "bounded", "reference")


def truncation_rank(sigma: np.ndarray, shape: tuple[int, int], svd_rank: float) -> int:
    """Number of singular values kept: PyDMD's rule, and never beyond the numerical rank."""
    if svd_rank == 0:
        beta = min(shape) / max(shape)
        omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
        rank = max(1, int(np.sum(sigma > omega * np.median(sigma))))
    elif 0 < svd_rank < 1:
        energy = np.cumsum(sigma**2) / np.sum(sigma**2)
        rank = int(np.searchsorted(energy, svd_rank)) + 1
    elif svd_rank >= 1:
        rank = int(svd_rank)
    else:
        rank = len(sigma)
    numerical_rank = int(np.sum(sigma > max(shape) * np.finfo(sigma.dtype).eps * sigma[0]))
    return min(rank, numerical_rank)


def dmd_fit(
    x: np.ndarray, y: np.ndarray, svd_rank: float = -1, exact: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Modes (N, r) and eigenvalues (r,) of the DMD operator that maps the columns of x to y."""
    u, sigma, vt = np.linalg.svd(x, full_matrices=False)
    r = truncation_rank(sigma, x.shape, svd_rank)
    u, sigma, v = u[:, :r], sigma[:r], vt[:r].T
    eigenvalues, vectors = np.linalg.eig(u.T @ y @ v / sigma)
    modes = (y @ v / sigma) @ vectors if exact else u @ vectors
    return modes, eigenvalues


def dmd_path(
    x: np.ndarray, y: np.ndarray, newest: np.ndarray, horizon: int, svd_rank: float, exact: bool
) -> np.ndarray:
    """Re(Phi (L^k - I) Phi^+ newest) for k = 1..horizon."""
    modes, eigenvalues = dmd_fit(x, y, svd_rank, exact)
    amplitudes = np.linalg.pinv(modes) @ newest
    return np.stack(
        [(modes @ ((eigenvalues**k - 1) * amplitudes)).real for k in range(1, horizon + 1)]
    )


def predicted_path(
    predictor: str,
    snapshots: np.ndarray,
    horizon: int,
    svd_rank: float = -1,
    exact: bool = True,
) -> np.ndarray:
    """Displacements D_1..D_horizon from the newest snapshot."""
    newest, h = snapshots[:, -1], snapshots.shape[1]
    steps = np.arange(1, horizon + 1)[:, None]
    if predictor == "dmd":
        return dmd_path(snapshots[:, :-1], snapshots[:, 1:], newest, horizon, svd_rank, exact)
    if predictor == "affine_dmd":
        delta = np.diff(snapshots, axis=1)
        changes = dmd_path(delta[:, :-1], delta[:, 1:], delta[:, -1], horizon, svd_rank, exact)
        return np.cumsum(delta[:, -1] + changes, axis=0)
    if predictor == "linear":
        return steps * (newest - snapshots[:, 0]) / (h - 1)
    if predictor == "last_increment":
        return steps * (newest - snapshots[:, -2])
    if predictor == "average":
        return np.tile(snapshots.mean(axis=1) - newest, (horizon, 1))
    raise ValueError(f"predictor must be one of {PREDICTORS}, got {predictor!r}")


def predicted_path_by_group(
    predictor: str,
    snapshots: np.ndarray,
    horizon: int,
    svd_rank: float = -1,
    exact: bool = True,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """As `predicted_path`, with a fit of its own for the coordinates of each group."""
    if groups is None:
        return predicted_path(predictor, snapshots, horizon, svd_rank, exact)
    path = np.empty((horizon, snapshots.shape[0]))
    for group in np.unique(groups):
        member = groups == group
        path[:, member] = predicted_path(predictor, snapshots[member], horizon, svd_rank, exact)
    return path


def mask_and_slack(
    preset: str, path: np.ndarray, move: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mask of a preset, and by how much each coordinate would have to change to flip it."""
    horizon, size = len(path), np.abs(move)
    reach = np.abs(path[-1])
    if preset == "paper":
        magnitude = [reach - horizon * size]
        direction = np.diff(path, axis=0, prepend=0.0)
    elif preset == "bounded":
        magnitude = [reach - size, horizon * size - reach]
        direction = np.diff(path, axis=0, prepend=0.0)
    elif preset == "reference":
        magnitude = [reach - size, (horizon + 1) * size - reach]
        direction = path[-1:]
    else:
        raise ValueError(f"preset must be one of {PRESETS}, got {preset!r}")
    long_enough = np.min(magnitude, axis=0)
    along = np.min(np.sign(move) * direction, axis=0)
    eligible = (move != 0) & np.all(np.isfinite(path), axis=0)
    mask = eligible & (long_enough >= 0) & (along > 0)
    slack = np.where(eligible, np.abs(np.minimum(long_enough, along)), np.inf)
    return mask, slack


class Event(NamedTuple):
    """One prediction of a run."""

    t: int
    snapshots: np.ndarray
    move: np.ndarray
    path: np.ndarray
    mask: np.ndarray
    slack: np.ndarray


class Run:
    """Algorithm 1: `step` takes what the optimizer did in a period, returns the merged weights."""

    def __init__(
        self,
        initial: np.ndarray,
        *,
        history: int = 5,
        horizon: int = 5,
        start: int = 5,
        interval: int = 1,
        preset: str = "paper",
        predictor: str = "dmd",
        svd_rank: float | None = None,
        exact: bool = True,
        groups: np.ndarray | None = None,
    ):
        self.history, self.horizon, self.start, self.interval = history, horizon, start, interval
        self.preset, self.predictor, self.exact, self.groups = preset, predictor, exact, groups
        self.svd_rank = svd_rank if svd_rank is not None else 0 if preset == "reference" else -1
        self.weights = [np.asarray(initial, np.float64)]
        self.events: list[Event] = []

    def is_due(self) -> bool:
        """Whether the period that ends next makes a prediction."""
        t = len(self.weights)
        rested = not self.events or t - self.events[-1].t > self.interval
        return t >= self.start and t >= self.history and rested

    def step(self, move: np.ndarray) -> np.ndarray:
        """w(t) from d = w_opt(t) - w(t-1)."""
        move = np.asarray(move, np.float64)
        merged = self.weights[-1] + move
        if self.is_due():
            snapshots = np.stack(self.weights[-self.history :], axis=1)
            path = predicted_path_by_group(
                self.predictor, snapshots, self.horizon, self.svd_rank, self.exact, self.groups
            )
            mask, slack = mask_and_slack(self.preset, path, move)
            self.events.append(Event(len(self.weights), snapshots, move, path, mask, slack))
            merged = np.where(mask, self.weights[-1] + path[-1], merged)
        self.weights.append(merged)
        return merged

    def replay(self, moves: Iterable[np.ndarray]) -> np.ndarray:
        """The weights after all the moves."""
        for move in moves:
            self.step(move)
        return self.weights[-1]


TOY_START = np.array([2.0, 2.0, 1.0, 0.5, -0.5, 1.5])


def toy_loss(p: np.ndarray) -> float:
    """x^2 + y^2 + sin z + u^2 - cos v + w^2 + x y + y sin z + u v w."""
    x, y, z, u, v, w = p
    return x**2 + y**2 + np.sin(z) + u**2 - np.cos(v) + w**2 + x * y + y * np.sin(z) + u * v * w


def toy_gradient(p: np.ndarray) -> np.ndarray:
    """The gradient of `toy_loss`."""
    x, y, z, u, v, w = p
    return np.array(
        [
            2 * x + y,
            2 * y + x + np.sin(z),
            np.cos(z) * (1 + y),
            2 * u + v * w,
            np.sin(v) + u * w,
            2 * w + u * v,
        ]
    )
