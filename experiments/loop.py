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

from experiments.data import Examples
from experiments.records import EndRecord, EpochRecord, Record
from experiments.workloads import Evaluation, Workload
import pdt_optax

_Evaluate = Callable[[optax.Params, Examples], Evaluation]


class Arm(NamedTuple):
    """One way of training.

    Attributes:
      name: what the records call it.
      optimizer: the whole optimizer.
      predicts: whether PDT is a link of it.
      epochs: passes over the train split, if fewer than those of the run.
      scores_on: 'train' or 'validation', the split whose loss is the `value_fn` of verified jumps.
    """

    name: str
    optimizer: optax.GradientTransformation
    predicts: bool
    epochs: int | None = None
    scores_on: str = "train"


class _Program(NamedTuple):
    """An arm with its compiled step, (params, opt_state, batch, scored) -> (params, opt_state)."""

    arm: Arm
    step: Callable[..., tuple[optax.Params, optax.OptState]]
    compile_seconds: float


@dataclasses.dataclass(eq=False)
class _Training:
    """An arm on its way through one seed."""

    program: _Program
    seed: int
    params: optax.Params
    opt_state: optax.OptState
    scored: Examples
    epoch: int = 0
    seconds: float = 0.0
    predictions: int = 0

    def train(self, batches: Sequence[Examples]) -> None:
        """Trains one epoch on the clock."""
        jax.block_until_ready((self.params, self.opt_state, batches))
        start = time.perf_counter()
        for batch in batches:
            self.params, self.opt_state = self.program.step(
                self.params, self.opt_state, batch, self.scored
            )
        jax.block_until_ready((self.params, self.opt_state))
        self.seconds += time.perf_counter() - start
        self.epoch += 1

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
        if not self.program.arm.predicts:
            return {}
        metrics = pdt_optax.metrics(self.opt_state)
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
    evaluate = jax.jit(workload.evaluate)
    for seed in seeds:
        yield from _run_seed(workload, programs, evaluate, seed, epochs, batch_size, num_scored)


def _run_seed(
    workload: Workload,
    programs: Sequence[_Program],
    evaluate: _Evaluate,
    seed: int,
    epochs: int,
    batch_size: int,
    num_scored: int,
) -> Iterator[Record]:
    dataset = workload.dataset
    splits = jax.device_put((dataset.train, dataset.validation, dataset.test))
    initial = workload.init(seed)
    live = []
    for program in programs:
        params = jax.tree.map(jnp.copy, initial)
        scored = jax.device_put(_scored(workload, program.arm, seed, num_scored))
        live.append(_Training(program, seed, params, program.arm.optimizer.init(params), scored))

    for epoch in range(1, epochs + 1):
        batches = jax.device_put(list(dataset.epoch_batches(seed, epoch, batch_size)))
        for training in tuple(live):
            training.train(batches)
            train, validation = (evaluate(training.params, split) for split in splits[:2])
            yield training.epoch_record(train, validation)
            diverged = not math.isfinite(train.loss)
            if diverged or epoch == (training.program.arm.epochs or epochs):
                live.remove(training)
                yield training.end_record(evaluate(training.params, splits[2]), diverged)


def _scored(workload: Workload, arm: Arm, seed: int, number: int) -> Examples:
    """The validation split, or the first train examples of epoch 0, which is not trained."""
    if arm.scores_on == "validation":
        return workload.dataset.validation
    size = min(number, len(workload.dataset.train.labels))
    return next(workload.dataset.epoch_batches(seed, 0, size))


def _compile(workload: Workload, arm: Arm, batch_size: int, num_scored: int) -> _Program:
    optimizer = optax.with_extra_args_support(arm.optimizer)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(
        params: optax.Params, opt_state: optax.OptState, batch: Examples, scored: Examples
    ) -> tuple[optax.Params, optax.OptState]:
        loss, grads = jax.value_and_grad(workload.loss)(params, batch)
        updates, opt_state = optimizer.update(
            grads,
            opt_state,
            params,
            value=loss,
            value_fn=lambda params: workload.loss(params, scored),
        )
        return optax.apply_updates(params, updates), opt_state

    params = workload.init(0)
    opt_state = optimizer.init(params)
    batch = next(workload.dataset.epoch_batches(seed=0, epoch=0, batch_size=batch_size))
    scored = _scored(workload, arm, 0, num_scored)
    start = time.perf_counter()
    compiled = step.lower(params, opt_state, batch, scored).compile()
    compile_seconds = time.perf_counter() - start
    # The first call is slow: not timed.
    jax.block_until_ready(compiled(params, opt_state, batch, scored))
    return _Program(arm, compiled, compile_seconds)
