"""Registry of the base optimizers and of their learning rate schedules."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import optax
import optax.contrib

from experiments.runs.shampoo import scale_by_shampoo


class Settings(NamedTuple):
    """What a base optimizer is built from.

    Attributes:
      learning_rate: learning rate of each step.
      peak: the greatest of them.
      momentum: coefficient of the `momentum` optimizer.
      weight_decay: decoupled for `adamw`, `lamb` and `muon`, an L2 term of the gradient for the
        others.
    """

    learning_rate: optax.Schedule
    peak: float
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
    "muon": lambda s: optax.contrib.muon(s.learning_rate, weight_decay=s.weight_decay),
    "lamb": lambda s: optax.lamb(s.learning_rate, weight_decay=s.weight_decay),
    "shampoo": lambda s: optax.chain(
        _l2(s), scale_by_shampoo(), optax.scale_by_learning_rate(s.learning_rate)
    ),
}

WITHOUT_MOMENTUM = ("sgd", "rmsprop", "shampoo")


def _cosine(
    learning_rate: float, steps: int, minimum: float, warmup: int, restart: int
) -> optax.Schedule:
    if restart:
        first = _cosine(learning_rate, restart, minimum, warmup, 0)
        second = optax.cosine_decay_schedule(10 * minimum, steps - restart, alpha=0.1)
        return optax.join_schedules([first, second], [restart])
    if warmup:
        lowest = 0.1 * learning_rate
        return optax.warmup_cosine_decay_schedule(lowest, learning_rate, warmup, steps, minimum)
    return optax.cosine_decay_schedule(learning_rate, steps, alpha=minimum / learning_rate)


# (learning rate, number of steps of the run, minimum, steps of which the rate rises, step from
# which it falls anew) -> learning rate of each step.
SCHEDULES: Mapping[str, Callable[[float, int, float, int, int], optax.Schedule]] = {
    "constant": lambda learning_rate, *_: optax.constant_schedule(learning_rate),
    "cosine": _cosine,
}
