"""Text as numbers of tokens: texts that packages hold, or plain text files with a tokenizer."""

import ast
from collections.abc import Callable, Mapping
import functools
import importlib
import pathlib
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

VALIDATION_PART = 0.1


class Text(NamedTuple):
    """A text as numbers of tokens.

    Attributes:
      train: (n,) int32, the beginning.
      validation: (m,) int32, the last tenth.
      vocabulary: number of different tokens.
    """

    train: np.ndarray
    validation: np.ndarray
    vocabulary: int


@functools.cache
def pydoc_topics() -> Text:
    """The characters of `pydoc_data.topics`, in the order of the names: no download."""
    topics = importlib.import_module("pydoc_data.topics").topics
    return _of_characters("".join(topics[name] for name in sorted(topics)))


@functools.cache
def numpy_docstrings() -> Text:
    """The characters of the docstrings of NumPy that are ASCII, file by file: no download."""
    root = pathlib.Path(np.__file__).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in () if "tests" in path.parts else ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found.append(ast.get_docstring(node) or "")
    return _of_characters("\n".join(text for text in found if text and text.isascii()))


TEXTS: Mapping[str, Callable[[], Text]] = {"pydoc": pydoc_topics, "numpy": numpy_docstrings}
"""Texts that are there without a download."""


def read(path: pathlib.Path, tokenizer: pathlib.Path) -> Text:
    """Reads a plain text file.

    Args:
      path: text in UTF-8, for example WikiText-103, MiniPile or OpenWebText in one file.
      tokenizer: `tokenizer.json` of the Hugging Face library `tokenizers`.

    Raises:
      ValueError: if a file is missing or not what it must be.
    """
    for file, what in ((path, "a text file"), (tokenizer, "a tokenizer.json")):
        if not file.is_file():
            raise ValueError(f"{file} must be {what}, and is not there; nothing is downloaded.")
    try:
        coder = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # The library raises nothing more specific.
        raise ValueError(f"{tokenizer} must be a tokenizer.json: {error}") from None
    with path.open(encoding="utf-8") as lines:
        codes = [np.array(coder.encode(line).ids, np.int32) for line in lines]
    return _split(np.concatenate([np.zeros(0, np.int32), *codes]), coder.get_vocab_size())


def _of_characters(text: str) -> Text:
    characters = sorted(set(text))
    return _split(np.searchsorted(characters, list(text)), len(characters))


def _split(numbers: np.ndarray, vocabulary: int) -> Text:
    cut = round((1 - VALIDATION_PART) * len(numbers))
    numbers = numbers.astype(np.int32)
    return Text(numbers[:cut], numbers[cut:], vocabulary)
