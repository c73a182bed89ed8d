"""ImageNet-1k (Russakovsky et al. 2015) at 224 x 224 pixels."""

from collections.abc import Sequence
import functools
from typing import Any

import numpy as np
from PIL import Image

from experiments.data import prepared
from experiments.data.augment import random_boxes
from experiments.data.streamed import StreamedDataset

NAME = "imagenet2012"
TRAIN, VALIDATION, TEST = "train[:99%]", "train[99%:]", "validation"
NUM_EVALUATED = 50_000
SIDE, ENLARGED = 224, 256
LEAST_AREA = 0.08
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@functools.cache
def load() -> StreamedDataset:
    """Loads the photographs: random resized crops and flips for training, central crops else.

    One per cent of the published train split is the validation split, the published validation
    split is the test split, and the train loss is taken over 50,000 images.
    """
    train, validation, test = (prepared.source(NAME, part) for part in (TRAIN, VALIDATION, TEST))
    evaluated = range(0, len(train), max(1, len(train) // NUM_EVALUATED))
    return StreamedDataset(
        train,
        {"train": Chosen(train, evaluated), "validation": validation, "test": test},
        num_classes=1000,
        input_shape=(SIDE, SIDE, 3),
        change=change,
        prepare=prepare,
    )


class Chosen(Sequence[Any]):
    """Some examples of a source, by number."""

    def __init__(self, source: Sequence[Any], numbers: range):
        self._source, self._numbers = source, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: Any) -> Any:
        return self._source[self._numbers[place]]


def change(random: np.random.Generator, example: Any) -> tuple[np.ndarray, int]:
    """A random part of the image, of at least 8 % of its area, mirrored half of the time."""
    height, width, _ = example["image"].shape
    (box,) = random_boxes(random, 1, height, width, LEAST_AREA)
    image = _resized(example["image"], tuple(box))
    return image[:, ::-1] if random.random() < 0.5 else image, int(example["label"])


def prepare(example: Any) -> tuple[np.ndarray, int]:
    """The central square: 224 / 256 of the image's shorter side."""
    height, width, _ = example["image"].shape
    side = min(height, width) * SIDE / ENLARGED
    left, top = (width - side) / 2, (height - side) / 2
    return _resized(example["image"], (left, top, left + side, top + side)), int(example["label"])


def _resized(image: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    part = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)  # type: ignore
    return ((np.asarray(part, np.float32) / 255 - MEAN) / STD).astype(np.float32)
