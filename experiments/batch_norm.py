"""Running statistics of batch norm after a jump."""

from collections.abc import Iterable

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def refresh_statistics(model: nnx.Module, inputs: Iterable[ArrayLike]) -> None:
    """Replaces the running statistics of every batch norm by their means over a few batches.

    Running statistics are averages over the steps before: after a jump they belong to parameters
    that are no more. Call this before evaluating. The parameters stay as they are.

    Args:
      model: a module with :class:`flax.nnx.BatchNorm`, changed in place; its modes and momenta are
        given back.
      inputs: batches, at least one.

    Raises:
      ValueError: if there is no batch.
    """
    norms = [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.BatchNorm)]
    modes = [(norm.use_running_average, norm.momentum) for norm in norms]
    for norm in norms:
        norm.use_running_average, norm.momentum = False, 0.0
    seen = [nnx.as_pure(_statistics(model, batch)) for batch in inputs]
    for norm, (use_running_average, momentum) in zip(norms, modes, strict=True):
        norm.use_running_average, norm.momentum = use_running_average, momentum
    if not seen:
        raise ValueError("`inputs` must hold at least one batch, got none.")
    nnx.update(model, jax.tree.map(lambda *each: jnp.mean(jnp.stack(each), axis=0), *seen))


@nnx.jit
def _statistics(model: nnx.Module, batch: ArrayLike) -> nnx.State:
    model(batch)  # pyright: ignore[reportCallIssue]
    return nnx.state(model, nnx.BatchStat)
