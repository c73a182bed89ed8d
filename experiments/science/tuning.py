"""The choice of learning rates, on seeds of their own."""

from collections.abc import Mapping
import json
import math
import pathlib
import statistics

from experiments.science import runs

TUNED = pathlib.Path(__file__).with_name("tuned.json")
Rates = Mapping[str, Mapping[str, float]]
"""From the problem and the method to the rate."""


def read(path: pathlib.Path) -> Rates:
    """The choices of before; none where there is no file."""
    return json.loads(path.read_text()) if path.exists() else {}


def choose(recorded: list[runs.Run], before: Rates) -> dict[str, dict[str, float]]:
    """For each task and rival the rate with the least mean log of the final loss over the seeds.

    Args:
      recorded: runs at several rates.
      before: earlier choices; those of other tasks and rivals are kept.
    """
    finals: dict[tuple[str, str], dict[float, list[float]]] = {}
    for run in recorded:
        if run.setting.rate is not None:
            final = run.loss[-1] if run.status == "finished" else math.inf
            rates = finals.setdefault((run.setting.problem, run.setting.method), {})
            rates.setdefault(run.setting.rate, []).append(math.log(max(final, 1e-300)))
    chosen = {task: dict(methods) for task, methods in before.items()}
    for (task, method), rates in finals.items():
        best = min(rates, key=lambda rate: statistics.fmean(rates[rate]))
        chosen.setdefault(task, {})[method] = best
    return chosen
