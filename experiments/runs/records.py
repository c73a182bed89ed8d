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

from experiments import settings
from experiments.configs.base import RunConfig
import pdt_optax

CONFIG = "config.json"
RECORDS = "records.jsonl"
_PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")
_SIGNIFICANT_DIGITS = 6


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


def start(run_dir: pathlib.Path, config: Any) -> None:
    """Starts a run folder without records; one of the same configuration is started anew.

    Args:
      run_dir: folder, made if missing.
      config: of the run: a dataclass, or JSON values by their names.

    Raises:
      ValueError: if the folder holds a run of another configuration.
      OSError: if the folder cannot be written.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / CONFIG
    if path.exists():
        _check_same(run_dir, config)
    (run_dir / RECORDS).write_text("")
    data = dict(config) if isinstance(config, Mapping) else dataclasses.asdict(config)
    _replace(path, json.dumps({"config": data, **_environment()}, indent=2) + "\n")


def resume(run_dir: pathlib.Path, config: Any) -> None:
    """Starts a run folder; goes on with one of the same configuration; see `start`."""
    if (run_dir / CONFIG).exists():
        _check_same(run_dir, config)
    else:
        start(run_dir, config)


class Rows:
    """A run folder of rows of JSON values: what is recorded is not measured again.

    Attributes:
      run_dir: the folder.
      rows: those that there are.

    Raises:
      ValueError: if the folder holds rows of another configuration.
      OSError: if the folder cannot be written.
    """

    def __init__(self, run_dir: str, config: Mapping[str, Any]):
        self.run_dir = pathlib.Path(run_dir)
        resume(self.run_dir, config)
        self.rows = read_rows(self.run_dir)

    def has(self, key: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> bool:
        """Whether there is a row with these values; what it lacks is as by default."""
        return any(key.items() <= {**(defaults or {}), **row}.items() for row in self.rows)

    def append(self, row: dict[str, Any]) -> None:
        """Appends a row."""
        append_row(self.run_dir, row)
        self.rows.append(row)


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
    row = {name: compact(v) for name, v in fields if v is not None or name not in _LATER}
    append_row(run_dir, {"kind": kind, **row})


def append_row(run_dir: pathlib.Path, row: Mapping[str, Any]) -> None:
    """Appends a row of JSON values to a run."""
    line = json.dumps(dict(row), separators=(",", ":"))
    with (run_dir / RECORDS).open("a") as file:
        file.write(line + "\n")


def read_config(run_dir: pathlib.Path) -> dict[str, Any]:
    """Reads the configuration of a run, as JSON values, and the environment it ran in."""
    return json.loads((run_dir / CONFIG).read_text())


def read_run_config(run_dir: pathlib.Path, cls: type = RunConfig) -> Any:
    """Reads the configuration of a run.

    Raises:
      ValueError: if it is that of another program.
    """
    try:
        return settings.from_data(cls, read_config(run_dir)["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run_dir} holds a run of another program: {error}") from None


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


def _check_same(run_dir: pathlib.Path, config: Any) -> None:
    if isinstance(config, Mapping):
        config = json.loads(json.dumps(dict(config)))  # Tuples come back as lists.
        there = read_config(run_dir)["config"]
        text = "; ".join(
            f"{name} is {there.get(name)} there and {config.get(name)} here"
            for name in sorted({*there, *config})
            if there.get(name) != config.get(name)
        )
    else:
        text = settings.difference(read_run_config(run_dir, type(config)), config)
    if text:
        raise ValueError(f"{run_dir} holds another run ({text}).")


def compact(value: Any) -> Any:
    """Six digits of each number; None stands for what is not finite."""
    if isinstance(value, list):
        return [compact(part) for part in value]
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
