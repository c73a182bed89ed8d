"""The reference has every public symbol, once, and each has a docstring."""

import inspect
import pathlib
import re
import typing

import pytest

import pdt_optax

DOCS = pathlib.Path(__file__).parents[1] / "docs"
ENTRY = re.compile(r"^\.\. (currentmodule|autofunction|autoclass|autodata):: ([\w.]+)$", re.M)
MODULES = [
    pdt_optax,
    *(part for name in pdt_optax.__all__ if inspect.ismodule(part := getattr(pdt_optax, name))),
]


def public():
    """All symbols by their full names; what the root has too is named once, after the root."""
    found = {}
    for module in MODULES:
        for name in module.__all__:
            symbol = getattr(module, name)
            if not inspect.ismodule(symbol) and not any(
                symbol is known for known in found.values()
            ):
                found[f"{module.__name__}.{name}"] = symbol
    return found


def referenced():
    """Full names of the entries of the reference."""
    module, found = "", []
    for kind, name in ENTRY.findall((DOCS / "api.md").read_text()):
        if kind == "currentmodule":
            module = name
        else:
            found.append(name if name.startswith("pdt_optax.") else f"{module}.{name}")
    return found


def test_reference_has_every_public_symbol():
    assert sorted(referenced()) == sorted(public())


def test_submodules():
    names = {module.__name__.rpartition(".")[2] for module in MODULES[1:]}
    assert names == {
        "criteria",
        "dynamics",
        "ire",
        "predictors",
        "state",
        "testing",
        "training_time",
    }
    assert all(module.__doc__ for module in MODULES)
    assert sorted(pdt_optax.__all__) == pdt_optax.__all__


@pytest.mark.parametrize("name", sorted(public()))
def test_has_a_docstring(name):
    symbol = public()[name]
    is_alias = typing.get_origin(symbol) is not None  # Python gives it no docstring of its own.
    assert is_alias or not symbol.__doc__.startswith(f"{name.rpartition('.')[2]}(")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_pictures_exist(page):
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / picture).is_file()


def test_the_run_that_logs(tmp_path, monkeypatch, capsys):
    """The code of docs/choosing_settings.md."""
    page = (DOCS / "choosing_settings.md").read_text()
    (code,) = re.findall(r"<!-- a run that logs -->\n```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all("jumped" in line for line in lines)
    assert any((tmp_path / "runs" / "logged").iterdir())
