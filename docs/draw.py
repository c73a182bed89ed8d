"""Draws the pictures of the pages: `python docs/draw.py` writes `docs/figures/*.svg`."""

import ast
from collections.abc import Callable, Mapping
import pathlib
import textwrap
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
import numpy as np

import pdt_optax

HERE = pathlib.Path(__file__).parent
GREY, BLUE, ORANGE, GREEN, PALE = "#4d4d4d", "#0072B2", "#D55E00", "#009E73", "#eef3f8"
STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "font.size": 10,
    "svg.hashsalt": "pdt_optax",
}
HISTORY, HORIZON = 5, 5
RATE, CURVATURE = 0.05, np.array([2.0, 36.0])
_styled = matplotlib.rc_context(STYLE)


@_styled
def jump() -> Figure:
    """The idea: gradient descent in a valley, and a prediction by the criteria 'bounded'."""
    steps = np.arange(24)[:, None]
    path = np.array([3.0, 0.5]) * (1 - RATE * CURVATURE) ** steps
    known, arrives = path[:HISTORY], path[HISTORY]
    predicted = np.asarray(pdt_optax.dynamics.predicted_path(list(known), HORIZON))
    newest = known[-1]
    merged = np.array([predicted[-1, 0], arrives[1]])
    figure = Figure(figsize=(8.6, 4), layout="constrained")
    axes = figure.subplots()
    x, y = np.meshgrid(np.linspace(-0.1, 3.4, 300), np.linspace(-0.55, 0.65, 300))
    loss = (CURVATURE[0] * x**2 + CURVATURE[1] * y**2) / 2
    levels = np.geomspace(0.05, 16, 11)
    axes.contour(x, y, loss, levels=levels, colors=GREY, alpha=0.25, linewidths=0.8)
    axes.plot(*path.T, color=GREY, linewidth=0.8, alpha=0.5)
    axes.plot(*known.T, "o", color=GREY, markersize=6)
    for number, (point, up) in enumerate(zip(known, (1, -1, 1, -1, 1), strict=True), 1):
        name = f"$s_{number}$" if number < HISTORY else "$s_5 = w(t-1)$"
        _note(axes, name, point, (4, 6 if up > 0 else -16))
    axes.plot(*np.vstack([newest, predicted]).T, "o--", color=BLUE, markersize=4, linewidth=1.2)
    _note(axes, r"$p_\tau$", predicted[-1], (-18, -4), BLUE)
    axes.plot(*arrives, "D", color=ORANGE, markersize=7)
    _note(axes, "$w_{opt}(t)$", arrives, (8, -8), ORANGE)
    axes.plot([arrives[0], merged[0]], [arrives[1], merged[1]], color=GREEN, linewidth=2)
    axes.plot(*merged, "*", color=GREEN, markersize=16)
    note = "$w(t)$: the first weight jumps,\nthe second stays with the optimizer"
    _note(axes, note, merged, (-95, -38), GREEN)
    axes.set(xlabel="first weight", ylabel="second weight")
    return figure


@_styled
def mask() -> Figure:
    """Three weights under the criteria 'bounded': one that jumps and two that do not."""
    times = np.arange(HISTORY)
    cases = (
        ("jumps", 1.0 - 0.82**times, 0.07),
        ("does not: the optimizer turned back", 0.5 - 0.55 * 0.6**times, -0.03),
        ("does not: the path is at its end", 0.9 * (1 - 0.35**times), 0.06),
    )
    figure = Figure(figsize=(8.6, 3), layout="constrained")
    for axes, (title, path, move) in zip(figure.subplots(1, 3), cases, strict=True):
        snapshots = [np.array([value]) for value in path]
        predictor = pdt_optax.predictors.affine_dmd(1)
        ahead = np.asarray(
            pdt_optax.dynamics.predicted_path(snapshots, HORIZON, predictor=predictor)
        )[:, 0]
        newest, now = path[-1], times[-1]
        end = now + HORIZON
        band = newest + move, newest + HORIZON * move
        axes.fill_between([now, end], *band, color=GREEN, alpha=0.14, linewidth=0)
        axes.plot(times, path, "o-", color=GREY, linewidth=1)
        axes.plot(now + np.arange(HORIZON + 1), [newest, *ahead], "o--", color=BLUE, markersize=4)
        axes.add_patch(_arrow((now, newest), (now + 1, newest + move), ORANGE, 2))
        axes.text(end + 0.2, ahead[-1], r"$p_\tau$", color=BLUE, va="center")
        axes.set_title(title, size=10)
        axes.set(xlabel="snapshot", xlim=(-0.4, end + 1.1))
        axes.set_xticks([*times, end], [*(f"$s_{t + 1}$" for t in times), r"$+\tau$"])
        axes.set_yticks([])
    return figure


@_styled
def timeline() -> Figure:
    """When Algorithm 1 predicts, with its defaults."""
    figure = Figure(figsize=(8.6, 2.2), layout="constrained")
    axes = figure.subplots()
    events = (5, 7, 9, 11)
    axes.plot([-0.3, 12.5], [0, 0], color=GREY, linewidth=1)
    for t in range(13):
        predicts = t in events
        marker, color, size = ("*", GREEN, 14) if predicts else ("o", GREY, 7)
        axes.plot(t, 0, marker, color=color, markersize=size)
        axes.text(t, -0.22, f"$w({t})$", ha="center", va="top")
    for row, t in enumerate(events[:2]):
        height = 0.42 + 0.33 * row
        fitted = [t - HISTORY, t - 1], [height, height]
        axes.plot(*fitted, color=BLUE, linewidth=4, solid_capstyle="butt")
        axes.annotate(
            "", (t, 0.14), (t - 1, height), arrowprops={"arrowstyle": "-|>", "color": BLUE}
        )
        axes.text(t - HISTORY - 0.15, height, "fit", ha="right", va="center", color=BLUE)
    axes.text(7.6, 0.6, "$\\bigstar$ end of a period with a prediction", color=GREEN)
    axes.set(xlim=(-1, 12.6), ylim=(-0.5, 1.0))
    axes.set_axis_off()
    return figure


@_styled
def event() -> Figure:
    """What an event costs: one pass to the Gram matrix, small algebra, one pass to the updates."""
    figure = Figure(figsize=(8.6, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 10), ylim=(-0.4, 2.6), aspect="equal")
    axes.set_axis_off()
    for number in range(HISTORY):
        axes.add_patch(_box(0.2 + 0.27 * number, 0.45, 0.22, 1.6, BLUE if number == 4 else PALE))
    axes.text(0.85, 2.2, "history: $h$ arrays", ha="center")
    axes.text(0.85, 0.3, "increments and\nnewest snapshot", ha="center", va="top", color=GREY)
    axes.add_patch(_box(3.1, 0.75, 1.0, 1.0, PALE))
    axes.text(3.6, 1.25, "$B^\\top B$", ha="center", va="center")
    axes.text(3.6, 0.6, "Gram matrix,\n$h \\times h$", ha="center", va="top", color=GREY)
    axes.add_patch(_box(5.6, 0.75, 1.0, 1.0, PALE))
    axes.text(6.1, 1.25, "$C$", ha="center", va="center")
    axes.text(6.1, 0.6, "coefficients,\n$\\tau \\times h$", ha="center", va="top", color=GREY)
    for number, color in enumerate((BLUE, ORANGE, GREEN)):
        axes.add_patch(_box(8.3 + 0.5 * number, 0.45, 0.3, 1.6, color))
    for x, name in zip((8.45, 8.95, 9.45), ("$p_\\tau$", "$w_{opt}$", "$w$"), strict=True):
        axes.text(x, 2.2, name, ha="center")
    steps = (
        (1.7, 3.0, "one pass\none all-reduce"),
        (4.2, 5.5, "DMD on\nsmall matrices"),
        (6.7, 8.2, "one pass:\ncombine,\ncompare, select"),
    )
    for start, end, label in steps:
        axes.add_patch(_arrow((start, 1.25), (end, 1.25)))
        axes.text((start + end) / 2, 1.42, label, ha="center", va="bottom", size=9)
    return figure


@_styled
def design() -> Figure:
    """The modules of the package and what they import, each to the left of what it uses."""
    imports = _imports(HERE.parent / "pdt_optax")
    everywhere = {m for m in imports if sum(m in used for used in imports.values()) > 4}
    imports = _reduced({m: u - everywhere for m, u in imports.items() if m not in everywhere})
    users = {name: {m for m, used in imports.items() if name in used} for name in imports}
    depth = {name: _depth(name, imports) for name in imports}
    columns = [sorted(m for m in imports if depth[m] == d) for d in range(max(depth.values()) + 1)]
    rows = max(len(column) for column in columns)
    height = dict.fromkeys(imports, rows / 2)
    for near in (imports, users) * 4:  # So that few arrows cross.
        for column in columns:
            column.sort(key=lambda name: _mean([height[m] for m in near[name]], height[name]))
            for number, name in enumerate(column):
                height[name] = (number + 0.5) / len(column) * rows
    figure = Figure(figsize=(8.6, 0.3 * rows + 0.9), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 10), ylim=(-2.2, rows))
    axes.set_axis_off()
    left = {name: 8.2 * (1 - depth[name] / max(depth.values())) for name in imports}
    for name, used in imports.items():
        for other in used:
            axes.add_patch(
                _arrow((left[name] + 1.8, height[name]), (left[other], height[other]), width=0.6)
            )
    for name in imports:
        color = "#d5e6f3" if name == "_transform" else PALE
        axes.add_patch(_box(left[name], height[name] - 0.35, 1.8, 0.7, color))
        axes.text(left[name] + 0.9, height[name], name, ha="center", va="center", size=9)
    note = f"used by five or more of these: {', '.join(sorted(everywhere))}"
    axes.text(5, -1.2, textwrap.fill(note, 100), ha="center", va="center", size=9)
    return figure


def _imports(package: pathlib.Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports; a folder counts as one."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).parts[0].removesuffix(".py")
        if name == "__init__":
            continue
        used = found.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package.name):
                parts = (node.module or "").split(".")[1:2]
                used.update(parts or [alias.name for alias in node.names])
        used.discard(name)
    return {name: {other for other in used if other in found} for name, used in found.items()}


def _reduced(imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Without the imports that follow from others."""

    def reach(name: str) -> set[str]:
        return imports[name].union(*(reach(other) for other in imports[name]))

    return {
        name: used - set().union(*(reach(other) for other in used))
        for name, used in imports.items()
    }


def _depth(name: str, imports: Mapping[str, set[str]]) -> int:
    return 1 + max((_depth(other, imports) for other in imports[name]), default=-1)


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _note(axes: Axes, text: str, point, offset, color: str = GREY) -> None:
    axes.annotate(text, point, xytext=offset, textcoords="offset points", color=color)


def _box(x: float, y: float, width: float, height: float, color: str) -> FancyBboxPatch:
    style = "round,pad=0,rounding_size=0.06"
    look = {"facecolor": color, "edgecolor": GREY, "linewidth": 0.6}
    return FancyBboxPatch((x, y), width, height, style, **look)


def _arrow(start, end, color: str = GREY, width: float = 1.2) -> FancyArrowPatch:
    look = {"arrowstyle": "-|>", "mutation_scale": 9, "color": color, "linewidth": width}
    return FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **look)


PICTURES: Mapping[str, Callable[[], Figure]] = {
    "jump": jump,
    "mask": mask,
    "timeline": timeline,
    "event": event,
    "design": design,
}


def main() -> None:
    """Draws them all."""
    folder = HERE / "figures"
    folder.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        draw().savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
