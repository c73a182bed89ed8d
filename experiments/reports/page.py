"""One self-contained HTML page of all studies, made from their records alone."""

import base64
from collections.abc import Mapping, Sequence
import html
import io
import pathlib
from typing import Any

from matplotlib.figure import Figure

from experiments.reports import figures, mask_figures, summary, tables, time_to_target
from experiments.reports.time_to_target import Score
from experiments.runs import records

_STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe4ea; --head: #f5f7f9; --accent: #0072b2; }
* { box-sizing: border-box; }
body {
  margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1240px; margin: 0 auto; padding: 1.2rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .6rem 0; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; padding-top: .8rem; }
h2 { border-top: 1px solid var(--line); }
p { max-width: 72ch; margin: .4rem 0; }
.soft { color: var(--soft); font-size: .9rem; font-weight: normal; }
nav { display: flex; flex-wrap: wrap; gap: .3rem .9rem; margin: .8rem 0; }
a { color: var(--accent); }
.wide { overflow-x: auto; margin: .8rem 0; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; }
table { font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; vertical-align: top; }
td small { display: block; color: var(--soft); font-weight: normal; }
th { vertical-align: bottom; background: var(--head); font-weight: 600; min-width: 4.4rem; }
tr:last-child td { border-bottom: 0; }
.l { text-align: left; }
td.l { font-weight: 600; }
tr.first td { border-top: 2px solid #c3cad3; }
details { border: 1px solid var(--line); border-radius: 8px; margin: .6rem 0; padding: 0 .8rem; }
summary { cursor: pointer; padding: .5rem 0; font-weight: 600; }
@media (max-width: 600px) { table { font-size: .75rem; } th, td { padding: .3rem .4rem; } }
img { max-width: 100%; height: auto; display: block; margin: .6rem 0; }
pre { overflow-x: auto; background: var(--head); padding: .7rem; border-radius: 6px; }
pre { font-size: .8rem; }
"""

_INTRODUCTION = """Predictive Differential Training beside its base optimizer and beside controls.
Every figure is computed from the records of the runs. <em>Epochs</em>, <em>time</em> and
<em>operations saved</em> count until a run first reaches the best train loss (validation accuracy)
that the base run of the same seed reaches; a miss counts as infinite. Medians over seeds,
[least, most]; the interval is a bootstrap of the median."""

# What the paper reports as saved time to the base's best loss: study and run -> row, value.
PUBLISHED: Mapping[tuple[str, str], tuple[str, str]] = {
    ("controls", "fcn_sgd"): ("Table 1, FCN", "39.6 %"),
    ("table1", "fully_convolutional"): ("Table 1, FCN", "39.6 %"),
    ("table1", "alexnet"): ("Table 1, AlexNet", "37.0 %"),
    ("table1", "resnet18"): ("Table 1, ResNet-50", "19.4 %"),
    ("table1", "vit"): ("Table 1, ViT-Base", "10.2 %"),
    ("table3", "simsiam"): ("Table 3, SimSiam", "48.8 %"),
}

Runs = Mapping[str, pathlib.Path]  # Name of a run -> its folder.


def find(results: pathlib.Path) -> dict[str, dict[str, pathlib.Path]]:
    """Studies and their runs below a folder; a run by itself is a study of one run.

    Folders of other programs, with other records, are left out.
    """
    studies: dict[str, dict[str, pathlib.Path]] = {}
    for config in sorted(results.glob("**/" + records.CONFIG)):
        run_dir = config.parent
        flags = records.read_config(run_dir)["flags"]
        if {"model", "dataset", "optimizer"} <= flags.keys() and records.read(run_dir):
            parts = run_dir.relative_to(results).parts
            studies.setdefault(parts[0], {})["/".join(parts[1:]) or parts[0]] = run_dir
    return studies


def write(results: pathlib.Path, titles: Mapping[str, str]) -> str:
    """Returns the page.

    Args:
      results: folder of the studies.
      titles: what a study is, in a sentence, by its name.

    Raises:
      ValueError: if there are no records.
    """
    studies = find(results)
    if not studies:
        raise ValueError(f"{results} holds no records.")
    order = [*(name for name in titles if name in studies), *sorted(set(studies) - set(titles))]
    studies = {name: studies[name] for name in order}
    links = "".join(f'<a href="#{name}">{_text(name)}</a>' for name in studies)
    sections = "".join(_section(name, titles.get(name, ""), runs) for name, runs in studies.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>pdt_optax: results</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Predictive Differential Training: results</h1><p>{_INTRODUCTION}</p>"
        f"<nav>{links}</nav>{_published(studies)}{sections}</main></body></html>"
    )


def _published(studies: Mapping[str, Runs]) -> str:
    rows = []
    for (study, run), (row, value) in PUBLISHED.items():
        if run not in studies.get(study, {}):
            continue
        arms = time_to_target.by_arm(time_to_target.score(records.read(studies[study][run])))
        saved = [_saved(arms.get(arm, [])) for arm in ("paper", "bounded", "verified")]
        rows.append([row, f"{study}/{run}", value, *saved])
    if not rows:
        return ""
    heading = ["the paper", "our run", "saved time there", "ours: paper", "bounded", "verified"]
    note = (
        "Networks, data and machines differ, ours are smaller. The paper sets the whole time of "
        "the base run against the time that PDT takes to its best loss."
    )
    return f"<h2>Beside the paper</h2>{_table([heading, *rows])}<p class='soft'>{note}</p>"


def _saved(scores: Sequence[Score]) -> str:
    """Median of the time saved to the base's best train loss, if most get there."""
    if not scores:
        return ""
    median = time_to_target.spread((s.loss_reduction for s in scores), float("-inf")).median
    return "never" if median is None else f"{100 * median:.1f} %"


def _section(name: str, title: str, runs: Runs) -> str:
    rows = {run: records.read(folder) for run, folder in runs.items()}
    scores = {run: time_to_target.score(part) for run, part in rows.items()}
    details = "".join(_details(run, runs[run], rows[run], scores[run]) for run in runs)
    return (
        f'<section id="{name}"><h2>{_text(name)}</h2><p>{_text(title)}</p>'
        f"{_table(tables.rows(scores))}{details}</section>"
    )


def _details(
    run: str, folder: pathlib.Path, rows: Sequence[records.Record], scores: Sequence[Score]
) -> str:
    config = records.read_config(folder)
    seeds = ", ".join(sorted({str(s.seed) for s in scores}, key=int))
    drawn = [(figures.draw(rows, summary.describe(config["flags"])), "losses, accuracies, mask")]
    drawn += [(mask_figures.draw(rows, arm), f"mask by layer of {arm}") for arm in _masked(rows)]
    flags = "\n".join(f"--{name}={_value(value)}" for name, value in config["flags"].items())
    return (
        f"<details><summary>{_text(run)} <span class='soft'>seeds {seeds}</span></summary>"
        + "".join(_image(figure, text) for figure, text in drawn)
        + f"<p class='soft'>{_text(summary.origin(config))}</p><pre>{_text(flags)}</pre></details>"
    )


def _masked(rows: Sequence[records.Record]) -> list[str]:
    return [arm for arm in mask_figures.arms(rows) if arm in ("paper", "verified")]


def _value(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    heading, *body = rows
    head = "".join(f"<th{_left(i)}>{_text(cell)}</th>" for i, cell in enumerate(heading))
    lines, before = [], None
    for row in body:
        first = " class='first'" if before not in (None, row[0]) else ""
        name = row[0] if row[0] != before else ""
        cells = [name, *row[1:]]
        line = "".join(f"<td{_left(i)}>{_cell(cell)}</td>" for i, cell in enumerate(cells))
        lines.append(f"<tr{first}>{line}</tr>")
        before = row[0]
    return f"<div class='wide'><table><tr>{head}</tr>{''.join(lines)}</table></div>"


def _cell(text: str) -> str:
    """The range over the seeds goes below the median."""
    median, bracket, spread = text.partition(" [")
    return _text(median) + (f"<small>[{_text(spread)}</small>" if bracket else "")


def _left(column: int) -> str:
    return " class='l'" if column < 2 else ""


def _image(figure: Figure, text: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=110, pil_kwargs={"quality": 80})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{_text(text)}" loading="lazy" src="data:image/webp;base64,{data}">'


def _text(text: str) -> str:
    return html.escape(text, quote=True)
