"""Tables in the README and the docs, which tests hold to the records.

As a program: makes the tables of the studies anew.
"""

import pathlib
import re

from experiments import records, score, studies, tables

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
STUDIES = {
    "README.md": ("controls", "verified"),
    "docs/verified_jumps.md": ("verified_vit",),
    "docs/ire.md": ("ire",),
    "docs/performance.md": ("history",),
}


def table(page: str, name: str) -> str:
    """What stands between the comments `<!-- name... -->` and `<!-- end of ... -->` of a page."""
    return _found((ROOT / page).read_text(), page, name)[1].strip()


def _found(text: str, page: str, name: str) -> re.Match[str]:
    found = re.search(rf"<!-- {re.escape(name)}.*?-->\n(.*?)\n<!-- end of ", text, re.DOTALL)
    assert found, f"{page} has no table {name}"
    return found


def study_scores(study: str) -> dict[str, list[score.Score]]:
    """Scores of the runs of a study that have records."""
    runs = [name for name in studies.STUDIES[study] if (RESULTS / study / name).exists()]
    return {name: score.score(records.read(RESULTS / study / name)) for name in runs}


if __name__ == "__main__":
    for page, names in STUDIES.items():
        text = (ROOT / page).read_text()
        for name in names:
            start, end = _found(text, page, f"{name}:").span(1)
            text = text[:start] + tables.study(study_scores(name)) + text[end:]
        (ROOT / page).write_text(text)
