"""Controls: simple methods that also gain from past weights, as optimizers of plain parameters.

Each trains as the base optimizer does or in its own way, and is evaluated at other parameters than
those that it trains.
"""

from collections.abc import Callable, Mapping, Sequence
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from experiments.runs.optimizers import Settings

SYNC_PERIOD, SLOW_STEP_SIZE = 5, 0.5  # Zhang et al. (2019).
AVERAGED = 5  # As many weights as PDT fits.

Evaluated = Callable[[optax.OptState, optax.Params], optax.Params]


class Control(NamedTuple):
    """A control.

    Attributes:
      build: (base optimizer, its settings, its name, steps per epoch) -> optimizer.
      evaluated: (state of the optimizer, trained parameters) -> parameters that are evaluated.
      optimizers: names of the base optimizers it exists for; empty for all.
    """

    build: Callable[
        [optax.GradientTransformation, Settings, str, int], optax.GradientTransformation
    ]
    evaluated: Evaluated
    optimizers: Sequence[str] = ()


class LookaheadState(NamedTuple):
    """The state of `optax.lookahead` and its slow parameters."""

    inner: optax.OptState
    slow: optax.Params


def lookahead(fast: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optax.lookahead` on plain parameters, the fast ones; the slow ones are in the state.

    References:
      Zhang et al., *Lookahead Optimizer: k steps forward, 1 step back*, 2019
    """
    both = optax.lookahead(fast, SYNC_PERIOD, SLOW_STEP_SIZE)

    def init(params: optax.Params) -> LookaheadState:
        slow = jax.tree.map(jnp.copy, params)
        return LookaheadState(both.init(optax.LookaheadParams(params, slow)), slow)

    def update(updates: optax.Updates, state: LookaheadState, params: Any = None) -> Any:
        pair: Any = optax.LookaheadParams(params, state.slow)
        steps, inner = both.update(updates, state.inner, pair)
        moved: Any = steps
        return moved.fast, LookaheadState(inner, optax.apply_updates(state.slow, moved.slow))

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


class AverageState(NamedTuple):
    """The state of the optimizer, the periods so far, the step in this one, a ring of weights."""

    inner: optax.OptState
    periods: jax.Array
    step: jax.Array
    held: tuple[optax.Params, ...]


def latest_average(
    optimizer: optax.GradientTransformation, every: int
) -> optax.GradientTransformation:
    """Keeps the weights of the last `AVERAGED` periods; the training itself stays as it is.

    References:
      Kaddour, *Stop wasting my time! Saving days of ImageNet and BERT training with latest weight
      averaging*, 2022
    """

    def init(params: optax.Params) -> AverageState:
        held = tuple(jax.tree.map(jnp.copy, params) for _ in range(AVERAGED))
        periods, step = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        return AverageState(optimizer.init(params), periods, step, held)

    def update(updates: optax.Updates, state: AverageState, params: Any = None) -> Any:
        updates, inner = optimizer.update(updates, state.inner, params)
        ends = state.step == every - 1
        newest = optax.apply_updates(params, updates)
        held = tuple(
            _written(old, newest, ends & (state.periods % AVERAGED == place))
            for place, old in enumerate(state.held)
        )
        step = jnp.where(ends, 0, state.step + 1)
        return updates, AverageState(inner, state.periods + ends, step, held)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _written(old: optax.Params, new: optax.Params, now: jax.Array) -> optax.Params:
    """`new` instead of `old`, if it is time: a loop of one turn, which copies nothing else."""
    return jax.lax.while_loop(
        lambda carry: carry[0], lambda _: (jnp.zeros_like(now), new), (now, old)
    )[1]


def average_of_held(state: Any, params: optax.Params) -> optax.Params:
    """The mean over as many periods as there have been."""
    del params
    full = state.periods > jnp.arange(AVERAGED)
    return jax.tree.map(
        lambda *held: sum(map(operator.mul, full, held)) / jnp.maximum(full.sum(), 1), *state.held
    )


def _schedule_free(
    base: optax.GradientTransformation, settings: Settings, name: str, every: int
) -> optax.GradientTransformation:
    """Defazio et al., *The Road Less Scheduled*, 2024, at the peak of the schedule throughout."""
    del base, every
    if name in ("sgd", "momentum"):
        return optax.contrib.schedule_free_sgd(settings.peak, weight_decay=settings.weight_decay)
    return optax.contrib.schedule_free_adamw(settings.peak, weight_decay=settings.weight_decay)


CONTROLS: Mapping[str, Control] = {
    "latest_average": Control(
        lambda base, settings, name, every: latest_average(base, every),
        average_of_held,
    ),
    "lookahead": Control(
        lambda base, settings, name, every: lookahead(base), lambda state, params: state.slow
    ),
    "schedule_free": Control(
        _schedule_free,
        optax.contrib.schedule_free_eval_params,  # pyright: ignore[reportArgumentType]
        ("sgd", "momentum", "adam", "adamw"),
    ),
}
