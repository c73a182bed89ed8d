"""Tables in the README and the docs, which tests hold to the records.

As a program: makes them anew.
"""

import pathlib
import re

from experiments import batch_norm
from experiments.benchmarks import compiling
from experiments.benchmarks import report as bench_report
from experiments.benchmarks.tpu import cases
from experiments.configs import cpu
from experiments.language import report as language_report
from experiments.post_training import report as post_training_report
from experiments.reports import tables, time_to_target
from experiments.runs import records
from experiments.science import crossing, runs, summary

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"

_STUDIES = {
    "docs/choosing_settings.md": ("verified_streaming",),
    "docs/verified_jumps.md": ("verified", "verified_dmd", "verified_vit", "verified_momentum"),
    "docs/ire.md": ("ire",),
    "docs/solved_jumps.md": ("solved",),
    "docs/performance.md": ("history",),
    "docs/results.md": (
        "controls",
        *(f"table{number}" for number in (1, 2, 3, 4, 5, 6)),
        *("unmasked", "figure2", "masks", "figure14", "tuning"),
    ),
}
_OTHERS = {
    ("docs/compatibility.md", "batch_norm"): batch_norm.table,
    ("docs/performance.md", "bench"): bench_report.table,
    ("docs/performance.md", "compiling"): compiling.table,
    ("docs/scaling.md", "tpu"): cases.table,
    ("docs/where_it_helps.md", "language"): language_report.table,
    ("docs/where_it_helps.md", "language_numpy"): language_report.table,
}

_POST_TRAINING = {
    "post_training": post_training_report.table,
    "post_training_stops": post_training_report.stops_table,
    "post_training_linearity": post_training_report.linearity_table,
}
_SCIENCE = {
    "science": lambda recorded: summary.report(recorded, heading="###").strip(),
    "science_scaling": crossing.table,
    "science_variants": summary.variants,
}


def table(page: str, name: str) -> str:
    """What stands between the comments `<!-- name: ... -->` and `<!-- end of ... -->` of a page."""
    return _found((ROOT / page).read_text(), page, name)[1].strip()


def _found(text: str, page: str, name: str) -> re.Match[str]:
    found = re.search(rf"<!-- {re.escape(name)}: .*?-->\n(.*?)\n<!-- end of ", text, re.DOTALL)
    assert found, f"{page} has no table {name}"
    return found


def study_scores(name: str) -> dict[str, list[time_to_target.Score]]:
    """Scores of the runs of a study that have records."""
    runs = [run for run in cpu.STUDIES[name] if (RESULTS / name / run).exists()]
    return {run: time_to_target.score(records.read(RESULTS / name / run)) for run in runs}


TABLES = {
    **{
        (page, name): lambda name=name: tables.study(study_scores(name))
        for page, names in _STUDIES.items()
        for name in names
    },
    **{
        place: lambda make=make, name=place[1]: make(records.read_rows(RESULTS / name))
        for place, make in _OTHERS.items()
    },
    **{
        ("docs/where_it_helps.md", name): lambda make=make: make(
            records.read_rows(RESULTS / "post_training")
        )
        for name, make in _POST_TRAINING.items()
    },
    **{
        ("docs/solved_jumps.md", name): lambda make=make, name=name: make(runs.read(RESULTS / name))
        for name, make in _SCIENCE.items()
    },
}


if __name__ == "__main__":
    for (page, name), make in TABLES.items():
        text = (ROOT / page).read_text()
        start, end = _found(text, page, name).span(1)
        (ROOT / page).write_text(text[:start] + make() + text[end:])
