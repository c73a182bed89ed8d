"""What a PDT state tells about the last prediction."""

from typing import Any, NamedTuple

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np
import optax

from pdt_optax._landing import NO_LOSS
from pdt_optax._layout import SmallLeaf
from pdt_optax._state import PDTState


class Metrics(NamedTuple):
    """Diagnostics of :func:`pdt_optax.pdt`; made by :func:`pdt_optax.metrics`.

    Printed, it says in a line what happened and when the next jump can come.
    What speaks of the last prediction is zero before it, `jump_candidate` -1.
    ``G`` is the number of groups of leaves (`scope`), ``h`` the history,
    `rank` + 1 of :class:`pdt_optax.Streaming`.

    Attributes:
      snapshots: int32, snapshots held, at most ``h``; seen, with
        :class:`pdt_optax.Streaming`.
      predictions: int32, predictions made.
      last_prediction: int32, the snapshot period at whose end it was made.
      jumps: int32, predictions after which some coordinate jumped.
      refused: int32, those after which none did.
      jumped: bool, whether the last update jumped.
      steps_until_jump: int32, update calls up to the next that may jump, that one included; at
        most ``2**31 - 1``. More than are left: no jump will come.
      foreign_changes: int32, how often the parameters were others in the step after a snapshot
        than PDT had left. Not zero means that PDT is not the last link of the chain or stands
        in it twice, or that something else moves weights.
      mask_ratio: float32, accepted share of all coordinates. Those do not count whose
        prediction is, bit for bit, the optimizer's own update.
      mask_ratio_per_leaf: accepted share of each floating-point leaf, a tree
        like the parameters with :class:`optax.MaskedNode` for the others.
      prediction_error: float32, ``||p_1 - w_opt|| / ||d||``: error of the
        prediction one snapshot ahead in units of the optimizer's move, 1 for one that nothing
        moves; inf if only the optimizer did not move. With :class:`pdt_optax.Solve`
        ``abs(1 - g)``, ``g`` the gain in loss relative to the gain of its quadratic model.
      eigenvalues: complex, shape ``(G, h-1)``, of the DMD operators, largest
        modulus first; zero outside the rank. None where no predictor is a DMD: with
        :class:`pdt_optax.Solve`, and with :class:`pdt_optax.Verify` unless asked for.
      spectral_radius: shape ``(G,)``, largest modulus of the eigenvalues; None without them.
      rejected: bool, whether no coordinate was accepted.
      jump_candidate: int32, the candidate that was taken, counted over horizons within
        predictors of :class:`pdt_optax.Verify` (by default 0, 1, 2 are the straight line 2, 5
        and 20 snapshots ahead); 0 for the only one without it; -1
        for the optimizer's own result, -2 where the loss there is not finite, jump or not.
      value_calls: int32, calls of ``value_fn`` so far; with :class:`pdt_optax.Solve` two an
        event, where it is linearised and where it is compared, and four if it is given beside
        ``residual_fn``.
      damping: float32, of the next event of :class:`pdt_optax.Solve`; otherwise zero.
      radius: float32, of the next event of :class:`pdt_optax.Solve`, in units of its argument;
        otherwise one.
      jump_horizon: with :class:`pdt_optax.Adaptive` float32, greatest number of snapshots
        ahead now; otherwise None.
      jump_interval: likewise int32, least number of periods without a prediction now.
      bad_jumps: likewise int32, jumps after which the ``value`` passed to ``update`` rose
        or was not finite.
    """

    snapshots: jax.Array
    predictions: jax.Array
    last_prediction: jax.Array
    jumps: jax.Array
    refused: jax.Array
    jumped: jax.Array
    steps_until_jump: jax.Array
    foreign_changes: jax.Array
    mask_ratio: jax.Array
    mask_ratio_per_leaf: Any
    prediction_error: jax.Array
    eigenvalues: jax.Array | None
    spectral_radius: jax.Array | None
    rejected: jax.Array
    jump_candidate: jax.Array
    value_calls: jax.Array
    damping: jax.Array
    radius: jax.Array
    jump_horizon: jax.Array | None
    jump_interval: jax.Array | None
    bad_jumps: jax.Array | None

    def scalars(self) -> dict[str, float]:
        """The numbers as Python floats, for loggers, by their names.

        Of `spectral_radius` the largest; trees and `eigenvalues` are left out, and what is None.

        Raises:
          ValueError: for the metrics of several runs, of a state under :func:`jax.vmap`.
        """
        if shape := np.shape(self.jumps):
            raise ValueError(
                f"`opt_state` must be of one run here, got a batch of shape {shape}: take one of "
                "it, as in jax.tree.map(lambda array: array[0], opt_state)."
            )
        radius = None if self.spectral_radius is None else np.max(self.spectral_radius)
        numbers = self._replace(spectral_radius=radius)._asdict()
        del numbers["mask_ratio_per_leaf"], numbers["eigenvalues"]
        return {name: float(value) for name, value in numbers.items() if value is not None}

    def __str__(self) -> str:
        if isinstance(self.jumps, Tracer) or np.ndim(self.jumps):
            return repr(self)
        steps = f"{self.steps_until_jump} step{'s' * (int(self.steps_until_jump) != 1)}"
        text = f"no jump yet, the first may come in {steps}"
        if self.predictions:
            last = f"moved {float(self.mask_ratio):.0%} of the coordinates"
            last = f"was refused, {self._why()}" if self.rejected else last
            blind = "" if self.value_calls else " blind"
            text = (
                f"jumped{blind} at {self.jumps} of {self.predictions} predictions, the last "
                f"{last}, the next may come in {steps}"
            )
        if self.foreign_changes:
            text += (
                f"; after {self.foreign_changes} of the snapshots so far the weights were changed "
                "by something else: PDT must be the last link of the chain, and be in it once"
            )
        return text

    def _why(self) -> str:
        """Why the last prediction was refused."""
        if self.jump_candidate == NO_LOSS:
            return "the loss is not finite where the optimizer arrived"
        is_solved = self.damping > 0
        if not is_solved and np.isinf(self.prediction_error):
            return "a weight is not finite (`exclude` its leaf), or the optimizer did not move"
        if self.jump_candidate >= 0:
            return "no coordinate agreed with the optimizer"
        by_error = self.jump_horizon is not None
        return "its error was too large" if by_error else "no landing lowered the loss"


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
      >>> print(pdt_optax.metrics(state))
      no jump yet, the first may come in 50 steps
      >>> pdt_optax.metrics(state).scalars()["steps_until_jump"]
      50.0
    """
    state = find(opt_state)
    report = state.report
    eigenvalues = None if report.operators is None else _eigenvalues(report.operators)
    ratios = jnp.moveaxis(jnp.asarray(report.leaf_mask_ratio), -1, 0)
    history, schedule = state.history, state.schedule
    is_new = state.last_prediction == history.snapshots_taken - 1
    jumped = (state.pdt_count == 0) & is_new & (report.mask_ratio > 0)
    most = jnp.iinfo(jnp.int32).max if history.stream else history.rows.ring.shape[-3] + 1
    return Metrics(
        snapshots=jnp.minimum(history.snapshots_taken, most),
        predictions=state.predictions,
        last_prediction=state.last_prediction,
        jumps=state.jumps,
        refused=state.predictions - state.jumps,
        jumped=jumped & schedule.jump_watched if schedule else jumped,
        steps_until_jump=state.steps_until_jump,
        foreign_changes=state.foreign_changes,
        mask_ratio=report.mask_ratio,
        mask_ratio_per_leaf=_per_leaf(history.anchor, ratios),
        prediction_error=report.prediction_error,
        eigenvalues=eigenvalues,
        spectral_radius=None if eigenvalues is None else jnp.abs(eigenvalues[..., 0]),
        rejected=(state.predictions > 0) & (report.mask_ratio == 0),
        jump_candidate=report.jump_candidate,
        value_calls=report.value_calls,
        damping=report.trust.damping,
        radius=report.trust.radius,
        jump_horizon=schedule and schedule.jump_horizon,
        jump_interval=schedule and schedule.jump_interval,
        bad_jumps=schedule and schedule.bad_jumps,
    )


def _eigenvalues(operators: jax.Array) -> jax.Array:
    """Of each operator, the largest modulus first."""
    eigvals = jnp.linalg.eigvals if isinstance(operators, Tracer) else np.linalg.eigvals
    eigenvalues = jnp.asarray(eigvals(operators) + 0j)
    order = jnp.argsort(-jnp.abs(eigenvalues), axis=-1)
    return jnp.take_along_axis(eigenvalues, order, axis=-1)


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
        hint = (
            "A chain must hold one; with several optimizers, pass the part of the state that holds "
            "the one you want."
            if states
            else "There is no pdt_optax.pdt in this optimizer."
        )
        raise ValueError(f"`{name}` must hold exactly one PDTState, got {len(states)}. {hint}")
    return jax.tree.map(
        lambda leaf: leaf.get_value() if _is_variable(leaf) else leaf,
        states[0],
        is_leaf=_is_variable,
    )


def _is_variable(node: Any) -> bool:
    """Whether it is an ``nnx.Variable``, as a flax ``nnx.Optimizer`` has instead of arrays."""
    return hasattr(node, "get_value")
