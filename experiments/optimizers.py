"""Registry of the base optimizers and of their learning rate schedules."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import optax


class Settings(NamedTuple):
    """What a base optimizer is built from.

    Attributes:
      learning_rate: learning rate of each step.
      momentum: coefficient of the `momentum` optimizer.
      weight_decay: decoupled for `adamw` and `lamb`, an L2 term of the gradient for the others.
    """

    learning_rate: optax.Schedule
    momentum: float
    weight_decay: float


def _l2(settings: Settings) -> optax.GradientTransformation:
    decay = settings.weight_decay
    return optax.add_decayed_weights(decay) if decay else optax.identity()


OPTIMIZERS: Mapping[str, Callable[[Settings], optax.GradientTransformation]] = {
    "sgd": lambda s: optax.chain(_l2(s), optax.sgd(s.learning_rate)),
    "momentum": lambda s: optax.chain(_l2(s), optax.sgd(s.learning_rate, momentum=s.momentum)),
    "adam": lambda s: optax.chain(_l2(s), optax.adam(s.learning_rate)),
    "adamw": lambda s: optax.adamw(s.learning_rate, weight_decay=s.weight_decay),
    "rmsprop": lambda s: optax.chain(_l2(s), optax.rmsprop(s.learning_rate)),
    "lamb": lambda s: optax.lamb(s.learning_rate, weight_decay=s.weight_decay),
}

# (learning rate, number of steps of the run) -> learning rate of each step.
SCHEDULES: Mapping[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda learning_rate, steps: optax.constant_schedule(learning_rate),
    "cosine": optax.cosine_decay_schedule,
}
