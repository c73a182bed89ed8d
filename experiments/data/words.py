"""Texts as numbers of words."""

import collections
from collections.abc import Iterable, Sequence

import numpy as np

VOCABULARY = 5000
LENGTH = 50
PADDING, UNKNOWN = 0, 1


def vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """Numbers the most frequent words, from 2 on; of equally frequent ones the first seen."""
    counts = collections.Counter(word for text in texts for word in split(text))
    words = [word for word, _ in counts.most_common(VOCABULARY - 2)]
    return {word: number for number, word in enumerate(words, UNKNOWN + 1)}


def encode(texts: Sequence[str], numbers: dict[str, int]) -> np.ndarray:
    """Maps texts to (n, LENGTH) int32, cut off or padded with 0 at the end."""
    encoded = np.full((len(texts), LENGTH), PADDING, np.int32)
    for row, text in zip(encoded, texts, strict=True):
        words = [numbers.get(word, UNKNOWN) for word in split(text)[:LENGTH]]
        row[: len(words)] = words
    return encoded


def split(text: str) -> list[str]:
    """Splits a text into words."""
    return text.lower().split()
