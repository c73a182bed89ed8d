"""Checks for predictors, criteria and ways of jumping of one's own.

Each raises AssertionError that says what is wrong, and returns nothing. They take seconds:

    def test_mine():
      pdt_optax.testing.check_predictor(mine.predictor)
      pdt_optax.testing.check_criterion(mine.criterion)
      pdt_optax.testing.check_jump(pdt_optax.Extrapolate(mine.criterion, predictor=mine.predictor))
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pdt_optax._jump import Jump
from pdt_optax._transform import pdt
from pdt_optax.criteria import Criterion, Proposal
from pdt_optax.predictors import Gram, Predictor

__all__ = ["check_criterion", "check_jump", "check_predictor"]

_RATES = np.array([0.3, 0.6, 0.9, 0.95, 1.02])
_SIZE = 12


def check_predictor(predictor: Predictor, *, history: int = 5, horizon: int = 5) -> None:
    """Checks a predictor on decaying weights, weights at rest, and weights along one line.

    Its coefficients must have the shape ``(horizon, history)`` and the dtype of the Gram
    matrix, be finite, be the same under ``jit`` and ``vmap``, and not depend on the unit of the
    weights.

    Args:
      predictor: the predictor.
      history: number of snapshots.
      horizon: snapshots to predict.

    Raises:
      AssertionError: if one of these does not hold.

    Examples:
      >>> import pdt_optax
      >>> pdt_optax.testing.check_predictor(pdt_optax.predictors.affine_dmd())
    """
    times = np.arange(history)[:, None]
    decaying = np.resize(_RATES, _SIZE) ** times + np.linspace(-1, 1, _SIZE)
    cases = {
        "decaying weights": decaying,
        "weights at rest": np.ones((history, _SIZE)),
        "weights along one line": np.linspace(1, 2, _SIZE) * (1 + times),
        "weights at zero": np.zeros((history, _SIZE)),
    }
    grams = {name: _gram(snapshots) for name, snapshots in cases.items()}
    found = {name: predictor(gram, horizon) for name, gram in grams.items()}
    for name, coefficients in found.items():
        shape, dtype = (horizon, history), grams[name].matrix.dtype
        told = f"coefficients of {name} must be {dtype} {shape}"
        assert coefficients.shape == shape, f"{told}, got the shape {coefficients.shape}."
        assert coefficients.dtype == dtype, f"{told}, got {coefficients.dtype}."
        assert jnp.isfinite(coefficients).all(), f"coefficients of {name} must be finite."
    gram, coefficients = grams["decaying weights"], found["decaying weights"]
    jitted = jax.jit(predictor, static_argnums=1)(gram, horizon)
    _assert_close(jitted, coefficients, "coefficients under jit must be those without")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grams.values())
    batch = jax.vmap(lambda gram: predictor(gram, horizon))(stacked)
    _assert_close(batch[0], coefficients, "coefficients under vmap must be those without")
    scaled = predictor(_gram(decaying * 1024), horizon)
    _assert_close(scaled, coefficients, "coefficients must not depend on the unit of the weights")


def _gram(snapshots: np.ndarray) -> Gram:
    basis = np.concatenate([np.diff(snapshots, axis=0), snapshots[-1:]])
    return Gram(jnp.asarray(basis @ basis.T, jnp.float32), jnp.asarray(basis.shape[1], jnp.float32))


def check_criterion(criterion: Criterion, *, points: int = 5) -> None:
    """Checks that a criterion is an element-wise function to booleans.

    Args:
      criterion: the criterion.
      points: number of predicted displacements on the path.

    Raises:
      AssertionError: if it is not, or if ``jit`` changes what it says.

    Examples:
      >>> import pdt_optax
      >>> pdt_optax.testing.check_criterion(pdt_optax.criteria.path_sign())
    """
    rng = np.random.default_rng(0)
    move, path = rng.normal(size=64), rng.normal(size=(points, 64)).cumsum(axis=0)

    def proposal(factor: float) -> Proposal:
        """The second half of the coordinates times a factor."""
        scale = np.repeat([1.0, factor], 32)
        arrays = [jnp.asarray(row * scale, jnp.float32) for row in (move, *path)]
        horizon = jnp.asarray(points, jnp.float32)
        return Proposal(arrays[0], tuple(arrays[1:]), horizon, jnp.asarray(1), 0)

    mask = jnp.asarray(criterion(proposal(1.0)))
    assert mask.shape == (64,), f"a mask must have the shape of the move, (64,), got {mask.shape}."
    assert mask.dtype == bool, f"a mask must be boolean, got {mask.dtype}."
    jitted = jax.jit(lambda proposal: criterion(proposal._replace(leaf=0)))(proposal(1.0))
    assert (jitted == mask).all(), "a mask under jit must be the one without."
    others = criterion(proposal(-3.0))[:32]
    assert (others == mask[:32]).all(), "whether one coordinate jumps must not depend on others."


def check_jump(jump: Jump, snapshot_every: int = 2, **extra_args: Any) -> None:
    """Checks a way of jumping on a small problem.

    Before the first jump the updates must be the optimizer's bit for bit, later ones be finite
    where the weights are huge, seeds in ``vmap`` go as each alone, and the state keep its
    structure.

    Args:
      jump: the way of jumping.
      snapshot_every: steps in a period.
      **extra_args: of ``update``; `value_fn` and `residual_fn` are functions from a vector
        of 12 parameters, by default the squares of their distances to 1.

    Raises:
      AssertionError: if one of these does not hold.

    Examples:
      >>> import pdt_optax
      >>> pdt_optax.testing.check_jump(pdt_optax.Solve(history=4))
    """
    slopes = jnp.linspace(0.1, 1.0, _SIZE)

    def residuals(params: jax.Array) -> jax.Array:
        return slopes * (params - 1)

    def loss(params: jax.Array) -> jax.Array:
        return jnp.sum(residuals(params) ** 2)

    given = {"value_fn": loss, **extra_args}
    if jump.takes_residuals:
        given = {"residual_fn": residuals, **given}
    own, jumps = optax.sgd(0.1), pdt(snapshot_every, jump)
    state: Any = jumps.init(slopes)
    first_jump = int(state.steps_until_jump)
    steps = 2 * first_jump + 4 * snapshot_every

    def train(start: jax.Array) -> Any:
        """Parameters after each step, and whether its updates are the optimizer's."""

        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            alone, _ = own.update(grads, own.init(params))
            updates, state = jumps.update(alone, state, params, value=value, **given)
            params = optax.apply_updates(params, updates)
            return (params, state), (params, jax.tree.map(jnp.equal, updates, alone).all())

        return jax.lax.scan(step, (start, jumps.init(start)), length=steps)[1]

    starts = jnp.stack([jnp.linspace(-1, 3, _SIZE), jnp.linspace(2, 0, _SIZE)])
    run, every = jax.jit(train), jax.jit(jax.vmap(train))
    (first, is_own), (second, _) = map(run, starts)
    before = is_own[: first_jump - 1]
    assert before.all(), "before the first jump updates must be the optimizer's, bit for bit."
    found = jnp.stack([first, second, run(starts[0] * 1e25)[0]])
    assert jnp.isfinite(found).all(), "what is not finite must not reach the parameters."
    _assert_close(every(starts)[0], found[:2], "seeds in vmap must go as each alone")


def _assert_close(found: jax.Array, expected: jax.Array, message: str) -> None:
    scale = 1e-3 * (1 + float(jnp.abs(expected).max()))
    largest = float(jnp.abs(found - expected).max())
    assert largest <= scale, f"{message}; they differ by {largest:g}."
