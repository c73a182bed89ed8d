"""The training step of all programs, a pure function, and what it takes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from experiments.data import Examples

# What a model keeps beside its parameters, as a nested dict of arrays: running statistics of
# batch norm, random keys of dropout. Empty for a model with neither.
ModelState = Any
# (parameters, model state, batch) -> (mean loss, next model state).
Loss = Callable[[optax.Params, ModelState, Any], tuple[jax.Array, ModelState]]
# (parameters, model state, examples) -> loss by which jumps are judged.
Score = Callable[[optax.Params, ModelState, Examples], jax.Array]


class TrainState(NamedTuple):
    """All that a step changes.

    Attributes:
      params: the parameters.
      model_state: what the model keeps beside them.
      opt_state: the state of the optimizer.
    """

    params: optax.Params
    model_state: ModelState
    opt_state: optax.OptState


Step = Callable[..., TrainState]


def start(params: optax.Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step of a model without a state of its own."""
    return TrainState(params, {}, optimizer.init(params))


def stateless(loss: Callable[[optax.Params, Examples], jax.Array]) -> Loss:
    """The loss of a model without a state of its own."""
    return lambda params, model_state, batch: (loss(params, batch), model_state)


def train_step(
    loss: Loss, optimizer: optax.GradientTransformation, score: Score | None = None
) -> Step:
    """One step of training, a pure function, not compiled.

    Args:
      loss: what is trained.
      optimizer: the whole optimizer; it is given the inputs of the batch and the loss.
      score: gives it `value_fn` as well, on the examples that are the step's third argument.

    Returns:
      (state, batch, scored examples) -> next state.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: TrainState, batch: Examples, scored: Any = None) -> TrainState:
        params, model_state, opt_state = state
        (value, next_model_state), grads = jax.value_and_grad(loss, has_aux=True)(
            params, model_state, batch
        )
        extra: dict[str, Any] = {"inputs": batch.inputs, "value": value}
        if score is not None:
            judged = score
            extra["value_fn"] = lambda params: judged(params, model_state, scored)
        updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
        return TrainState(optax.apply_updates(params, updates), next_model_state, opt_state)

    return step


def scan(step: Step, state: TrainState, batches: Examples) -> TrainState:
    """The steps of batches that are stacked along a first axis."""
    return jax.lax.scan(lambda state, batch: (step(state, batch), None), state, batches)[0]


def flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of one call, as XLA counts them before it optimizes."""
    cost = jax.jit(function).lower(*arguments).cost_analysis() or {}
    return float(cost.get("flops", 0.0))


def count(opt_state: Any, name: str) -> int:
    """A count of PDT in the state of an optimizer, 0 without it."""
    return int(optax.tree.get(opt_state, name, 0))  # pyright: ignore[reportArgumentType]
