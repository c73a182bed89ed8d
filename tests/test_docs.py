"""The reference has every public symbol, once, and each has a docstring."""

import pathlib
import re
import typing

import pytest

import pdt_optax

DOCS = pathlib.Path(__file__).parents[1] / "docs"
ENTRY = re.compile(r"^\.\. auto(?:function|class|data):: (\w+)$", re.MULTILINE)


def test_reference_has_every_public_symbol():
    assert sorted(ENTRY.findall((DOCS / "api.md").read_text())) == sorted(pdt_optax.__all__)


@pytest.mark.parametrize("name", sorted(pdt_optax.__all__))
def test_has_a_docstring(name):
    symbol = getattr(pdt_optax, name)
    is_alias = typing.get_origin(symbol) is not None  # Python gives it no docstring of its own.
    assert is_alias or not symbol.__doc__.startswith(f"{name}(")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_pictures_exist(page):
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / picture).is_file()
