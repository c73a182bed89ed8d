"""The tables of the study, from its records alone."""

from collections.abc import Callable, Iterator, Sequence
import sys
from typing import Any

import numpy as np

from experiments.post_training import stops
from experiments.post_training.arms import ARMS, CALL
from experiments.post_training.pretraining import STARTS
from experiments.post_training.training import EVERY
from experiments.reports import tables

Row = dict[str, Any]
BASE, SLOW = "grpo", "slow"
WITHOUT_JUMPS = (BASE, SLOW)
_ARMS = (
    *("start", "arm", "rate", "sampled", "against GRPO", "greedy", "jumps", "calls", "steps"),
    "steps and calls",
)
_FURTHER = [f"{factor:g} times as far" for factor in stops.FURTHER]
_STOPS = (
    *("start", "arm", "seen", "stopped", "mean of its second half", "rank one, no further"),
    *(f"{way}, {name}" for way in ("rank one", "secant") for name in (*_FURTHER, "to the end")),
    "not stopped",
)
_LINEARITY = ("start", "weights of", "single weights", "energy in rank one", "rank one")


def rate(rows: Sequence[Row], start: str, arm: str) -> float:
    """The best of the tuning runs of an arm, or its share of that of GRPO."""
    share = ARMS[arm].share
    tuned: dict[float, list[float]] = {}
    for row in rows:
        is_it = row["arm"] == (arm if share is None else BASE) and row["start"] == start
        if is_it and row["stage"] == "tune":
            tuned.setdefault(row["learning_rate"], []).append(_last(row))
    if not tuned:
        sys.exit("`stages`: tune must come first.")
    return max(tuned, key=lambda rate: np.mean(tuned[rate])) * (1 if share is None else share)


def report(rows: Sequence[Row]) -> str:
    """All tables."""
    return "\n\n".join(make(rows) for make in (table, stops_table, linearity_table))


def table(rows: Sequence[Row]) -> str:
    """A line for each arm: held-out rewards, mean and [least, most] over the seeds.

    Steps are those until sampling earns what GRPO ends with on the same start and seed; then with
    the calls of `value_fn` up to there, in steps.
    """
    lines = []
    for start, arm, found in _groups(rows):
        base = {row["seed"]: row for row in _reported(rows, start, BASE)}
        pairs = [(row, base[row["seed"]]) for row in found if row["seed"] in base]
        if pairs:
            lines.append([STARTS[start].title, ARMS[arm].title, *_cells(pairs)])
    return tables.grid(_ARMS, lines, labels=2)


def stops_table(rows: Sequence[Row]) -> str:
    """Held-out rewards of sampling after a share of the steps, means over the seeds."""
    lines = []
    for start, arm, found in _groups(rows):
        for share in found[0].get("stops", ()):
            names = found[0]["stops"][share]
            means = [np.mean([row["stops"][share][name] for row in found]) for name in names]
            means.append(np.mean([_last(row) for row in found]))
            labels = [STARTS[start].title, ARMS[arm].title, f"{float(share):.0%}"]
            lines.append([*labels, *(f"{mean:.3f}" for mean in means)])
    return tables.grid(_STOPS, lines, labels=2)


def linearity_table(rows: Sequence[Row]) -> str:
    """Of the tensors of all seeds the median and [least, most]."""
    lines = []
    for start, arm, found in _groups(rows):
        named = [("linearity", ARMS[arm].title), ("pretraining", "pretraining")]
        for key, title in [*named, ("walk", "a random walk")] if arm == BASE else named[:1]:
            tensors = [tensor for row in found for tensor in row.get(key, ())]
            if tensors:
                cells = map(_spread, zip(*tensors, strict=True))
                lines.append([STARTS[start].title, title, *cells])
    return tables.grid(_LINEARITY, lines, labels=2)


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Start, arm and the reported rows of both, in the order of the registries."""
    for start in STARTS:
        for arm in ARMS:
            found = _reported(rows, start, arm)
            if found:
                yield start, arm, found


def _reported(rows: Sequence[Row], start: str, arm: str) -> list[Row]:
    key = ("report", start, arm)
    found = [row for row in rows if (row["stage"], row["start"], row["arm"]) == key]
    return sorted(found, key=lambda row: row["seed"])


def _cells(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    def over(value: Callable[[Row, Row], float], digits: int, sign: str = "") -> str:
        return tables.mean_and_range([value(*pair) for pair in pairs], f"{sign}.{digits}f")

    return [
        f"{pairs[0][0]['learning_rate']:g}",
        over(lambda row, base: _last(row), 3),
        over(lambda row, base: _last(row) - _last(base), 3, "+"),
        over(lambda row, base: row["greedy"], 3),
        over(lambda row, base: row["jumps"], 0),
        over(lambda row, base: row["value_calls"], 0),
        _to_target(pairs, lambda row: 0.0),
        _to_target(pairs, lambda row: CALL[ARMS[row["arm"]].value] * row["value_calls"]),
    ]


def _to_target(pairs: Sequence[tuple[Row, Row]], extra: Callable[[Row], float]) -> str:
    """Steps, and what else a run costs in steps, spread evenly over it."""
    found = []
    for row, base in pairs:
        there = [n for n, reward in enumerate(row["rewards"], 1) if reward >= _last(base)]
        cost = EVERY + extra(row) / len(row["rewards"])
        found += [there[0] * cost] if there else []
    return tables.mean_of_reached(found, len(pairs))


def _spread(values: Sequence[float]) -> str:
    middle, *ends = (f"{v:.2f}" for v in (np.nanmedian(values), min(values), max(values)))
    return f"{middle} [{', '.join(ends)}]"


def _last(row: Row) -> float:
    """What a run ends with: the mean of the last four evaluations, which differ by noise."""
    return float(np.mean(row["rewards"][-4:]))
