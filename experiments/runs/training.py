"""One arm in training: what it is, its compiled step, where it is."""

from collections.abc import Callable, Iterable
import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.data import ORDERS, ArrayDataset, Examples
from experiments.runs import devices
from experiments.runs.controls import Evaluated
from experiments.runs.devices import ONE, Placement
from experiments.runs.records import EndRecord, EpochRecord
from experiments.runs.step import ModelState, Step, TrainState, flops, train_step
from experiments.runs.workloads import Evaluation, Workload
import pdt_optax


class Link(NamedTuple):
    """PDT after the optimizer of an arm.

    Attributes:
      after: optimizer -> that with PDT.
      history: arrays held for each parameter.
      points: points of a predicted path.
      candidates: jumps that are scored at an event; 0 for the one that is made blind.
      scores_on: split whose loss is the `value_fn` of verified jumps.
    """

    after: Callable[[optax.GradientTransformation], optax.GradientTransformation]
    history: int
    points: int
    candidates: int = 0
    scores_on: str = "train"

    def steps_until_jump(self) -> int:
        """Steps up to the first that may jump."""
        state = self.after(optax.trace(0.9)).init(jnp.ones(1))
        return int(pdt_optax.metrics(state).steps_until_jump)

    def event_flops(self, size: int, value_flops: float) -> float:
        """Floating-point operations of one prediction.

        Products of all pairs of the history; a path of `points` weighted sums of the history for
        each candidate and for what is taken, two operations at each point to judge it, and the
        one-step prediction error; `value_fn` once for each candidate, which is the most, and once
        for the optimizer's result.

        Args:
          size: number of parameters.
          value_flops: of one call of `value_fn`.
        """
        gram = self.history * (self.history + 1) * size
        path = self.points * (2 * self.history + 2) * size
        scored = (self.candidates + 1) * value_flops if self.candidates else 0.0
        return gram + (self.candidates + 1) * path + 2 * self.history * size + scored


class Arm(NamedTuple):
    """One way of training.

    Attributes:
      name: what the records call it.
      optimizer: the whole optimizer.
      link: PDT, if it is a link of it.
      epochs: passes over the train split, if fewer than those of the run.
      evaluated: (state of the optimizer, trained parameters) -> parameters that are evaluated.
      is_counted: whether operations of this arm can be counted: those of gradient and link.
    """

    name: str
    optimizer: optax.GradientTransformation
    link: Link | None = None
    epochs: int | None = None
    evaluated: Evaluated = lambda opt_state, params: params
    is_counted: bool = True


class Program(NamedTuple):
    """An arm with its compiled step; see `train_step`."""

    arm: Arm
    step: Step
    compile_seconds: float
    epoch_flops: float | None
    event_flops: float


@dataclasses.dataclass(eq=False)
class Training:
    """An arm on its way through one seed."""

    program: Program
    seed: int
    state: TrainState
    scored: Examples
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    predictions: int = 0

    def train(
        self, batches: Iterable[Examples], is_due: Callable[[], bool], save: Callable[[], None]
    ) -> None:
        """Trains the rest of an epoch on the clock, which stands still while a checkpoint is saved.

        Args:
          batches: those of the epoch from `step` on.
          is_due: whether it is time for a checkpoint.
          save: saves it.
        """
        jax.block_until_ready(self.state)
        start = time.perf_counter()
        for batch in batches:
            self.state = self.program.step(self.state, batch, self.scored)
            self.step += 1
            if devices.are_many():  # Of two steps in flight each process might begin with another.
                jax.block_until_ready(self.state)
            asked = time.perf_counter()
            if is_due():
                jax.block_until_ready(self.state)
                self.seconds += time.perf_counter() - start
                save()
                start = time.perf_counter()
            else:
                start += time.perf_counter() - asked
        jax.block_until_ready(self.state)
        self.seconds += time.perf_counter() - start
        self.epoch += 1
        self.step = 0

    def progress(self) -> dict[str, Any]:
        """The counters that a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("epoch", "step", "seconds", "predictions")}

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
            epoch_flops=self.program.epoch_flops,
            event_flops=self.program.event_flops,
            layers=self._layers(),
        )

    def _layers(self) -> list[str] | None:
        if not self.program.arm.link:
            return None
        paths, _ = zip(*jax.tree.leaves_with_path(self.state.params), strict=True)
        return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]

    def _prediction(self) -> dict[str, Any]:
        if not self.program.arm.link:
            return {}
        metrics = pdt_optax.metrics(self.state.opt_state)
        before, self.predictions = self.predictions, int(metrics.predictions)
        number = self.predictions - before
        if not number:
            return {}
        radius = metrics.spectral_radius
        return {
            "predicted": True,
            "predictions": number if number > 1 else None,
            "mask_ratio": float(metrics.mask_ratio),
            "prediction_error": float(metrics.prediction_error),
            "spectral_radius": None if radius is None else float(jnp.max(radius)),
            "layer_mask_ratios": [
                float(ratio) for ratio in jax.tree.leaves(metrics.mask_ratio_per_leaf)
            ],
        }


def scored_examples(workload: Workload, arm: Arm, seed: int, number: int) -> Examples:
    """The validation split, or train examples of all classes in the order of epoch 0."""
    if arm.link and arm.link.scores_on == "validation":
        return workload.validation()
    dataset = workload.dataset
    if isinstance(dataset, ArrayDataset):
        dataset = dataclasses.replace(dataset, order=ORDERS["shuffled"])
    return next(dataset.epoch_batches(seed, 0, min(number, dataset.size("train"))))


def initial(workload: Workload, arm: Arm, seed: int, placement: Placement) -> TrainState:
    """The state before the first step."""
    return TrainState(*placement.put(*workload.init(seed), arm.optimizer))


def compile_arm(
    workload: Workload, arm: Arm, batch_size: int, num_scored: int, placement: Placement = ONE
) -> Program:
    """Compiles the step of an arm and counts its operations."""
    state = initial(workload, arm, 0, placement)
    params, model_state, _ = state
    shardings = None if placement.mesh is None else jax.tree.map(lambda x: x.sharding, state)
    step = train_step(workload.loss, arm.optimizer, workload.score)
    step = jax.jit(step, donate_argnums=0, out_shardings=shardings)
    batches = workload.dataset.epoch_batches(0, 0, batch_size, read=placement.read)
    batch = placement.put_read(next(batches), batch_size)
    scored = placement.put_whole(scored_examples(workload, arm, 0, num_scored))
    gradient = jax.value_and_grad(workload.loss, has_aux=True)
    steps = workload.dataset.steps_per_epoch(batch_size)
    epoch_flops = None
    if arm.is_counted:
        epoch_flops = steps * flops(gradient, params, model_state, batch)
    event_flops = 0.0
    if arm.link:
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        calls = arm.link.candidates
        value = flops(workload.score, params, model_state, scored) if calls else 0.0
        event_flops = arm.link.event_flops(size, value)
    start = time.perf_counter()
    compiled = step.lower(state, batch, scored).compile()
    compile_seconds = time.perf_counter() - start
    # The first call is slow: not timed.
    jax.block_until_ready(compiled(state, batch, scored))
    return Program(arm, compiled, compile_seconds, epoch_flops, event_flops)
