"""AG News (Zhang et al. 2015): headlines and first sentences of articles of four kinds."""

import functools

import numpy as np

from experiments.data import prepared, words
from experiments.data.dataset import ArrayDataset, Examples

TRAIN, VALIDATION, TEST = "train[:95%]", "train[95%:]", "test"


@functools.cache
def load() -> ArrayDataset:
    """Loads the texts as numbers of words, by the vocabulary of the train split."""
    (texts, labels), *others = map(_read, (TRAIN, VALIDATION, TEST))
    numbers = words.vocabulary(texts)
    splits = ((texts, labels), *others)
    return ArrayDataset(
        *(Examples(words.encode(texts, numbers), labels) for texts, labels in splits), num_classes=4
    )


def _read(split: str) -> tuple[list[str], np.ndarray]:
    examples = list(prepared.source("ag_news_subset", split))
    texts = [f"{e['title'].decode()} {e['description'].decode()}" for e in examples]
    return texts, np.array([example["label"] for example in examples], np.int32)
