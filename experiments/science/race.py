"""Trains a task for a number of seconds: chunks of steps on the clock, scores off it."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.science.methods import Method, State
from experiments.science.rivals import Rival
from experiments.science.tasks import Task
from experiments.science.tasks.task import Params

POINTS = 100
"""About as many chunks, and so points of a curve, make up a run."""
LAST = 0.01
"""Share of the rate with which a run ends."""
Clock = Callable[[], float]


def own_time() -> float:
    """Seconds of the process on all cores; what else a machine does is not counted.

    On an accelerator, seconds on the clock.
    """
    return time.process_time() if jax.default_backend() == "cpu" else time.perf_counter()


class Point(NamedTuple):
    """A point of a curve.

    Attributes:
      seconds: on the clock so far, without compiling and scoring.
      steps: so far.
      loss: on the fixed points.
      error: the task's error.
    """

    seconds: float
    steps: int
    loss: float
    error: float


class Chunk(NamedTuple):
    """Weights after a chunk of steps, and where the curve stands."""

    point: Point
    params: Params


@dataclasses.dataclass
class Stage:
    """The compiled loop of a method.

    Attributes:
      init: from weights to the method's state.
      advance: from weights, state, key, number of steps so far, number of steps to make and rate
        to weights and state; the first two arguments are donated.
      compile_seconds: tracing and compiling both.
      pace: seconds of a step, of the last chunk.
    """

    init: Callable[[Params], State]
    advance: Callable[..., tuple[Params, State]]
    compile_seconds: float
    pace: float = math.nan


class Race:
    """A rival on a task, compiled once for all seeds and rates.

    Args:
      task: what is trained.
      rival: how.
      fresh: whether each step has points of its own instead of the fixed set.
      clock: seconds, monotonic.
    """

    def __init__(self, task: Task, rival: Rival, fresh: bool = False, clock: Clock = own_time):
        self._task, self._clock = task, clock
        self._score = jax.jit(lambda params: (task.value(params, task.points), task.error(params)))
        self._init = jax.jit(task.init)
        self._stages = [
            (share, _compile(task, method, fresh, clock)) for share, method in rival.stages
        ]
        for _, stage in self._stages:
            stage.pace = self._calibrate(stage)

    @property
    def compile_seconds(self) -> float:
        """Tracing and compiling the loops of all stages."""
        return sum(stage.compile_seconds for _, stage in self._stages)

    def run(self, seed: int, rate: float, seconds: float) -> Iterator[Chunk]:
        """Trains from one seed until the seconds are over or the loss is not finite.

        The rate falls along half a cosine of each stage's share of the seconds, and is constant
        within a chunk: no schedule has to know how many steps will fit.
        """
        key = jax.random.key(seed)
        params = self._init(key)
        point = Point(0.0, 0, *self._scored(params))
        yield Chunk(point, params)
        for share, stage in self._stages:
            state, begun, budget = stage.init(params), point.seconds, share * seconds
            while (elapsed := point.seconds - begun) < budget:
                number = max(1, round(budget / POINTS / max(stage.pace, 1e-9)))
                now = rate * _cosine(elapsed / budget)
                params, state, spent = self._advance(
                    stage, params, state, key, point.steps, number, now
                )
                stage.pace = spent / number
                point = Point(point.seconds + spent, point.steps + number, *self._scored(params))
                yield Chunk(point, params)
                if not math.isfinite(point.loss):
                    return

    def _advance(
        self, stage: Stage, params: Params, state: State, key: jax.Array, first: int, number: int,
        rate: float,
    ) -> tuple[Params, State, float]:  # fmt: skip
        """Weights and state after `number` steps, and the seconds they took."""
        numbers = (jnp.asarray(first), jnp.asarray(number), jnp.asarray(rate))
        params = jax.tree.map(jnp.copy, params)  # The caller may keep those of the last chunk.
        jax.block_until_ready((params, state, numbers))
        start = self._clock()
        params, state = jax.block_until_ready(stage.advance(params, state, key, *numbers))
        return params, state, self._clock() - start

    def _calibrate(self, stage: Stage) -> float:
        """Seconds of a step, from a few that are made for nothing."""
        key = jax.random.key(0)
        params = self._init(key)
        advance = functools.partial(self._advance, stage, params)
        advance(stage.init(params), key, 0, 1, 1e-3)
        for number in (1, 10, 100):
            *_, spent = advance(stage.init(params), key, 0, number, 1e-3)
            if spent > 0.05:
                break
        return spent / number

    def _scored(self, params: Params) -> tuple[float, float]:
        loss, error = self._score(params)
        return float(loss), float(error)


def _cosine(progress: float) -> float:
    return LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * progress))


def _compile(task: Task, method: Method, fresh: bool, clock: Clock) -> Stage:
    init = jax.jit(functools.partial(method.init, task))

    def advance(
        points: Any, params: Params, state: State, key: jax.Array, first: jax.Array,
        number: jax.Array, rate: jax.Array,
    ) -> tuple[Params, State]:  # fmt: skip
        def step(index: jax.Array, carry: tuple[Params, State]) -> tuple[Params, State]:
            params, state = carry
            at = task.sample(jax.random.fold_in(key, first + index)) if fresh else points
            return method.step(task, params, state, at, rate)

        return jax.lax.fori_loop(0, number, step, (params, state))

    params = jax.jit(task.init)(jax.random.key(0))
    state = init(params)
    numbers = (jnp.asarray(0), jnp.asarray(1), jnp.asarray(1e-3))
    start = clock()
    compiled = (
        jax.jit(advance, donate_argnums=(1, 2))
        .lower(task.points, params, state, jax.random.key(0), *numbers)
        .compile()
    )
    return Stage(init, functools.partial(compiled, task.points), clock() - start)
