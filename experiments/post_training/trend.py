"""A predictor: a straight line along the one direction that holds most of the way."""

import jax
import jax.numpy as jnp

from pdt_optax.predictors import Gram, Predictor


def trend() -> Predictor:
    r"""Rank one of the displacements since the oldest snapshot, and a regression line.

    With :math:`C_i = s_{i+1} - s_1` and the best approximation :math:`C_i \approx q_i v` by one
    direction, :math:`q_i \approx a i + b` by least squares, and the prediction is

    .. math::
      p_k = s_1 + (a (h - 1 + k) + b) v.

    It starts on the line, not at the newest snapshot: what that has beside the line is dropped.
    With `scope='leaf'` each array has a direction and a line of its own, as in the paper.

    References:
      Wei et al., `You Only Need Minimal RLVR Training
      <https://arxiv.org/abs/2605.21468>`_, 2026
    """

    def predict(gram: Gram, horizon: int) -> jax.Array:
        count, dtype = gram.matrix.shape[-1] - 1, gram.matrix.dtype
        since = jnp.triu(jnp.ones((count, count), dtype))  # Sums of increments.
        products = since.T @ gram.matrix[:-1, :-1] @ since
        coefficients = jnp.linalg.eigh(products)[1][:, -1]
        times = jnp.arange(1, count + 1, dtype=dtype)
        centred = times - times.mean()
        slope = centred @ coefficients / (centred @ centred)
        ahead = count + jnp.arange(1, horizon + 1, dtype=dtype) - times.mean()
        on_line = coefficients.mean() + slope * ahead
        newest = (jnp.arange(count) == count - 1).astype(dtype)
        steps = (on_line[:, None] * coefficients[None] - newest[None]) @ since.T
        return jnp.pad(steps, ((0, 0), (0, 1)))

    return predict
