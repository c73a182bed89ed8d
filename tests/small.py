"""Data sets of a few examples."""

import dataclasses

import numpy as np

from experiments.data import ArrayDataset, Examples


def few(dataset: ArrayDataset, train: int, others: int | None = None) -> ArrayDataset:
    """Random examples of each split: `train`, and `others` of validation and test."""

    def part(split: Examples, size: int) -> Examples:
        chosen = np.random.default_rng(0).permutation(len(split.labels))[:size]
        return Examples(split.inputs[chosen], split.labels[chosen])

    others = train if others is None else others
    return dataclasses.replace(
        dataset,
        train=part(dataset.train, train),
        validation=part(dataset.validation, others),
        test=part(dataset.test, others),
    )
