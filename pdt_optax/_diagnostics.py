"""What a PDT state tells about the last prediction."""

from typing import Any, NamedTuple

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np
import optax

from pdt_optax._layout import SmallLeaf
from pdt_optax._state import PDTState


class Metrics(NamedTuple):
    """Diagnostics of :func:`pdt_optax.pdt`; made by :func:`pdt_optax.metrics`.

    What speaks of the last prediction is zero before it, `jump_candidate` -1.
    ``G`` is the number of groups of leaves (`scope`), ``h`` the history,
    `rank` + 1 of :class:`pdt_optax.Streaming`.

    Attributes:
      snapshots: int32, snapshots held, at most ``h``; seen, with
        :class:`pdt_optax.Streaming`.
      predictions: int32, predictions made.
      last_prediction: int32, the snapshot period at whose end it was made.
      mask_ratio: float32, accepted share of all coordinates. Those do not count whose
        prediction is, bit for bit, the optimizer's own update.
      mask_ratio_per_leaf: accepted share of each floating-point leaf, a tree
        like the parameters with :class:`optax.MaskedNode` for the others.
      prediction_error: float32, ``||p_1 - w_opt|| / ||d||``: error of the
        prediction one snapshot ahead in units of the optimizer's move; inf if only
        the optimizer did not move. With :class:`pdt_optax.Solve` ``abs(1 - g)``, ``g`` the
        gain in loss relative to the gain of its quadratic model.
      eigenvalues: complex, shape ``(G, h-1)``, of the DMD operators, largest
        modulus first; zero outside the rank. With :class:`pdt_optax.Solve` ``(G, 0)``.
      spectral_radius: shape ``(G,)``, largest modulus of the eigenvalues.
      rejected: bool, whether no coordinate was accepted.
      jump_candidate: int32, the candidate that was taken, counted over horizons within
        predictors of :class:`pdt_optax.Verify` (by default 0, 1, 2 are DMD 2, 5 and 20
        snapshots ahead, 3, 4, 5 the straight line); 0 for the only one without it; -1
        for the optimizer's own result.
      value_calls: int32, calls of ``value_fn`` so far; with :class:`pdt_optax.Solve` two an
        event, where it is linearised and where it is compared.
      damping: float32, of the next event of :class:`pdt_optax.Solve`; otherwise zero.
      jump_horizon: with :class:`pdt_optax.Adaptive` float32, greatest number of snapshots
        ahead now; otherwise None.
      jump_interval: likewise int32, least number of periods without a prediction now.
      bad_jumps: likewise int32, jumps after which the ``value`` passed to ``update`` rose
        or was not finite.
    """

    snapshots: jax.Array
    predictions: jax.Array
    last_prediction: jax.Array
    mask_ratio: jax.Array
    mask_ratio_per_leaf: Any
    prediction_error: jax.Array
    eigenvalues: jax.Array
    spectral_radius: jax.Array
    rejected: jax.Array
    jump_candidate: jax.Array
    value_calls: jax.Array
    damping: jax.Array
    jump_horizon: jax.Array | None
    jump_interval: jax.Array | None
    bad_jumps: jax.Array | None


def metrics(opt_state: Any) -> Metrics:
    """Finds the PDT state inside an optimizer state and reads its diagnostics.

    The eigenvalues are computed here, never in the training step: on the host,
    or under ``jit`` with ``jnp.linalg.eigvals``, which TPUs do not have.

    Args:
      opt_state: state of any optax transformation with one
        :func:`pdt_optax.pdt` in it, a flax ``nnx.Optimizer``'s or ``TrainState`` too.

    Returns:
      The diagnostics.

    Raises:
      ValueError: if `opt_state` holds no :class:`pdt_optax.PDTState`, or several.

    Examples:
      >>> import jax.numpy as jnp, optax, pdt_optax
      >>> tx = optax.chain(optax.adam(1e-3), pdt_optax.pdt(snapshot_every=10))
      >>> state = tx.init({"w": jnp.ones(3)})
      >>> pdt_optax.metrics(state).mask_ratio_per_leaf
      {'w': Array(0., dtype=float32)}
    """
    state = find(opt_state)
    report = state.report
    traced = isinstance(report.operators, Tracer)
    eigvals = jnp.linalg.eigvals if traced else np.linalg.eigvals
    eigenvalues = jnp.asarray(eigvals(report.operators) + 0j)
    modulus = jnp.abs(eigenvalues)
    eigenvalues = jnp.take_along_axis(eigenvalues, jnp.argsort(-modulus, axis=-1), axis=-1)
    ratios = jnp.moveaxis(jnp.asarray(report.leaf_mask_ratio), -1, 0)
    history, schedule = state.history, state.schedule
    most = jnp.iinfo(jnp.int32).max if history.stream else len(history.rows.ring) + 1
    return Metrics(
        snapshots=jnp.minimum(history.snapshots_taken, most),
        predictions=state.predictions,
        last_prediction=state.last_prediction,
        mask_ratio=report.mask_ratio,
        mask_ratio_per_leaf=_per_leaf(history.anchor, ratios),
        prediction_error=report.prediction_error,
        eigenvalues=eigenvalues,
        spectral_radius=modulus.max(axis=-1, initial=0),
        rejected=(state.predictions > 0) & (report.mask_ratio == 0),
        jump_candidate=report.jump_candidate,
        value_calls=report.value_calls,
        damping=report.damping,
        jump_horizon=schedule and schedule.jump_horizon,
        jump_interval=schedule and schedule.jump_interval,
        bad_jumps=schedule and schedule.bad_jumps,
    )


def _per_leaf(anchor: Any, values: Any) -> Any:
    """A tree like the parameters with a value for each leaf that takes part."""
    values = iter(values)

    def value(node):
        takes_part = isinstance(node, SmallLeaf) or not isinstance(node, optax.MaskedNode)
        return next(values) if takes_part else node

    return jax.tree.map(value, anchor, is_leaf=lambda node: isinstance(node, optax.MaskedNode))


def find(opt_state: Any, name: str = "opt_state") -> PDTState:
    """The only PDT state inside an optimizer state."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, PDTState))
    states = [leaf for leaf in leaves if isinstance(leaf, PDTState)]
    if len(states) != 1:
        raise ValueError(
            f"`{name}` must hold exactly one PDTState, got {len(states)}. With several, pass "
            "the part of the optimizer state that holds the one you want."
        )
    return jax.tree.map(
        lambda leaf: leaf.get_value() if _is_variable(leaf) else leaf,
        states[0],
        is_leaf=_is_variable,
    )


def _is_variable(node: Any) -> bool:
    """Whether it is an ``nnx.Variable``, as a flax ``nnx.Optimizer`` has in the place of arrays."""
    return hasattr(node, "get_value")
