"""The masks of IRE and of its controls: estimator of the curvature -> what is ranked by."""

from collections.abc import Callable, Mapping

import jax
import optax

Estimator = optax.GradientTransformationExtraArgs


def _sharp(curvature: Estimator) -> Estimator:
    """The reciprocal, so that the sharpest coordinates count as the flattest."""

    def update_fn(updates, state, params=None, **extra_args):
        found, state = curvature.update(updates, state, params, **extra_args)
        return jax.tree.map(lambda h: 1 / (h + 1e-30), found), state

    return Estimator(curvature.init, update_fn)


def _random(curvature: Estimator) -> Estimator:
    """Uniform numbers, so that the mask is random."""
    del curvature

    def update_fn(updates, state, params=None, **extra_args):
        del updates, extra_args
        assert params is not None
        key, draw = jax.random.split(state)
        return optax.tree.random_like(draw, params, jax.random.uniform), key

    return Estimator(lambda params: jax.random.key(1), update_fn)


MASKS: Mapping[str, Callable[[Estimator], Estimator]] = {
    "flat": lambda curvature: curvature,
    "random": _random,
    "sharp": _sharp,
}
