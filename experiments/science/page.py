"""The page of a study: `report.md`, `losses.png` and a picture of each solution."""

from collections.abc import Iterator, Sequence
import pathlib

from matplotlib.figure import Figure

from experiments.science import pictures, runs, solutions, summary

DRAWN = ("adam", "lbfgs", "muon", "solve")
"""Rivals whose solutions are drawn."""


def write(folder: pathlib.Path, recorded: Sequence[runs.Run]) -> Iterator[pathlib.Path]:
    """Writes the pictures and the page that shows them, and tells their paths."""
    losses = pictures.draw_losses(summary.whole(recorded))
    drawn = {"losses": losses, **dict(_fields(folder, recorded))}
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png")
        yield folder / f"{name}.png"
    links = "\n\n".join(f"![{name}]({name}.png)" for name in drawn)
    page = folder / "report.md"
    page.write_text(f"# Rivals at equal seconds\n\n{summary.report(recorded)}\n{links}\n")
    yield page


def _fields(folder: pathlib.Path, recorded: Sequence[runs.Run]) -> Iterator[tuple[str, Figure]]:
    """A picture of each task whose solutions are kept, of the first seed that has all."""
    for problem in summary.problems(recorded):
        of_problem = [run for run in recorded if run.setting.problem == problem]
        held = summary.methods(of_problem)
        wanted = [name for name in DRAWN if name in held]
        for seed in sorted({run.setting.seed for run in of_problem}):
            shown = {
                run.setting.method: run
                for run in of_problem
                if run.setting.seed == seed and runs.field_path(folder, run.setting).exists()
            }
            if wanted and set(wanted) <= set(shown):
                chosen = [shown[name] for name in wanted]
                yield problem.replace("/", "_"), solutions.draw(folder, chosen)
                break
