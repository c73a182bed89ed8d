"""The two networks of all tasks: tanh perceptrons and SIRENs, on whole batches of points."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

Layers = list[dict[str, jax.Array]]
SIREN_FREQUENCY = 30.0


def sizes(inputs: int, width: int, depth: int, outputs: int) -> list[int]:
    """Widths of all layers of a network with `depth` hidden ones."""
    return [inputs, *[width] * depth, outputs]


def init_perceptron(key: jax.Array, widths: Sequence[int], dtype: jnp.dtype) -> Layers:
    """Normal weights of variance 1 / inputs as in LeCun et al. (1998), biases 0."""
    keys = jax.random.split(key, len(widths) - 1)
    return [
        {
            "w": np.sqrt(1 / into).astype(dtype) * jax.random.normal(k, (into, out), dtype),
            "b": jnp.zeros(out, dtype),
        }
        for k, into, out in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def perceptron(layers: Layers, inputs: jax.Array) -> jax.Array:
    """(rows, inputs) -> (rows, outputs), tanh between the layers."""
    for layer in layers[:-1]:
        inputs = jnp.tanh(inputs @ layer["w"] + layer["b"][None])
    return inputs @ layers[-1]["w"] + layers[-1]["b"][None]


def init_siren(key: jax.Array, widths: Sequence[int], dtype: jnp.dtype) -> Layers:
    """Uniform weights as in Sitzmann et al. (2020), section 3.2, biases 0."""
    keys = jax.random.split(key, len(widths) - 1)
    limits = [1 / widths[0], *(np.sqrt(6 / into) / SIREN_FREQUENCY for into in widths[1:-1])]
    return [
        {
            "w": jax.random.uniform(k, (into, out), dtype, -limit, limit),
            "b": jnp.zeros(out, dtype),
        }
        for k, into, out, limit in zip(keys, widths[:-1], widths[1:], limits, strict=True)
    ]


def siren(layers: Layers, inputs: jax.Array) -> jax.Array:
    """(rows, inputs) -> (rows, outputs), sines of frequency 30 between the layers."""
    for layer in layers[:-1]:
        inputs = jnp.sin(SIREN_FREQUENCY * (inputs @ layer["w"] + layer["b"][None]))
    return inputs @ layers[-1]["w"] + layers[-1]["b"][None]
