"""An event as textbooks and the authors' code write it: an SVD of all N coordinates, complex modes.

What `experiments.bench` compares with. Each function takes the snapshots ``(N, h)``, where the
optimizer arrives ``(N,)``, and the horizon, and returns the merged weights under the criteria
`paper`.
"""

from collections.abc import Callable, Mapping
import functools
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Event = Callable[[Any, Any, int], Any]


@functools.partial(jax.jit, static_argnames="horizon")
def jax_event(snapshots: jax.Array, arrived: jax.Array, horizon: int) -> jax.Array:
    """With `jax.numpy`."""
    newest = snapshots[:, -1]
    u, s, vt = jnp.linalg.svd(snapshots[:, :-1], full_matrices=False)
    lifted = snapshots[:, 1:] @ (vt.T / s)
    eigenvalues, vectors = jnp.linalg.eig(u.T @ lifted)
    modes = lifted.astype(vectors.dtype) @ vectors
    amplitudes = jnp.linalg.pinv(modes) @ newest.astype(modes.dtype)
    powers = eigenvalues ** jnp.arange(1, horizon + 1)[:, None]
    path = (modes @ (powers * amplitudes).T).real
    return _merged(jnp, newest, arrived, path, horizon)


def torch_event(snapshots: Any, arrived: Any, horizon: int) -> Any:
    """With PyTorch."""
    import torch

    newest = snapshots[:, -1]
    u, s, vt = torch.linalg.svd(snapshots[:, :-1], full_matrices=False)
    lifted = snapshots[:, 1:] @ (vt.T / s)
    eigenvalues, vectors = torch.linalg.eig(u.T @ lifted)
    modes = lifted.to(vectors.dtype) @ vectors
    amplitudes = torch.linalg.pinv(modes) @ newest.to(modes.dtype)
    powers = eigenvalues ** torch.arange(1, horizon + 1)[:, None]
    path = (modes @ (powers * amplitudes).T).real
    return _merged(torch, newest, arrived, path, horizon)


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
    found: dict[str, tuple[Event, Callable[[np.ndarray], Any]]] = {"JAX": (jax_event, jnp.asarray)}
    if importlib.util.find_spec("torch"):
        import torch

        found["torch"] = (torch_event, torch.from_numpy)
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
