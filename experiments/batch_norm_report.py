"""The table of what jumps do to running statistics."""

from collections.abc import Sequence
import statistics
from typing import Any

from experiments.reports import tables

START = 5  # The epoch of the first jump.
_COLUMNS = ("jumped", "stale", "refreshed")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the records in Markdown, from the first jump on.

    One line for the epochs of an arm that end with a jump and one for the others, over all seeds.
    """
    heading = ("", "epochs", "jumped %", "stale", "refreshed", "worst stale", "worst refreshed")
    lines: list[tuple[str, ...]] = [heading]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        here = [row for row in rows if row["arm"] == arm and row["epoch"] >= START]
        for kind, part in {
            "after a jump": [row for row in here if row["jumped"]],
            "other epochs": [row for row in here if not row["jumped"]],
        }.items():
            if not part:
                continue
            jumped, stale, fresh = ([row[name] for row in part] for name in _COLUMNS)
            losses = (*map(statistics.median, (stale, fresh)), max(stale), max(fresh))
            share = f"{100 * statistics.median(jumped):.0f}"
            texts = [f"{loss:.3f}" for loss in losses]
            lines.append((f"{arm}, {kind}", str(len(part)), share, *texts))
    return tables.grid([[(cell,) for cell in line] for line in lines], labels=1)
