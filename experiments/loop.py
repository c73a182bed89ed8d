"""Trains several arms side by side: same initialisation, same batches, epoch by epoch in turn."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.controls import Evaluated
from experiments.data import Examples
from experiments.pdt_flags import Link
from experiments.records import EndRecord, EpochRecord, Record
from experiments.workloads import Evaluation, ModelState, Workload
import pdt_optax


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


Step = Callable[[TrainState, Examples, Examples], TrainState]


class Arm(NamedTuple):
    """One way of training.

    Attributes:
      name: what the records call it.
      optimizer: the whole optimizer.
      link: PDT, if it is a link of it.
      epochs: passes over the train split, if fewer than those of the run.
      evaluated: (state of the optimizer, trained parameters) -> parameters that are evaluated.
    """

    name: str
    optimizer: optax.GradientTransformation
    link: Link | None = None
    epochs: int | None = None
    evaluated: Evaluated = lambda opt_state, params: params


class _Program(NamedTuple):
    """An arm with its compiled step; see `train_step`."""

    arm: Arm
    step: Step
    compile_seconds: float


@dataclasses.dataclass(eq=False)
class _Training:
    """An arm on its way through one seed."""

    program: _Program
    seed: int
    state: TrainState
    scored: Examples
    epoch: int = 0
    seconds: float = 0.0
    predictions: int = 0

    def train(self, batches: Sequence[Examples]) -> None:
        """Trains one epoch on the clock."""
        jax.block_until_ready((self.state, batches))
        start = time.perf_counter()
        for batch in batches:
            self.state = self.program.step(self.state, batch, self.scored)
        jax.block_until_ready(self.state)
        self.seconds += time.perf_counter() - start
        self.epoch += 1

    def evaluated(self) -> tuple[optax.Params, ModelState]:
        """Parameters and model state that are evaluated."""
        params, model_state, opt_state = self.state
        return self.program.arm.evaluated(opt_state, params), model_state

    def epoch_record(self, train: Evaluation, validation: Evaluation) -> EpochRecord:
        """Records the epoch just trained."""
        return EpochRecord(
            seed=self.seed,
            arm=self.program.arm.name,
            epoch=self.epoch,
            seconds=self.seconds,
            train_loss=float(train.loss),
            train_accuracy=float(train.accuracy),
            validation_loss=float(validation.loss),
            validation_accuracy=float(validation.accuracy),
            **self._prediction(),
        )

    def end_record(self, test: Evaluation, diverged: bool) -> EndRecord:
        """Records the end of the arm."""
        return EndRecord(
            seed=self.seed,
            arm=self.program.arm.name,
            status="diverged" if diverged else "finished",
            epochs=self.epoch,
            seconds=self.seconds,
            compile_seconds=self.program.compile_seconds,
            test_accuracy=float(test.accuracy),
        )

    def _prediction(self) -> dict[str, Any]:
        if not self.program.arm.link:
            return {}
        metrics = pdt_optax.metrics(self.state.opt_state)
        before, self.predictions = self.predictions, int(metrics.predictions)
        if self.predictions == before:
            return {}
        return {
            "predicted": True,
            "mask_ratio": float(metrics.mask_ratio),
            "prediction_error": float(metrics.prediction_error),
            "spectral_radius": float(jnp.max(metrics.spectral_radius)),
        }


def run(
    workload: Workload,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    num_scored: int,
) -> Iterator[Record]:
    """Trains every arm on every seed.

    An arm whose train loss is no longer finite ends there; the others go on.

    Args:
      workload: what is trained.
      arms: ways of training, compared on the same initialisation and the same batches.
      seeds: seeds of the initialisation and of the order of the batches.
      epochs: passes over the train split.
      batch_size: examples per step.
      num_scored: training examples whose loss is the `value_fn` of verified jumps.

    Yields:
      A record per seed, epoch and arm, as soon as it is known, and one at the end of each arm.
    """
    programs = [_compile(workload, arm, batch_size, num_scored) for arm in arms]
    for seed in seeds:
        yield from _run_seed(workload, programs, seed, epochs, batch_size, num_scored)


def train_step(workload: Workload, optimizer: optax.GradientTransformation) -> Step:
    """One step of training, a pure function of (state, batch, scored examples), not compiled."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: TrainState, batch: Examples, scored: Examples) -> TrainState:
        params, model_state, opt_state = state
        (loss, next_model_state), grads = jax.value_and_grad(workload.loss, has_aux=True)(
            params, model_state, batch
        )
        updates, opt_state = optimizer.update(
            grads,
            opt_state,
            params,
            inputs=batch.inputs,
            value=loss,
            value_fn=lambda params: workload.score(params, model_state, scored),
        )
        return TrainState(optax.apply_updates(params, updates), next_model_state, opt_state)

    return step


def _run_seed(
    workload: Workload,
    programs: Sequence[_Program],
    seed: int,
    epochs: int,
    batch_size: int,
    num_scored: int,
) -> Iterator[Record]:
    dataset = workload.dataset
    initial = workload.init(seed)
    live = []
    for program in programs:
        params, model_state = jax.tree.map(jnp.copy, initial)
        state = TrainState(params, model_state, program.arm.optimizer.init(params))
        scored = jax.device_put(_scored(workload, program.arm, seed, num_scored))
        live.append(_Training(program, seed, state, scored))

    for epoch in range(1, epochs + 1):
        batches = jax.device_put(list(dataset.epoch_batches(seed, epoch, batch_size)))
        for training in tuple(live):
            training.train(batches)
            evaluate = functools.partial(workload.evaluate, *training.evaluated())
            train = evaluate("train")
            yield training.epoch_record(train, evaluate("validation"))
            diverged = not math.isfinite(train.loss)
            if diverged or epoch == (training.program.arm.epochs or epochs):
                live.remove(training)
                yield training.end_record(evaluate("test"), diverged)


def _scored(workload: Workload, arm: Arm, seed: int, number: int) -> Examples:
    """The validation split, or the first train examples of epoch 0, which is not trained."""
    dataset = workload.dataset
    if arm.link and arm.link.scores_on == "validation":
        return next(dataset.split_batches("validation", dataset.size("validation")))
    return next(dataset.epoch_batches(seed, 0, min(number, dataset.size("train"))))


def _compile(workload: Workload, arm: Arm, batch_size: int, num_scored: int) -> _Program:
    step = jax.jit(train_step(workload, arm.optimizer), donate_argnums=0)
    params, model_state = workload.init(0)
    state = TrainState(params, model_state, arm.optimizer.init(params))
    batch = next(workload.dataset.epoch_batches(seed=0, epoch=0, batch_size=batch_size))
    scored = _scored(workload, arm, 0, num_scored)
    start = time.perf_counter()
    compiled = step.lower(state, batch, scored).compile()
    compile_seconds = time.perf_counter() - start
    # The first call is slow: not timed.
    jax.block_until_ready(compiled(state, batch, scored))
    return _Program(arm, compiled, compile_seconds)
