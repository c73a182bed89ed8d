"""How flat a loss is: trace of its Hessian by Hutchinson's method, top eigenvalue by ARPACK."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import HutchinsonState
from scipy.sparse.linalg import LinearOperator, eigsh

Loss = Callable[[Any], jax.Array]


class Estimate(NamedTuple):
    """A mean and its standard error."""

    mean: float
    error: float


def trace(loss: Loss, params: Any, key: jax.Array, num_probes: int = 64) -> Estimate:
    """Estimates the trace of the Hessian of `loss` at `params` from at least two random probes."""
    diagonal = optax.contrib.hutchinson_estimator_diag_hessian()

    def probe(key: jax.Array) -> jax.Array:
        state = HutchinsonState(key)
        return jnp.asarray(optax.tree.sum(diagonal.update(params, state, params, obj_fn=loss)[0]))

    draws = np.asarray(
        jax.jit(lambda keys: jax.lax.map(probe, keys))(jax.random.split(key, num_probes)),
        np.float64,
    )
    return Estimate(float(draws.mean()), float(draws.std(ddof=1) / np.sqrt(num_probes)))


def top_eigenvalue(loss: Loss, params: Any, tolerance: float = 1e-3) -> float:
    """Computes the largest eigenvalue of the Hessian of `loss` at `params`."""
    point, unravel = ravel_pytree(params)

    @jax.jit
    def product(vector: jax.Array) -> jax.Array:
        return jax.jvp(jax.grad(lambda p: loss(unravel(p))), (point,), (vector,))[1]

    def matvec(vector: np.ndarray) -> np.ndarray:
        return np.asarray(product(jnp.asarray(vector, point.dtype).reshape(-1)), np.float64)

    shape = (point.size, point.size)
    operator = LinearOperator(shape=shape, matvec=matvec, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    start = np.random.default_rng(0).standard_normal(point.size)
    options: dict[str, Any] = {"which": "LA", "tol": tolerance, "v0": start}
    return float(eigsh(operator, k=1, **options)[0][0])
