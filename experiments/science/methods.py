"""One step of training, and that of an optax transformation."""

from collections.abc import Callable
import dataclasses
from typing import Any, Protocol

import jax
import optax

from experiments.science.tasks import Task
from experiments.science.tasks.task import Params, Points

State = Any
Rate = float | jax.Array


class Method(Protocol):
    """How weights are moved; the learning rate may differ from step to step."""

    def init(self, task: Task, params: Params) -> State:
        """The state before the first step, a tree of arrays."""
        ...

    def step(
        self, task: Task, params: Params, state: State, points: Points, rate: Rate
    ) -> tuple[Params, State]:
        """Weights and state after one step on the given points."""
        ...


@dataclasses.dataclass(frozen=True)
class Optax:
    """An optax transformation.

    Attributes:
      make: from the learning rate to the transformation.
      is_line_search: whether value and gradient at the new weights are kept in its state, where
        the next step finds them. That needs the same points at every step.
      takes_residuals: whether `residual_fn` is passed, and no `value_fn`, where there are
        residuals.
    """

    make: Callable[[Rate], optax.GradientTransformation]
    is_line_search: bool = False
    takes_residuals: bool = False

    def init(self, task: Task, params: Params) -> State:
        """The transformation's own state."""
        return self.make(1.0).init(params)

    def step(
        self, task: Task, params: Params, state: State, points: Points, rate: Rate
    ) -> tuple[Params, State]:
        """Gives `value`, `grad` and `value_fn`, or instead of it `residual_fn`."""

        def value_fn(params: Params) -> jax.Array:
            return task.value(params, points)

        if self.is_line_search:
            value, grad = optax.value_and_grad_from_state(value_fn)(params, state=state)
        else:
            value, grad = jax.value_and_grad(value_fn)(params)
        extra: dict[str, Any] = {"value": value, "grad": grad}
        residuals = task.residuals
        if residuals is not None and self.takes_residuals:
            extra["residual_fn"] = lambda params: residuals(params, points)
        else:
            extra["value_fn"] = value_fn
        link = optax.with_extra_args_support(self.make(rate))
        updates, state = link.update(grad, state, params, **extra)
        return optax.apply_updates(params, updates), state
