"""Scores records: how soon an arm reaches what the base run reached, as pure functions.

The targets are per seed, those of the base run of the same seed: its best train loss (TTB-Loss) and
its best validation accuracy (TTB-Acc). The base is held to its own first crossing, never to its
total. A miss is `None` and counts as infinite.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import math
import statistics
from typing import NamedTuple

import numpy as np

from experiments.runs.records import EndRecord, EpochRecord, Record

BASE = "base"


class Crossing(NamedTuple):
    """The first epoch that reached a target, the training seconds until its end, and the saving.

    All three are `None` if the target was missed.
    """

    epochs: int | None = None
    seconds: float | None = None
    reduction: float | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """One arm of one seed.

    Attributes:
      seed: as in the records.
      arm: as in the records.
      status: 'finished', 'diverged' or 'unfinished'.
      loss_epochs: TTB-Loss in epochs, `None` if missed.
      loss_seconds: TTB-Loss in training seconds.
      loss_reduction: runtime reduction 1 - TTB-Loss / base's TTB-Loss, in seconds.
      accuracy_epochs: TTB-Acc in epochs, `None` if missed.
      accuracy_seconds: TTB-Acc in training seconds.
      accuracy_reduction: runtime reduction 1 - TTB-Acc / base's TTB-Acc, in seconds.
      train_loss: after the last epoch, `None` if not finite.
      validation_accuracy: after the last epoch.
      test_accuracy: after the last epoch.
      mask_ratio: mean over the predictions, `None` if there were none.
      compile_seconds: time to compile the train step.
      flops_reduction: 1 - the floating-point operations to TTB-Loss / those of the base, `None` if
        missed or not counted.
    """

    seed: int
    arm: str
    status: str
    loss_epochs: int | None
    loss_seconds: float | None
    loss_reduction: float | None
    accuracy_epochs: int | None
    accuracy_seconds: float | None
    accuracy_reduction: float | None
    train_loss: float | None
    validation_accuracy: float | None
    test_accuracy: float | None
    mask_ratio: float | None
    compile_seconds: float | None
    flops_reduction: float | None = None


class Spread(NamedTuple):
    """Median and range over seeds; `None` where it is infinite, i.e. rests on a miss."""

    median: float | None
    low: float | None
    high: float | None


def score(records: Iterable[Record]) -> list[Score]:
    """Scores every arm of every seed, in the order in which they first appear."""
    epochs: dict[tuple[int, str], list[EpochRecord]] = {}
    ends: dict[tuple[int, str], EndRecord] = {}
    for record in records:
        if isinstance(record, EpochRecord):
            epochs.setdefault((record.seed, record.arm), []).append(record)
        else:
            ends[record.seed, record.arm] = record
    return [
        _score(rows, epochs.get((seed, BASE), []), ends.get((seed, arm)), ends.get((seed, BASE)))
        for (seed, arm), rows in epochs.items()
    ]


def by_arm(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Groups scores by arm, in the order of first appearance."""
    arms: dict[str, list[Score]] = {}
    for score in scores:
        arms.setdefault(score.arm, []).append(score)
    return arms


def low_loss(record: EpochRecord) -> float:
    """Merit by which TTB-Loss ranks epochs: minus the train loss."""
    return -math.inf if record.train_loss is None else -record.train_loss


def high_accuracy(record: EpochRecord) -> float:
    """Merit by which TTB-Acc ranks epochs: the validation accuracy."""
    return -math.inf if record.validation_accuracy is None else record.validation_accuracy


def crossing(
    rows: Sequence[EpochRecord], base: Sequence[EpochRecord], merit: Callable[[EpochRecord], float]
) -> Crossing:
    """Finds the first of an arm's epochs whose merit is at least the best one of the base run."""
    target = max(map(merit, base), default=-math.inf)
    if target == -math.inf:
        return Crossing()
    base_first = next(r for r in base if merit(r) == target)
    first = next((r for r in rows if merit(r) >= target), None)
    if first is None:
        return Crossing()
    return Crossing(first.epoch, first.seconds, 1 - first.seconds / base_first.seconds)


def spread(values: Iterable[float | None], miss: float = math.inf) -> Spread:
    """Returns median, least and greatest value over seeds.

    Args:
      values: one value per seed, `None` for a miss.
      miss: what a miss counts as: inf where little is good, -inf where much is good.
    """
    numbers = [miss if value is None else value for value in values]
    return Spread(
        *(
            number if math.isfinite(number) else None
            for number in (statistics.median(numbers), min(numbers), max(numbers))
        )
    )


def interval(
    values: Iterable[float | None], miss: float = math.inf, level: float = 0.95
) -> tuple[float | None, float | None]:
    """Bootstrap interval of the median over seeds (percentiles of 10,000 resamples).

    Args:
      values: one value per seed, `None` for a miss.
      miss: what a miss counts as.
      level: coverage aimed at; with few seeds it is nearly the range.

    Returns:
      Lower and upper end, `None` where it is infinite.
    """
    numbers = np.array([miss if value is None else value for value in values], float)
    samples = np.random.default_rng(0).choice(numbers, (10_000, len(numbers)))
    medians = np.median(samples, axis=1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(medians, tails, method="nearest")
    return _finite(low), _finite(high)


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def flops(rows: Sequence[EpochRecord], end: EndRecord | None, epochs: int | None) -> float | None:
    """Floating-point operations of an arm's first epochs, predictions included."""
    if end is None or end.epoch_flops is None or epochs is None:
        return None
    events = sum(row.predictions or row.predicted for row in rows[:epochs])
    return epochs * end.epoch_flops + events * (end.event_flops or 0.0)


def _flops_reduction(
    rows: Sequence[EpochRecord],
    end: EndRecord | None,
    base: Sequence[EpochRecord],
    base_end: EndRecord | None,
) -> float | None:
    spent = flops(rows, end, crossing(rows, base, low_loss).epochs)
    base_spent = flops(base, base_end, crossing(base, base, low_loss).epochs)
    return None if spent is None or not base_spent else 1 - spent / base_spent


def _score(
    rows: Sequence[EpochRecord],
    base: Sequence[EpochRecord],
    end: EndRecord | None,
    base_end: EndRecord | None,
) -> Score:
    ratios = [r.mask_ratio for r in rows if r.mask_ratio is not None]
    last = rows[-1]
    return Score(
        last.seed,
        last.arm,
        end.status if end else "unfinished",
        *crossing(rows, base, low_loss),
        *crossing(rows, base, high_accuracy),
        train_loss=last.train_loss,
        validation_accuracy=last.validation_accuracy,
        test_accuracy=end.test_accuracy if end else None,
        mask_ratio=statistics.fmean(ratios) if ratios else None,
        compile_seconds=end.compile_seconds if end else None,
        flops_reduction=_flops_reduction(rows, end, base, base_end),
    )
