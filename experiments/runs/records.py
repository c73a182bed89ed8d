"""The run folder: what was run (`config.json`) and what came out (`records.jsonl`).

A record is appended once and never changed. Whatever is reported is computed from these two files.
"""

from collections.abc import Mapping
import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

import pdt_optax

CONFIG = "config.json"
RECORDS = "records.jsonl"
_PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")
_SIGNIFICANT_DIGITS = 6
# Flags that say how a run is carried out, and are no part of its configuration: what comes out does
# not depend on them.
MEANS = (
    "run_dir",
    "checkpoint_minutes",
    "tensorboard",
    "devices",
    "coordinator",
    "num_processes",
    "process_id",
)


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """One epoch of one arm of one seed.

    `None` stands for not applicable; in the file it also stands for a number that is not finite.

    Attributes:
      seed: seed of the initialisation and of the order of the batches.
      arm: name of the way of training.
      epoch: epochs completed, from 1.
      seconds: training time since the start, without evaluation and compilation.
      train_loss: mean over the whole train split after the epoch, and so the next three.
      train_accuracy: fraction of the train split.
      validation_loss: mean over the validation split.
      validation_accuracy: fraction of the validation split.
      predicted: whether PDT made a prediction in this epoch; the rest is of the last one made.
      mask_ratio: fraction of the coordinates that took the prediction.
      prediction_error: distance of the one-snapshot prediction from what the optimizer reached,
        relative to the optimizer's move.
      spectral_radius: largest modulus of the fitted eigenvalues, over all groups of coordinates.
      predictions: how many there were in this epoch, if several.
      layer_mask_ratios: `mask_ratio` of each array of the parameters, in the order of `layers` of
        the end record.
    """

    seed: int
    arm: str
    epoch: int
    seconds: float
    train_loss: float | None
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    predicted: bool = False
    mask_ratio: float | None = None
    prediction_error: float | None = None
    spectral_radius: float | None = None
    layer_mask_ratios: list[float] | None = None
    predictions: int | None = None


@dataclasses.dataclass(frozen=True)
class EndRecord:
    """The end of one arm of one seed.

    Attributes:
      seed: as in the arm's epochs.
      arm: as in the arm's epochs.
      status: 'finished', or 'diverged' when the train loss stopped being finite.
      epochs: epochs completed.
      seconds: training time, without evaluation and compilation.
      compile_seconds: time to compile the arm's train step, once for all seeds.
      test_accuracy: fraction of the test split after the last epoch.
      epoch_flops: floating-point operations of the forward and backward passes of an epoch; None
        if there are others.
      event_flops: those of one prediction.
      layers: path of each array of the parameters, with PDT only.
    """

    seed: int
    arm: str
    status: str
    epochs: int
    seconds: float
    compile_seconds: float
    test_accuracy: float | None
    epoch_flops: float | None = None
    event_flops: float | None = None
    layers: list[str] | None = None


Record = EpochRecord | EndRecord
# Left out of the file where they do not apply.
_LATER = ("layer_mask_ratios", "predictions", "epoch_flops", "event_flops", "layers")
_KINDS: Mapping[str, type[Record]] = {"epoch": EpochRecord, "end": EndRecord}


def start(run_dir: pathlib.Path, flags: Mapping[str, Any]) -> None:
    """Starts a run folder without records; one of the same configuration is started anew.

    Args:
      run_dir: folder, made if missing.
      flags: configuration of the run, as JSON values.

    Raises:
      ValueError: if the folder holds a run of another configuration.
      OSError: if the folder cannot be written.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / CONFIG
    if path.exists():
        _check_same(run_dir, read_config(run_dir)["flags"], flags)
    (run_dir / RECORDS).write_text("")
    _replace(path, json.dumps({"flags": dict(flags), **_environment()}, indent=2) + "\n")


def resume(run_dir: pathlib.Path, flags: Mapping[str, Any]) -> None:
    """Starts a run folder; goes on with one of the same configuration.

    Args:
      run_dir: folder, made if missing.
      flags: configuration of the run, as JSON values.

    Raises:
      ValueError: if the folder holds a run of another configuration.
      OSError: if the folder cannot be written.
    """
    if (run_dir / CONFIG).exists():
        _check_same(run_dir, read_config(run_dir)["flags"], flags)
    else:
        start(run_dir, flags)


def truncate(run_dir: pathlib.Path, number: int) -> None:
    """Keeps the first records of a run alone."""
    path = run_dir / RECORDS
    _replace(path, "".join(path.read_text().splitlines(keepends=True)[:number]))


def _replace(path: pathlib.Path, text: str) -> None:
    """Writes a file so that there is always the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def append(run_dir: pathlib.Path, record: Record) -> None:
    """Appends one record to a run."""
    kind = next(kind for kind, cls in _KINDS.items() if isinstance(record, cls))
    fields = vars(record).items()
    row = {name: _compact(v) for name, v in fields if v is not None or name not in _LATER}
    append_row(run_dir, {"kind": kind, **row})


def append_row(run_dir: pathlib.Path, row: Mapping[str, Any]) -> None:
    """Appends a row of JSON values to a run."""
    line = json.dumps(dict(row), separators=(",", ":"))
    with (run_dir / RECORDS).open("a") as file:
        file.write(line + "\n")


def read_config(run_dir: pathlib.Path) -> dict[str, Any]:
    """Reads the flags of a run and the environment it ran in."""
    return json.loads((run_dir / CONFIG).read_text())


def read(run_dir: pathlib.Path) -> list[Record]:
    """Reads the records of a run, in the order they were written.

    Raises:
      ValueError: if they are those of another program.
    """
    rows = read_rows(run_dir)
    if not all(row.get("kind") in _KINDS for row in rows):
        raise ValueError(f"{run_dir} does not hold a run of experiments.train.")
    return [_KINDS[row.pop("kind")](**row) for row in rows]


def read_rows(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the rows of a run, in the order they were written.

    A last line without an end was cut off when the run was killed, and is left out.
    """
    lines = (run_dir / RECORDS).read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _check_same(
    run_dir: pathlib.Path, existing: Mapping[str, Any], flags: Mapping[str, Any]
) -> None:
    different = [
        f"{name} is {existing.get(name)} there and {flags.get(name)} here"
        for name in sorted({*existing, *flags})
        if existing.get(name) != flags.get(name)
    ]
    if different:
        raise ValueError(f"{run_dir} holds another run ({'; '.join(different)}).")


def _compact(value: Any) -> Any:
    if isinstance(value, list):
        return [_compact(part) for part in value]
    if not isinstance(value, float):
        return value
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None


def _environment() -> dict[str, Any]:
    packages = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {
        "versions": {
            "python": platform.python_version(),
            **packages,
            "pdt_optax": pdt_optax.__version__,
        },
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(
            command,
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
