"""Tables in Markdown: loss, error and seconds of each rival on each task, over the seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import math
import statistics

from experiments.reports.tables import grid
from experiments.science import rivals, tasks
from experiments.science.runs import Run

Cells = Mapping[tuple[str, str], Sequence[float]]
"""From problem and method to a number for each seed."""
BASE = "adam"
SOLVE = "solve"


def problems(recorded: Iterable[Run]) -> list[str]:
    """Names of what was run, in the order of `tasks.TASKS`."""
    order = list(tasks.TASKS)
    names = {run.setting.problem: run.setting.task for run in recorded}
    return sorted(names, key=lambda name: (order.index(names[name]), name))


def methods(recorded: Iterable[Run]) -> list[str]:
    """Names of the rivals that were run, in the order of `rivals.ALL`."""
    held = {run.setting.method for run in recorded}
    return [name for name in rivals.ALL if name in held]


def whole(recorded: Iterable[Run]) -> list[Run]:
    """The runs that take all of their seconds."""
    return [run for run in recorded if run.setting.method != rivals.THIRD]


def cells(recorded: Iterable[Run], number: Callable[[Run], float]) -> Cells:
    """A number of each run, collected over the seeds."""
    collected: dict[tuple[str, str], list[float]] = {}
    for run in recorded:
        collected.setdefault((run.setting.problem, run.setting.method), []).append(number(run))
    return collected


def seconds_to_base(recorded: Sequence[Run], compiled: bool = False) -> Cells:
    """Seconds until Adam's best loss of the same seed is reached; infinite if it never is.

    Args:
      recorded: runs.
      compiled: whether the seconds of compiling count.
    """
    bases = {
        (run.setting.problem, run.setting.seed): run.best_loss
        for run in recorded
        if run.setting.method == BASE
    }

    def seconds(run: Run) -> float:
        before = run.compile_seconds if compiled else 0.0
        return before + run.seconds_to(bases[run.setting.problem, run.setting.seed])

    rated = [run for run in recorded if (run.setting.problem, run.setting.seed) in bases]
    return cells(rated, seconds)


def table(
    recorded: Sequence[Run], numbers: Cells, digits: int = 2, least_is_best: bool = True
) -> str:
    """Median and range over the seeds, a row for each problem; the best median is bold."""
    names = methods(recorded)
    labels = [rivals.ALL[name].label for name in names]
    rows = []
    for problem in problems(recorded):
        medians = {
            name: statistics.median(numbers[problem, name])
            for name in names
            if (problem, name) in numbers
        }
        best = min(medians.values(), default=math.inf) if least_is_best else math.nan
        row = [
            _cell(numbers[problem, name], digits, medians[name] == best < math.inf)
            if name in medians
            else ""
            for name in names
        ]
        rows.append([problem, *row])
    return grid(["task", *labels], rows, labels=1)


def winners(recorded: Sequence[Run]) -> str:
    """A sentence for each rival: where it ends with the least median loss."""
    losses = cells(recorded, lambda run: run.best_loss)
    won: dict[str, list[str]] = {}
    for problem in problems(recorded):
        medians = {
            name: statistics.median(values)
            for (held, name), values in losses.items()
            if held == problem
        }
        won.setdefault(min(medians, key=lambda name: medians[name]), []).append(problem)
    return "\n".join(
        f"* {rivals.ALL[name].label}: {', '.join(won.get(name, ['nowhere']))}."
        for name in methods(recorded)
    )


def variants(recorded: Sequence[Run]) -> str:
    """Geometric means of the least losses over the seeds, in units of those of `Solve()`."""
    losses = cells(recorded, lambda run: run.best_loss)
    means = {key: statistics.geometric_mean(values) for key, values in losses.items()}
    names = problems(recorded)

    def cell(problem: str, method: str) -> str:
        ran = (problem, method) in means
        return f"{means[problem, method] / means[problem, SOLVE]:.2g}" if ran else ""

    rows = [
        [rivals.ALL[method].label, *(cell(name, method) for name in names)]
        for method in methods(recorded)
        if method != SOLVE
    ]
    return grid(["Adam with", *names], rows, labels=1)


def in_a_third(recorded: Sequence[Run]) -> str:
    """Least losses and final errors of Adam beside those of `Solve` in a third of the time.

    Empty where nothing ran for a third of the time.
    """
    short = [run for run in recorded if run.setting.method == rivals.THIRD]
    if not short:
        return ""
    of_adam = {
        (run.setting.problem, run.setting.seed): run
        for run in recorded
        if run.setting.method == BASE
    }
    rows = []
    for problem in problems(short):
        runs = [run for run in short if run.setting.problem == problem]
        pairs = [(of_adam[problem, run.setting.seed], run) for run in runs]
        lower = sum(new.best_loss <= old.best_loss for old, new in pairs)
        numbers = [
            _cell([number(pair[side]) for pair in pairs], 2, False)
            for number in (lambda run: run.best_loss, lambda run: run.final_error)
            for side in (0, 1)
        ]
        seconds = " and ".join(f"{share * runs[0].setting.seconds:g}" for share in (1, 1 / 3))
        rows.append([problem, seconds, f"{lower} of {len(pairs)}", *numbers])
    heads = ("loss: Adam", "Adam with Solve", "error: Adam", "Adam with Solve")
    return grid(["task", "seconds", "seeds as low", *heads], rows, labels=1)


def report(recorded: Sequence[Run], heading: str = "##") -> str:
    """The whole page, without pictures; each table under a heading."""
    third = in_a_third(recorded)
    recorded = whole(recorded)
    seeds = {run.setting.seed for run in recorded}
    parts = {
        "Least loss": table(recorded, cells(recorded, lambda run: run.best_loss)),
        "Error at the end": table(recorded, cells(recorded, lambda run: run.final_error)),
        "Seconds to Adam's best loss": table(recorded, seconds_to_base(recorded)),
        "The same, with compiling": table(recorded, seconds_to_base(recorded, compiled=True)),
        "Seconds of compiling": table(recorded, cells(recorded, lambda run: run.compile_seconds)),
        "Steps": table(recorded, cells(recorded, lambda run: run.steps[-1]), least_is_best=False),
        **({"In a third of the time": third} if third else {}),
    }
    intro = (
        f"Each run trains for {_budgets(recorded)}, compiling and scoring apart; "
        f"{len(seeds)} seeds. Cells are medians with the range in brackets; "
        "a dash is what was not reached in half of the runs.\n\n"
        f"Where each ends with the least median loss:\n\n{winners(recorded)}"
    )
    return (
        "\n\n".join([intro, *(f"{heading} {title}\n\n{body}" for title, body in parts.items())])
        + "\n"
    )


def _budgets(recorded: Sequence[Run]) -> str:
    """The seconds of most tasks, and behind them those of the others."""
    seconds = {run.setting.problem: run.setting.seconds for run in recorded}
    most = statistics.mode(seconds.values())
    others = [f"{budget:g} on {name}" for name, budget in seconds.items() if budget != most]
    return f"{most:g} seconds" + (f" ({', '.join(others)})" if others else "")


def _cell(numbers: Sequence[float], digits: int, best: bool) -> str:
    median = _number(statistics.median(numbers), digits)
    median = f"**{median}**" if best else median
    low, high = (_number(end, digits) for end in (min(numbers), max(numbers)))
    return median if low == high else f"{median} ({low} to {high})"


def _number(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"
