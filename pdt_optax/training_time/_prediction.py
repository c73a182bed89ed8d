"""The result of a prediction, and the reasons to distrust it."""

import dataclasses
from typing import Literal

import numpy as np

from pdt_optax.training_time._kernel import EmpiricalKernel


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingTimePrediction:
    """What training is predicted to do.

    Made by :func:`pdt_optax.training_time.predict_training_time`.

    Attributes:
      steps: until the loss is at most the threshold; None unless `status` is ``'reached'``.
      status: ``'reached'``; ``'not_reached'`` within `max_steps`; ``'never'``: weight decay, or
        a kernel without the rank, keeps the loss above; ``'unstable'``: the linearised
        network diverges (a real one may yet find flatter ground).
      grid: numbers of steps, int64.
      loss: predicted after `grid` steps over all examples, float64.
      accuracy: the same, None if unknown.
      initial_loss: of the network itself.
      threshold: the loss to reach.
      effective_learning_rate: the greatest learning rate over one less the momentum.
      lambda_max: greatest eigenvalue of the kernel.
      stability: greatest step along the steepest direction in units of the greatest that
        does not diverge; stable below 1.
      kernel_rank: number of eigenvalues that are not rounding.
      sample_gradients: gradients of single examples it took; training takes steps times batch.
      warnings: reasons to distrust it.
    """

    steps: int | None
    status: Literal["reached", "not_reached", "never", "unstable"]
    grid: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    initial_loss: float
    threshold: float
    effective_learning_rate: float
    lambda_max: float
    stability: float
    kernel_rank: int
    sample_gradients: int
    warnings: tuple[str, ...]


def warnings(
    *,
    quadratic: bool,
    kernel: EmpiricalKernel,
    relative: float,
    linearizations: int,
    stability: float,
    falls: bool,
    steps: int | None,
    is_deficient: bool,
) -> tuple[str, ...]:
    """Reasons to distrust a prediction.

    Args:
      quadratic: whether the loss is a squared error.
      kernel: what was predicted with.
      relative: the loss to reach, as a part of the initial one.
      linearizations: how often the network was linearised.
      stability: as in the prediction.
      falls: whether the learning rate may be that large for a while only.
      steps: to that loss, None if it is not reached.
      is_deficient: whether the kernel has not full rank.
    """
    late = 0.3 if linearizations == 1 and not quadratic else 0.2
    dim = kernel.projection_dim
    examples = kernel.matrix.shape[0 if kernel.matrix.ndim == 4 else -1]
    found = {
        f"The threshold is {relative:.2g} of the initial loss: below {late} the real kernel has "
        "moved and the prediction is too slow.": relative < late,
        f"The step is {stability:.2g} of the greatest stable one: the linearised network diverges"
        f"{' meanwhile' if falls else ''}, a real one may find flatter ground.": stability >= 1,
        f"Gradients are projected to {dim} dimensions, fewer than two for each "
        "example: modes beyond the rank never decay.": dim is not None and dim < 2 * examples,
        "The kernel has not full rank: residual outside it never decays.": steps is None
        and is_deficient,
        f"{steps} steps are few: one more or less is {100 / max(steps or 1, 1):.0f} %.": steps
        is not None
        and 0 < steps < 25,
    }
    return tuple(text for text, applies in found.items() if applies)


def extrapolated(
    large: TrainingTimePrediction,
    small: TrainingTimePrediction,
    doublings: float,
    max_steps: int,
) -> TrainingTimePrediction:
    """The prediction of a subset, its steps extrapolated to all examples."""
    steps, status = large.steps, large.status
    if large.steps and small.steps:
        steps = round(large.steps * (large.steps / small.steps) ** doublings)
    elif large.steps:
        steps, status = None, "not_reached"
    if steps is not None and steps > max_steps:
        steps, status = None, "not_reached"
    note = (
        f"Steps are extrapolated from predictions of {large.steps} and, with half of the examples "
        f"used, {small.steps}; the curve is that of the examples used."
    )
    return dataclasses.replace(
        large,
        steps=steps,
        status=status,
        sample_gradients=large.sample_gradients + small.sample_gradients,
        warnings=(*large.warnings, note),
    )
