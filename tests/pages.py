"""Tables in the README and the docs, which tests hold to the records."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def table(page: str, name: str) -> str:
    """What stands between the comments `<!-- name... -->` and `<!-- end of ... -->` of a page."""
    text = (ROOT / page).read_text()
    found = re.search(rf"<!-- {re.escape(name)}.*?-->\n(.*?)\n<!-- end of ", text, re.DOTALL)
    assert found, f"{page} has no table {name}"
    return found[1].strip()
