"""Reads data sets that TensorFlow Datasets has prepared, without TensorFlow."""

from collections.abc import Sequence
import os
from typing import Any


class MissingDataError(Exception):
    """A data set is not where it was looked for; says in one line how to get it there."""


def source(name: str, split: str) -> Sequence[dict[str, Any]]:
    """A split of a data set prepared in the folder $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Args:
      name: of the data set.
      split: of the data set, in the notation of TensorFlow Datasets, such as `train[:90%]`.

    Returns:
      Its examples, read from the disk one by one.

    Raises:
      MissingDataError: if it is not there, or the packages that read it are not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise MissingDataError(
            f"{name} needs packages that are not here: run pip install '.[datasets]' in a clone."
        ) from None
    folder = os.path.expanduser(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
    options: dict[str, Any] = {"file_format": "array_record"}
    if not tfds.builder(name, data_dir=folder, **options).is_prepared():
        raise MissingDataError(
            f"{name} is not prepared in {folder}: set TFDS_DATA_DIR to its folder, or run, in a "
            f"clone, pip install '.[prepare]' && tfds build {name} --file_format=array_record "
            f"--data_dir={folder}"
        )
    examples: Any = tfds.data_source(
        name, split=split, data_dir=folder, download=False, builder_kwargs=options
    )
    return examples
