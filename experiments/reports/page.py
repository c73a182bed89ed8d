"""One self-contained HTML page of all studies, made from their records alone."""

import base64
from collections.abc import Mapping, Sequence
import io
import pathlib
from typing import Any

import jinja2
from matplotlib.figure import Figure

from experiments.reports import figures, summary, tables, time_to_target
from experiments.runs import records
from experiments.settings import changed

# What the paper reports as saved time to the base's best loss: study and run -> row, value.
PUBLISHED: Mapping[tuple[str, str], tuple[str, str]] = {
    ("controls", "fcn_sgd"): ("Table 1, FCN", "39.6 %"),
    ("table1", "fully_convolutional"): ("Table 1, FCN", "39.6 %"),
    ("table1", "alexnet"): ("Table 1, AlexNet", "37.0 %"),
    ("table1", "resnet18"): ("Table 1, ResNet-50", "19.4 %"),
    ("table1", "vit"): ("Table 1, ViT-Base", "10.2 %"),
    ("table3", "simsiam"): ("Table 3, SimSiam", "48.8 %"),
}
_HEADING = ["the paper", "our run", "saved time there", "ours: paper", "bounded", "verified"]

Runs = Mapping[str, pathlib.Path]  # Name of a run -> its folder.


def find(results: pathlib.Path) -> dict[str, dict[str, pathlib.Path]]:
    """Studies and their runs below a folder; a run by itself is a study of one run.

    Folders of other programs, with other records, are left out.
    """
    studies: dict[str, dict[str, pathlib.Path]] = {}
    for config in sorted(results.glob("**/" + records.CONFIG)):
        run_dir = config.parent
        settings = records.read_config(run_dir).get("config", {})
        if {"model", "dataset", "optimizer"} <= settings.keys() and records.read(run_dir):
            parts = run_dir.relative_to(results).parts
            studies.setdefault(parts[0], {})["/".join(parts[1:]) or parts[0]] = run_dir
    return studies


def write(results: pathlib.Path) -> str:
    """Returns the page of the studies in a folder.

    Raises:
      ValueError: if there are no records.
    """
    studies = find(results)
    if not studies:
        raise ValueError(f"{results} holds no records.")
    loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html.j2")
    sections = {name: _section(runs) for name, runs in studies.items()}
    return template.render(studies=sections, published=_published(studies))


def _published(studies: Mapping[str, Runs]) -> list[list[str]]:
    """A table, the heading first."""
    rows = [_HEADING]
    for (study, run), (row, value) in PUBLISHED.items():
        if run in studies.get(study, {}):
            scores = time_to_target.score(records.read(studies[study][run]))
            arms = time_to_target.by_arm(scores)
            saved = [_saved(arms.get(arm, [])) for arm in ("paper", "bounded", "verified")]
            rows.append([row, f"{study}/{run}", value, *saved])
    return rows


def _saved(scores: Sequence[time_to_target.Score]) -> str:
    """Median of the time saved to the base's best train loss, if most get there."""
    if not scores:
        return ""
    median = time_to_target.spread((s.loss_reduction for s in scores), float("-inf")).median
    return "never" if median is None else f"{100 * median:.1f} %"


def _section(runs: Runs) -> dict[str, Any]:
    rows = {run: records.read(folder) for run, folder in runs.items()}
    scores = {run: time_to_target.score(part) for run, part in rows.items()}
    parts = [_details(run, runs[run], rows[run], scores[run]) for run in runs]
    return {"rows": tables.rows(scores), "runs": parts}


def _details(
    run: str,
    folder: pathlib.Path,
    rows: Sequence[records.Record],
    scores: Sequence[time_to_target.Score],
) -> dict[str, Any]:
    config = records.read_config(folder)
    drawn = {"losses, accuracies, mask": figures.draw(rows, summary.describe(config["config"]))}
    for arm in figures.masked_arms(rows):
        if arm in ("paper", "verified"):
            drawn[f"mask by layer of {arm}"] = figures.draw_mask(rows, arm)
    settings = changed(records.read_run_config(folder))
    return {
        "name": run,
        "seeds": ", ".join(sorted({str(s.seed) for s in scores}, key=int)),
        "figures": {text: _image(figure) for text, figure in drawn.items()},
        "origin": summary.origin(config),
        "settings": "\n".join(f"{name} = {value}" for name, value in settings.items()),
    }


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=110, pil_kwargs={"quality": 80})
    return base64.b64encode(buffer.getvalue()).decode()
