"""What PDT costs: an event, an ordinary step, an epoch, each beside what it is compared with.

The programs of a comparison are timed in turn, round after round, so that whatever slows the
machine slows all of them; medians over the rounds and ratios are printed and kept.

Example:
  python -m experiments.benchmarks.events --run_dir=experiments/results/bench
"""

from collections.abc import Mapping
import pathlib
import statistics
import sys
import time
from typing import Any

from absl import flags
import optax

from experiments import cli
from experiments.benchmarks import programs, report
from experiments.runs import records

_RUN_DIR = flags.DEFINE_string("run_dir", "runs/bench", "Folder of the records and the picture.")
_SIZES = flags.DEFINE_list(
    "sizes",
    ["100000", "1000000", "4000000", "25000000", "100000000"],
    "Numbers of coordinates of an event, multiples of 1000.",
)
_TEXTBOOK_TO = flags.DEFINE_integer(
    "textbook_to", 25_000_000, "Largest number of coordinates of the textbook events."
)
_MODELS = flags.DEFINE_list("models", ["fcn", "cnn", "vit"], "Models whose steps are timed.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Rounds of each comparison.", lower_bound=1)
_OPTIMIZERS: Mapping[str, optax.GradientTransformation] = {
    "fcn": optax.sgd(0.3),
    "cnn": optax.adamw(0.005),
    "vit": optax.adamw(0.005),
}
_SLOW = 2.0  # Seconds: what takes longer is timed in three rounds.

flags.register_validator(
    "sizes",
    lambda words: all(w.isdecimal() and int(w) > 0 and int(w) % 1000 == 0 for w in words),
    "must be multiples of 1000.",
)
flags.register_validator(
    "models", lambda names: set(names) <= set(_OPTIMIZERS), f"must be of {', '.join(_OPTIMIZERS)}."
)


def main() -> None:
    """Runs the program; comparisons that are recorded already are skipped."""
    run_dir = pathlib.Path(_RUN_DIR.value)
    try:
        records.resume(run_dir, {"rounds": _ROUNDS.value})
    except (ValueError, OSError) as error:
        sys.exit(f"flag --run_dir={run_dir}: {error}")
    done = {(row["kind"], row["of"]) for row in records.read_rows(run_dir)}
    for kind, of in _comparisons():
        if (kind, of) not in done:
            print(f"{kind} {of}", flush=True)
            records.append_row(run_dir, {"kind": kind, "of": of, "seconds": _timed(kind, of)})
    print("\n" + report.table(records.read_rows(run_dir)) + "\n")
    print(report.write(run_dir))


def _comparisons() -> list[tuple[str, Any]]:
    sizes: list[tuple[str, Any]] = [("event", int(size)) for size in _SIZES.value]
    return sizes + [(kind, model) for kind in ("step", "epoch") for model in _MODELS.value]


def _timed(kind: str, of: Any) -> dict[str, list[float]]:
    """The seconds of each round, by the program's name."""
    if kind == "event":
        chosen = programs.events(of, (5, 10), with_textbook=of <= _TEXTBOOK_TO.value)
    else:
        chosen = getattr(programs, f"{kind}s")(of, _OPTIMIZERS[of])
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    order = list(chosen)
    for turn in range(_ROUNDS.value):
        if turn == 3:
            order = [name for name in order if statistics.median(seconds[name]) <= _SLOW]
        order.reverse()
        for name in order:
            start = time.perf_counter()
            chosen[name]()
            seconds[name].append(round(time.perf_counter() - start, 6))
    return seconds


if __name__ == "__main__":
    cli.run(main)
