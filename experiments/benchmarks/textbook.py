"""An event as textbooks and the authors' code write it: an SVD of all N coordinates, complex modes.

What `experiments.benchmarks.events` compares with. Each function takes the snapshots ``(N, h)``,
where the optimizer arrives ``(N,)``, and the horizon, and returns the merged weights under the
criteria `paper`.
"""

from collections.abc import Callable, Mapping
import functools
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Event = Callable[[Any, Any, int], Any]


def event(xp: Any, snapshots: Any, arrived: Any, horizon: int) -> Any:
    """With `xp`: `jax.numpy` or `torch`."""
    newest = snapshots[:, -1]
    u, s, vt = xp.linalg.svd(snapshots[:, :-1], full_matrices=False)
    lifted = snapshots[:, 1:] @ (vt.T / s)
    eigenvalues, vectors = xp.linalg.eig(u.T @ lifted)
    modes = (lifted + 0j) @ vectors
    amplitudes = xp.linalg.pinv(modes) @ (newest + 0j)
    powers = eigenvalues ** xp.arange(1, horizon + 1)[:, None]
    path = (modes @ (powers * amplitudes).T).real
    return _merged(xp, newest, arrived, path, horizon)


def pydmd_event(snapshots: np.ndarray, arrived: np.ndarray, horizon: int) -> np.ndarray:
    """With PyDMD."""
    import pydmd

    model: Any = pydmd.DMD(svd_rank=-1, exact=True, opt=False).fit(snapshots)
    newest = snapshots[:, -1]
    amplitudes = np.linalg.pinv(model.modes) @ newest
    powers = model.eigs ** np.arange(1, horizon + 1)[:, None]
    path = (model.modes @ (powers * amplitudes).T).real
    return _merged(np, newest, arrived, path, horizon)


def available() -> Mapping[str, tuple[Event, Callable[[np.ndarray], Any]]]:
    """Those whose packages are installed, with how they want their arrays."""
    with_jax = jax.jit(functools.partial(event, jnp), static_argnums=2)
    found: dict[str, tuple[Event, Callable[[np.ndarray], Any]]] = {"JAX": (with_jax, jnp.asarray)}
    if importlib.util.find_spec("torch"):
        torch = importlib.import_module("torch")
        found["torch"] = (functools.partial(event, torch), torch.from_numpy)
    if importlib.util.find_spec("pydmd"):
        found["PyDMD"] = (pydmd_event, lambda array: array)
    return found


def _merged(xp: Any, newest: Any, arrived: Any, path: Any, horizon: int) -> Any:
    move = arrived - newest
    steps = path[:, 1:] - path[:, :-1]
    signs = (xp.sign(steps) == xp.sign(move)[:, None]).all(1)
    signs &= xp.sign(path[:, 0] - newest) == xp.sign(move)
    far = abs(path[:, -1] - newest) >= horizon * abs(move)
    return xp.where(signs & far, path[:, -1], arrived)
