"""Random changes of batches of images, the same for the same random generator.

By hand, in NumPy: on the device (dm_pix) they would cost time that is measured, and differ between
devices.
"""

import numpy as np

PADDING = 4
# Of Chen and He (2021): least area of a crop, strength and probabilities of changes of colour.
LEAST_AREA, STRENGTH, COLOUR, GRAY = 0.2, 0.4, 0.8, 0.2


def crop_and_flip(random: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Moves each image by up to four pixels along each axis, over zeros; mirrors half of them.

    Args:
      random: fixes the changes.
      images: (n, height, width, channels).

    Returns:
      Images of the same shape.
    """
    number, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    tops, lefts = random.integers(0, 2 * PADDING + 1, (2, number, 1, 1))
    rows = tops + np.arange(height)[:, None]
    columns = lefts + np.arange(width)
    return _flip(random, padded[np.arange(number)[:, None, None], rows, columns])


def two_views(random: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Two independent changes of each image, for learning without labels.

    Crops of random place, area and aspect; mirrors; for colour images with values in [-1, 1] also
    brightness, contrast, saturation, and gray. No blur, as usual for 32 x 32 pixels.

    Args:
      random: fixes the changes.
      images: (n, height, width, channels).

    Returns:
      (n, 2, height, width, channels).
    """
    return np.stack([_view(random, images) for _ in range(2)], axis=1)


def _view(random: np.random.Generator, images: np.ndarray) -> np.ndarray:
    view = _flip(random, _random_resized_crop(random, images))
    return _recolour(random, view) if images.shape[-1] == 3 else view


def _flip(random: np.random.Generator, images: np.ndarray) -> np.ndarray:
    mirrored = random.random(len(images)) < 0.5
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def random_boxes(
    random: np.random.Generator, number: int, height: int, width: int, least_area: float
) -> np.ndarray:
    """Boxes inside an image, of uniform area and of aspect between 3/4 and 4/3.

    Args:
      random: fixes the boxes.
      number: how many.
      height: of the image.
      width: of the image.
      least_area: of a box, as a part of the image.

    Returns:
      (number, 4) left, top, right, bottom; float64.
    """
    areas = random.uniform(least_area, 1, number) * height * width
    aspects = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3), number))
    sides = np.stack([np.sqrt(areas * aspects), np.sqrt(areas / aspects)], axis=1)
    sides = np.minimum(sides, (width, height))
    corners = random.random((number, 2)) * ((width, height) - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def _random_resized_crop(random: np.random.Generator, images: np.ndarray) -> np.ndarray:
    number, height, width, _ = images.shape
    boxes = random_boxes(random, number, height, width, LEAST_AREA)
    columns = _places(boxes[:, 0], boxes[:, 2], width)
    rows = _places(boxes[:, 1], boxes[:, 3], height)
    return _interpolate(_interpolate(images, rows, axis=1), columns, axis=2)


def _places(starts: np.ndarray, stops: np.ndarray, size: int) -> np.ndarray:
    """(n, size) centres of the pixels of a box, in pixels of the image."""
    centres = (np.arange(size) + 0.5) / size
    places = starts[:, None] + centres * (stops - starts)[:, None] - 0.5
    return np.clip(places, 0, size - 1)


def _interpolate(images: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    low = np.minimum(places.astype(int), images.shape[axis] - 2)
    shape = [len(images), 1, 1, 1]
    shape[axis] = places.shape[1]
    part = (places - low).reshape(shape).astype(images.dtype)
    below, above = (
        np.take_along_axis(images, number.reshape(shape), axis) for number in (low, low + 1)
    )
    return below + part * (above - below)


def _recolour(random: np.random.Generator, images: np.ndarray) -> np.ndarray:
    number = len(images)
    chosen, gray = random.random((2, number, 1, 1, 1)) < np.reshape([COLOUR, GRAY], (2, 1, 1, 1, 1))
    factors = random.uniform(1 - STRENGTH, 1 + STRENGTH, (3, number, 1, 1, 1))
    brightness, contrast, saturation = np.where(chosen, factors, 1).astype(images.dtype)
    x = np.clip((images + 1) / 2 * brightness, 0, 1)
    mean = _gray(x).mean((1, 2, 3), keepdims=True)
    x = np.clip(mean + contrast * (x - mean), 0, 1)
    x = np.clip(_gray(x) + np.where(gray, 0, saturation) * (x - _gray(x)), 0, 1)
    return (2 * x - 1).astype(images.dtype)


def _gray(images: np.ndarray) -> np.ndarray:
    return (images @ np.array([0.299, 0.587, 0.114], images.dtype))[..., None]
