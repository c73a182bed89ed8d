"""The optimizer whose training is predicted: stochastic gradient descent."""

from collections.abc import Callable
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pdt_optax._checks import check_bool, is_number


@dataclasses.dataclass(frozen=True)
class SGD:
    """``optax.sgd`` with weight decay.

    Attributes:
      learning_rate: constant, or a function of the step.
      momentum: in [0, 1).
      nesterov: Nesterov's momentum in place of the heavy ball.
      weight_decay: factor of the weights that is added to the gradient.
      decoupled: adds it after the momentum instead, as AdamW does.
    """

    learning_rate: float | optax.Schedule
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decoupled: bool = False

    def __post_init__(self):
        rate = self.learning_rate
        if isinstance(rate, optax.GradientTransformation):
            raise ValueError(
                "`learning_rate` must be a number or a schedule, got an optimizer: only SGD with "
                "momentum and weight decay is predicted, not Adam, clipping or other transforms."
            )
        if not callable(rate) and not (is_number(rate) and 0 < rate < math.inf):
            raise ValueError(f"`learning_rate` must be positive or a schedule, got {rate!r}.")
        if not (is_number(self.momentum) and 0 <= self.momentum < 1):
            raise ValueError(f"`momentum` must be in [0, 1), got {self.momentum!r}.")
        if not (is_number(self.weight_decay) and 0 <= self.weight_decay < math.inf):
            raise ValueError(f"`weight_decay` must be at least 0, got {self.weight_decay!r}.")
        for name in ("nesterov", "decoupled"):
            check_bool(name, getattr(self, name))

    @property
    def constant_rate(self) -> bool:
        """Whether the learning rate is a number."""
        return not isinstance(self.learning_rate, Callable)

    def rates(self, steps: int) -> np.ndarray:
        """Learning rate of each of the first steps, ``(steps,)``, float64."""
        if not isinstance(self.learning_rate, Callable):
            return np.full(steps, self.learning_rate, np.float64)
        schedule = self.learning_rate
        values = jax.jit(jax.vmap(lambda t: jnp.asarray(schedule(t))))(
            jnp.arange(steps, dtype=jnp.int32)
        )
        rates = np.asarray(values, np.float64)
        if not (np.all(np.isfinite(rates)) and np.all(rates >= 0)):
            raise ValueError(
                "`learning_rate` must be a schedule of finite rates of at least 0, "
                f"got {rates.min()} to {rates.max()}."
            )
        return rates

    def stability(self, curvature: float, rate: float) -> float:
        """Step along the steepest direction, in units of the greatest that does not diverge."""
        m, alpha = self.momentum, self.weight_decay
        decay = rate * alpha if self.decoupled else 0.0
        step = rate * (curvature + (0.0 if self.decoupled else alpha))
        limit = (1 + m) * (2 - decay) / (1 + 2 * m * self.nesterov)
        return float(step / limit) if limit > 0 else math.inf
