"""The table of the language study, from its records alone."""

from collections.abc import Callable, Sequence
import sys
from typing import Any

import numpy as np

from experiments.language.arms import ARMS
from experiments.language.training import EVERY
from experiments.reports import tables

Row = dict[str, Any]
_HEADING = ("arm", "rate", "final validation loss", "against AdamW", "jumps", "steps")


def best_rate(rows: Sequence[Row], arm: str) -> float:
    """Of the tuning runs of an arm; stops the program if there are none."""
    tuned = [row for row in rows if row["stage"] == "tune" and row["arm"] == arm]
    if not tuned:
        sys.exit("`stages`: tune must come first.")
    return min(tuned, key=_last)["learning_rate"]


def table(rows: Sequence[Row]) -> str:
    """A line for each arm, mean and [least, most] over the seeds.

    Steps are those until the validation loss is what AdamW ends at on the same seed.
    """
    reported = {(row["arm"], row["seed"]): row for row in rows if row["stage"] == "report"}
    lines = []
    for name, arm in ARMS.items():
        pairs = [
            (row, reported["adamw", seed])
            for (other, seed), row in reported.items()
            if other == name and ("adamw", seed) in reported
        ]
        if pairs:
            lines.append([arm.title, *_cells(pairs)])
    return tables.grid(_HEADING, lines, labels=1)


def _cells(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    def over(value: Callable[[Row, Row], float], digits: int, sign: str = "") -> str:
        return tables.mean_and_range([value(*pair) for pair in pairs], f"{sign}.{digits}f")

    return [
        f"{pairs[0][0]['learning_rate']:g}",
        over(lambda row, base: _last(row), 3),
        over(lambda row, base: _last(row) - _last(base), 3, "+"),
        over(lambda row, base: row["jumps"], 0),
        _to_target(pairs),
    ]


def _to_target(pairs: Sequence[tuple[Row, Row]]) -> str:
    found = []
    for row, base in pairs:
        there = [n for n, loss in enumerate(row["validation_losses"], 1) if loss <= _last(base)]
        found += [there[0] * EVERY] if there else []
    return tables.mean_of_reached(found, len(pairs))


def _last(row: Row) -> float:
    loss = row["validation_losses"][-1]
    return loss if np.isfinite(loss) else np.inf
