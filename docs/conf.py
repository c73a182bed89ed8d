"""Sphinx configuration; `make docs` builds the pages, and nothing in them needs a network."""

import base64
from collections.abc import Iterator
import inspect
import json
import pathlib
import re
import shutil

from docutils import nodes
import optax
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.typing import stringify_annotation

import pdt_optax

project = "pdt_optax"
author = "The pdt_optax authors"
version = release = pdt_optax.__version__
html_title = f"pdt_optax {version}"

here = pathlib.Path(__file__).parent  # Pages must lie in this folder.
shutil.copytree(here.parent / "notebooks", here / "notebooks", dirs_exist_ok=True)


def write_pictures(notebook: pathlib.Path) -> None:
    """The pictures in a notebook's outputs as files beside it, for the gallery."""
    cells = json.loads(notebook.read_text())["cells"]
    data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    pictures = [base64.b64decode(part["image/png"]) for part in data if "image/png" in part]
    for number, picture in enumerate(pictures):
        notebook.with_name(f"{notebook.stem}-{number}.png").write_bytes(picture)


for _notebook in (here / "notebooks").glob("*.ipynb"):
    write_pictures(_notebook)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build"]
default_role = "code"
nitpicky = True
# What other projects and our private modules define has no page here.
nitpick_ignore_regex = [(r"py:.*", r"(?!pdt_optax\.[a-zA-Z]).*|.*\._.*")]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 60
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # The signature has the types.
napoleon_use_ivar = True
napoleon_use_rtype = False

myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # The notebooks keep their outputs; a test executes them.
nb_merge_streams = True
nb_render_markdown_format = "myst"  # Tables in outputs.

html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False


def public_names() -> Iterator[str]:
    """Full names of all public symbols; what a module shares with the package counts once."""
    for name in pdt_optax.__all__:
        yield f"pdt_optax.{name}"
        module = getattr(pdt_optax, name)
        for inner in getattr(module, "__all__", ()) if inspect.ismodule(module) else ():
            if getattr(module, inner) is not getattr(pdt_optax, inner, None):
                yield f"pdt_optax.{name}.{inner}"


def check_symbols(app: Sphinx, env: BuildEnvironment) -> None:
    """A public symbol without an entry in the reference is a warning, and so an error."""
    documented = env.domains.python_domain.objects
    for name in public_names():
        if name not in documented:
            logging.getLogger(__name__).warning("%s is not in the reference", name)


def shorten_signature(*arguments) -> tuple[str, str] | None:
    """Writes a default that is a function as the call that made it, and names optax's schedules."""
    signature, returned = arguments[-2:]
    if not signature:
        return None
    schedule = stringify_annotation(optax.Schedule, "smart")
    signature = signature.replace(schedule, "~optax.Schedule")
    return re.sub(r"<function (\w+)\.<locals>\.\w+>", r"\1()", signature), returned


# What stays on one line in a cell of a table: [60, 61], (8 to 8.1), 1e-05.
TOGETHER = re.compile(r"(\[[^][]{1,14}\]|\(\S{1,3} to \S{1,3}\)|\S*\de-\d+\S*)")


def lay_out(app: Sphinx, doctree: nodes.document) -> None:
    """Cuts no option or number in two, and marks what the style sheet makes wide or breaks."""
    for option in doctree.findall(nodes.literal):
        if option.astext().startswith("-") and len(option.astext()) < 30:
            option["classes"].append("together")
    for entry in doctree.findall(nodes.entry):
        if len(re.findall(r"[A-Za-z]{2,}", entry.astext())) > 3:
            entry["classes"].append("wordy")
        for code in entry.findall(nodes.literal):
            if max(map(len, code.astext().split())) > 30:
                code["classes"].append("long")
        for text in list(entry.findall(nodes.Text)):
            if isinstance(text.parent, nodes.literal):
                continue
            parts = [nodes.Text(part) for part in TOGETHER.split(text)]
            parts[1::2] = [nodes.inline("", "", part, classes=["together"]) for part in parts[1::2]]
            text.parent.replace(text, parts)


def setup(app: Sphinx) -> None:
    """Registers what happens beside the extensions."""
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("doctree-read", lay_out)
    app.connect("env-check-consistency", check_symbols)
