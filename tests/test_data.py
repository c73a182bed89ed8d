"""The data sets: those inside packages, and small genuine folders of the prepared ones."""

from collections.abc import Iterator
import dataclasses
import itertools
import pathlib
from typing import Any

import jax
import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from experiments import train
from experiments.configs.base import RunConfig
from experiments.data import DATASETS, ORDERS, Examples, augment, imagenet, words
from experiments.runs.devices import prefetched, put


@pytest.fixture(autouse=True)
def _folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    yield
    for name in ("cifar10", "imagenet2012", "ag_news_subset"):
        getattr(DATASETS[name], "cache_clear", lambda: None)()


def prepare(folder: pathlib.Path, dataset: str, **splits: list[dict[str, Any]]) -> None:
    """Writes a data set of the same name and features, as `tfds build` does."""
    builder: Any = tfds.builder_cls(dataset)

    class Small(builder, skip_registration=True):  # pyright: ignore
        name = dataset

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows):
            for number, row in enumerate(rows):
                if "image" in row:  # Arrays need TensorFlow to be written, pictures do not.
                    row = {**row, "image": Image.fromarray(row["image"])}
                yield number, row

    Small(data_dir=str(folder), file_format="array_record").download_and_prepare()


def pictures(number: int, *shape: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    return [
        {"image": random.integers(0, 256, shape, np.uint8), "label": i % 10} for i in range(number)
    ]


def batches(dataset, *arguments) -> list[Examples]:
    return list(dataset.epoch_batches(*arguments))


def assert_equal(first: list[Examples], second: list[Examples]) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def assert_halves(dataset, batch_size: int) -> None:
    """What one of two processes reads is in the batches of one that reads all."""

    def half(size: int) -> np.ndarray:
        return np.arange(size // 2, size)

    def halves(examples: list[Examples]) -> list[Examples]:
        return [Examples(*(leaf[half(len(leaf))] for leaf in batch)) for batch in examples]

    whole = batches(dataset, 0, 1, batch_size)
    assert_equal(batches(dataset, 0, 1, batch_size, 1, half), halves(whole[1:]))
    whole = list(dataset.split_batches("test", 4))
    assert_equal(list(dataset.split_batches("test", 4, half)), halves(whole))


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("digits", (8, 8, 1), (1437, 180, 180)),
        ("patches", (32, 32, 3), (4000, 800, 800)),
        ("patches640", (32, 32, 3), (640, 128, 128)),
    ],
)
def test_embedded_images(name, shape, sizes):
    dataset = DATASETS[name]()
    assert dataset.input_shape == shape
    for split, size in zip(("train", "validation", "test"), sizes, strict=True):
        (whole,) = dataset.split_batches(split, size)
        assert whole.inputs.shape == (size, *shape)
        assert (whole.inputs.dtype, whole.labels.dtype) == (np.float32, np.int32)
        counts = np.bincount(whole.labels)
        assert len(counts) == dataset.num_classes
        assert counts.max() <= 1.1 * size / len(counts)


def test_patches_of_two_splits_share_no_pixels():
    """No row of 32 pixels of one split is in another, flat ones apart."""
    dataset: Any = DATASETS["patches"]()
    splits = (
        split.inputs.reshape(-1, 96) for split in (dataset.train, dataset.validation, dataset.test)
    )
    rows = [{row.tobytes() for row in split[split.std(1) > 0.1]} for split in splits]
    assert not any(first & second for first, second in itertools.combinations(rows, 2))


def test_patches640_share_no_pixels():
    dataset: Any = DATASETS["patches640"]()
    rows = dataset.train.inputs.reshape(-1, 96)
    rows = rows[rows.std(1) > 0.1]
    patches = np.unique(rows, axis=0)
    assert len(patches) > 0.99 * len(rows) > 10_000


def test_an_epoch_goes_on_from_any_step():
    dataset: Any = DATASETS["patches"]()
    dataset = dataclasses.replace(dataset, augment=augment.crop_and_flip)
    whole = batches(dataset, 3, 2, 500)
    assert len(whole) == dataset.steps_per_epoch(500) == 8
    assert_equal(whole[5:], batches(dataset, 3, 2, 500, 5))
    assert not np.array_equal(whole[0].inputs, batches(dataset, 3, 3, 500)[0].inputs)


def test_batches_of_one_class():
    digits: Any = DATASETS["digits"]()
    dataset = dataclasses.replace(digits, order=ORDERS["one_class"])
    found = batches(dataset, 0, 1, 32)
    per_class = np.bincount(digits.train.labels) // 32
    assert len(found) == dataset.steps_per_epoch(32) == per_class.sum()
    classes = [np.unique(batch.labels) for batch in found]
    assert all(len(labels) == 1 for labels in classes)
    np.testing.assert_array_equal(np.bincount(np.concatenate(classes)), per_class)
    assert not np.array_equal(np.sort(classes, axis=0), classes)
    places = ORDERS["one_class"](np.random.default_rng(0), digits.train.labels, 32)
    assert len(np.unique(places)) == places.size


def test_crop_and_flip_moves_and_mirrors():
    """Each image is one of the 2 x 81 that padding by four pixels allows."""
    random = np.random.default_rng(0)
    images = random.normal(size=(20, 8, 8, 1)).astype(np.float32)
    changed = augment.crop_and_flip(random, images)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    mirrored = 0
    for image, around in zip(changed, padded, strict=True):
        crops = [around[i : i + 8, j : j + 8] for i in range(9) for j in range(9)]
        straight = any(np.array_equal(image, crop) for crop in crops)
        assert straight or any(np.array_equal(image, crop[:, ::-1]) for crop in crops)
        mirrored += not straight
    assert 3 < mirrored < 17


def test_two_views():
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, (6, 16, 16, 3)).astype(np.float32)
    views = augment.two_views(np.random.default_rng(1), images)
    assert (views.shape, views.dtype) == ((6, 2, 16, 16, 3), np.float32)
    assert -1 <= views.min() < views.max() <= 1
    assert not np.array_equal(views[:, 0], views[:, 1])
    np.testing.assert_array_equal(views, augment.two_views(np.random.default_rng(1), images))
    flat = np.full((50, 16, 16, 3), 0.5, np.float32)  # A crop of one colour is that colour.
    flat[..., 1:] = 0.25
    for view in augment.two_views(np.random.default_rng(2), flat).reshape(100, -1, 3):
        np.testing.assert_allclose(view, np.broadcast_to(view[0], view.shape), atol=1e-6)
    gray = np.full((50, 16, 16, 1), 0.5, np.float32)
    np.testing.assert_allclose(augment.two_views(np.random.default_rng(2), gray), 0.5, rtol=1e-6)


def test_random_boxes():
    boxes = augment.random_boxes(np.random.default_rng(0), 1000, 30, 50, 0.08)
    left, top, right, bottom = boxes.T
    assert boxes.min() >= 0
    assert right.max() <= 50
    assert bottom.max() <= 30
    areas = (right - left) * (bottom - top) / 1500
    assert 0.07 < areas.min() < 0.12
    assert areas.max() > 0.8


def test_batches_arrive_on_the_devices_in_order():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    taken = []

    def produce() -> Iterator[Examples]:
        for number in range(5):
            taken.append(number)
            yield Examples(np.full((8, 2), number, np.float32), np.full(8, number, np.int32))

    arriving = prefetched(produce(), lambda batch: put(batch, sharding))
    first = next(arriving)
    assert taken == [0, 1, 2]
    rest = list(arriving)
    assert [int(batch.labels[0]) for batch in (first, *rest)] == [0, 1, 2, 3, 4]
    assert first.inputs.sharding == sharding


def test_cifar10_from_its_folder(tmp_path):
    rows = [{**row, "id": str(i)} for i, row in enumerate(pictures(50, 32, 32, 3))]
    prepare(tmp_path, "cifar10", train=rows[:40], test=rows[40:])
    dataset = DATASETS["cifar10"]()
    (train_split,) = dataset.split_batches("train", 100)
    (validation,) = dataset.split_batches("validation", 100)
    (test,) = dataset.split_batches("test", 100)
    images = np.concatenate([part.inputs for part in (train_split, validation)])
    assert (len(train_split.labels), len(validation.labels), len(test.labels)) == (36, 4, 10)
    assert images.dtype == np.float32
    originals = {row["image"].tobytes() for row in rows[:40]}
    assert {np.rint((image + 1) * 127.5).astype(np.uint8).tobytes() for image in images} == (
        originals
    )
    augmented = DATASETS["cifar10_augmented"]()
    assert_halves(augmented, batch_size=8)
    assert not np.isin(batches(augmented, 0, 1, 36)[0].labels, range(10), invert=True).any()


def test_imagenet_from_its_folder(tmp_path):
    rows = [{**row, "file_name": f"{i}.jpg"} for i, row in enumerate(pictures(110, 30, 40, 3))]
    prepare(tmp_path, "imagenet2012", train=rows[:100], validation=rows[100:])
    dataset = DATASETS["imagenet2012"]()
    assert dataset.input_shape == (224, 224, 3)
    whole = batches(dataset, 0, 1, 16)
    assert whole[0].inputs.shape == (16, 224, 224, 3)
    assert (whole[0].inputs.dtype, whole[0].labels.dtype) == (np.float32, np.int32)
    assert len(whole) == dataset.steps_per_epoch(16) == 99 // 16
    assert_equal(whole[4:], batches(dataset, 0, 1, 16, 4))
    assert_equal(whole, batches(dataset, 0, 1, 16))
    assert not np.array_equal(whole[0].inputs, batches(dataset, 0, 2, 16)[0].inputs)
    sizes = [len(batch.labels) for batch in dataset.split_batches("test", 4)]
    assert sizes == [4, 4, 2]
    assert_halves(dataset, batch_size=16)


def test_imagenet_is_evaluated_on_the_central_square():
    rows, columns = np.mgrid[:512, :640].astype(np.float32)
    image = np.stack([rows / 4, columns / 4, 0 * rows], -1).astype(np.uint8)
    inputs, label = imagenet.prepare({"image": image, "label": 7})
    pixels = (inputs * imagenet.STD + imagenet.MEAN) * 255
    # 448 of 512 rows from the 32nd on, and of 640 columns from the 96th on, two to a pixel.
    places = np.arange(224)
    np.testing.assert_allclose(pixels[:, 0, 0], (32.5 + 2 * places) / 4, atol=1)
    np.testing.assert_allclose(pixels[0, :, 1], (96.5 + 2 * places) / 4, atol=1)
    assert label == 7


def test_ag_news_from_its_folder(tmp_path):
    texts = ["Oil prices rise", "Oil falls", "A new moon", "Team wins cup", "Oil again"]
    rows = [{"title": t, "description": "today", "label": i % 4} for i, t in enumerate(texts * 8)]
    prepare(tmp_path, "ag_news_subset", train=rows, test=rows[:3])
    dataset = DATASETS["ag_news_subset"]()
    assert dataset.input_shape == (words.LENGTH,)
    (test,) = dataset.split_batches("test", 10)
    assert test.inputs.dtype == np.int32
    # Most frequent first: today, oil.
    assert sorted(map(list, test.inputs[:, -1:])) == [[0], [0], [0]]
    assert (test.inputs == 2).sum() == 3
    assert sorted((test.inputs[test.inputs[:, 0] == 3] > 0).sum(1)) == [3, 4]


def test_words():
    numbers = words.vocabulary(["b a b", "c B a"])
    assert numbers == {"b": 2, "a": 3, "c": 4}
    encoded = words.encode(["a x B", "c " * 60], numbers)
    assert encoded[0, :4].tolist() == [3, words.UNKNOWN, 2, words.PADDING]
    assert (encoded[1] == 4).all()


@pytest.mark.parametrize("name", ["cifar10", "cifar10_augmented", "imagenet2012", "ag_news_subset"])
def test_missing_data_is_one_line_with_the_command(name, tmp_path):
    plain = name.removesuffix("_augmented")
    with pytest.raises(SystemExit) as stop:
        train.main(RunConfig(dataset=name), train.Runtime(run_dir=str(tmp_path / "run")))
    message = str(stop.value.code)
    assert message.startswith(f"`dataset`: {plain} is not prepared in {tmp_path}")
    assert f"tfds build {plain} --file_format=array_record" in message
    assert "\n" not in message
    assert not (tmp_path / "run").exists()
