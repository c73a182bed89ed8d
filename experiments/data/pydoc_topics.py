"""The help texts that ship with CPython, about 460,000 characters of English: no download."""

import functools
import importlib
from typing import NamedTuple

import numpy as np

VALIDATION_PART = 0.1


class Text(NamedTuple):
    """A text as numbers of characters.

    Attributes:
      train: (n,) int32, the beginning.
      validation: (m,) int32, the last tenth.
      characters: the character of each number.
    """

    train: np.ndarray
    validation: np.ndarray
    characters: str


@functools.cache
def load() -> Text:
    """Loads the texts of `pydoc_data.topics`, in the order of their names."""
    topics = importlib.import_module("pydoc_data.topics").topics
    text = "".join(topics[name] for name in sorted(topics))
    characters = "".join(sorted(set(text)))
    numbers = np.searchsorted(list(characters), list(text)).astype(np.int32)
    cut = round((1 - VALIDATION_PART) * len(numbers))
    return Text(numbers[:cut], numbers[cut:], characters)
