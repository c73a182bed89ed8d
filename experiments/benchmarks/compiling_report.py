"""Table of `experiments.benchmarks.compiling`."""

from collections.abc import Mapping, Sequence
import statistics
from typing import Any

ADAM = "Adam"


def medians(row: Mapping[str, Any]) -> dict[str, float]:
    """Median seconds over the rounds, tracing and compiling together."""
    return {name: statistics.median(map(sum, rounds)) for name, rounds in row["seconds"].items()}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Seconds with Adam alone, and how many times as long a step with PDT takes; Markdown."""
    links = [name for name in rows[0]["seconds"] if name != ADAM]
    lines = [
        f"| network | leaves | Adam, s | {' | '.join(links)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(links)}",
    ]
    for row in rows:
        found = medians(row)
        ratios = " | ".join(f"{found[name] / found[ADAM]:.1f}" for name in links)
        lines.append(f"| {row['network']} | {row['leaves']} | {found[ADAM]:.2f} | {ratios} |")
    return "\n".join(lines)
