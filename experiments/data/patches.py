"""Patches of the colour photographs that ship inside scikit-image: no download."""

from collections.abc import Iterable
import functools

import numpy as np
from skimage import data

from experiments.data.dataset import ArrayDataset, Examples

# In alphabetical order of what they show; the class of a patch is its photograph.
PHOTOGRAPHS = (
    data.astronaut,
    data.chelsea,
    data.coffee,
    data.hubble_deep_field,
    data.immunohistochemistry,
    lambda: data.stereo_motorcycle()[0],
    data.retina,
    data.rocket,
)
TILE, SIDE = 64, 32
SPLIT_TILES = (20, 4, 4)
SPLIT_SEED = 32


@functools.cache
def load(stride: int = 8) -> ArrayDataset:
    """Loads 4,000 / 800 / 800 patches of 32 x 32 pixels in [-1, 1], classes alike.

    Of each photograph 28 tiles of 64 x 64 pixels are drawn and given to the splits. The 25 patches
    of a tile, `stride` pixels apart, overlap each other, but none overlaps a patch of another
    split. With a stride of 32 none overlaps any: 640 / 128 / 128 patches.
    """
    random = np.random.default_rng(SPLIT_SEED)
    cuts = np.cumsum(SPLIT_TILES)
    parts = []
    for photograph in PHOTOGRAPHS:
        tiles = _windows(photograph(), TILE, TILE)
        chosen = tiles[random.permutation(len(tiles))[: cuts[-1]]]
        parts.append([_patches(part, stride) for part in np.split(chosen, cuts[:-1])])
    train, validation, test = map(_examples, zip(*parts, strict=True))
    return ArrayDataset(train, validation, test, num_classes=len(PHOTOGRAPHS))


def _patches(tiles: np.ndarray, stride: int) -> np.ndarray:
    return np.concatenate([_windows(tile, SIDE, stride) for tile in tiles])


def _windows(image: np.ndarray, side: int, stride: int) -> np.ndarray:
    """(n, side, side, channels) windows of an image (height, width, channels), row by row."""
    views = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))
    views = np.moveaxis(views[::stride, ::stride], 2, -1)
    return views.reshape(-1, side, side, image.shape[-1])


def _examples(patches: Iterable[np.ndarray]) -> Examples:
    patches = list(patches)
    labels = np.repeat(np.arange(len(patches)), [len(part) for part in patches])
    images = np.concatenate(patches) / 127.5 - 1
    return Examples(images.astype(np.float32), labels.astype(np.int32))
