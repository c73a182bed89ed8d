"""A photograph as a function of place, learned by a SIREN.

Sitzmann et al. (2020), "Implicit neural representations with periodic activation functions".
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from skimage import data, transform

from experiments.science.tasks import networks
from experiments.science.tasks.task import Field, Task, mean_residual, mini_batch, sum_of_squares

HELD_OUT = 0.25


def task(
    width: int = 48,
    depth: int = 2,
    dtype: Any = jnp.float32,
    resolution: int = 64,
    batch_size: int = 1024,
) -> Task:
    """The camera man at `resolution` squared; three quarters of the pixels are fitted.

    Brightness is from -1 to 1 in the loss. The error is the root mean square over the other pixels
    as a share of the range, so that PSNR = -20 log10(error) decibels.
    """
    photograph = np.asarray(data.camera(), np.float64) / 255
    shrunk = transform.resize(photograph, (resolution, resolution), anti_aliasing=True)
    picture = np.flipud(2 * np.asarray(shrunk) - 1)  # Row 0 lowest.
    axis = np.linspace(-1, 1, resolution)
    places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    order = np.random.default_rng(0).permutation(len(places))
    held_out, train = np.split(order, [round(HELD_OUT * len(order))])

    def rows(chosen: np.ndarray) -> dict[str, jax.Array]:
        brightness = picture.reshape(-1)[chosen]
        return {
            "places": jnp.asarray(places[chosen], dtype),
            "brightness": jnp.asarray(brightness, dtype),
        }

    everywhere, points, tests = rows(np.arange(len(places))), rows(train), rows(held_out)

    def misfit(params: networks.Layers, points: dict[str, jax.Array]) -> jax.Array:
        return networks.siren(params, points["places"])[:, 0] - points["brightness"]

    def residuals(params: networks.Layers, points: dict[str, jax.Array]) -> jax.Array:
        return mean_residual(misfit(params, points))

    def predict(params: networks.Layers) -> jax.Array:
        return networks.siren(params, everywhere["places"]).reshape(resolution, resolution)

    return Task(
        name="image",
        init=functools.partial(
            networks.init_siren, widths=networks.sizes(2, width, depth, 1), dtype=dtype
        ),
        points=points,
        sample=mini_batch(points, batch_size),
        value=sum_of_squares(residuals),
        error=lambda params: jnp.sqrt(jnp.mean(misfit(params, tests) ** 2)) / 2,
        error_name="held-out RMSE, share of the range",
        residuals=residuals,
        field=Field(predict, picture, (-1, 1, -1, 1), ("x", "y"), is_photograph=True),
    )
