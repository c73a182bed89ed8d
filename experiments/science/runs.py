"""The run folder: the machine (`config.json`), what came out (`records.jsonl`) and `fields/`."""

from collections.abc import Sequence
import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
from typing import Any

import jax
import numpy as np

from experiments.runs import records
from experiments.runs.records import CONFIG, RECORDS

FIELDS = "fields"
PACKAGES = ("jax", "jaxlib", "optax", "pdt-optax", "diffrax", "numpy")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is run; no setting is run twice.

    Attributes:
      task: name of the task.
      method: name of the rival.
      seed: of the weights and of fresh points.
      rate: learning rate, or None where the rival has none.
      seconds: of training.
      size: of the network, a name.
      dtype: of the weights.
      points: `fixed` or `fresh` at each step.
    """

    task: str
    method: str
    seed: int
    rate: float | None
    seconds: float
    size: str = "own"
    dtype: str = "float32"
    points: str = "fixed"

    @property
    def problem(self) -> str:
        """The task, and the size of the network where it is not the task's own."""
        return self.task if self.size == "own" else f"{self.task}/{self.size}"


@dataclasses.dataclass(frozen=True)
class Run:
    """A setting and what came out.

    Attributes:
      setting: what was run.
      status: `finished`, or `diverged` when the loss stopped being finite.
      weights: number of weights.
      compile_seconds: of tracing and compiling, before the run and not part of its seconds.
      seconds: entry k is after k chunks of steps; so are the next three.
      steps: so far.
      loss: on the fixed points; nan where it is not finite.
      error: the task's error.
    """

    setting: Setting
    status: str
    weights: int
    compile_seconds: float
    seconds: Sequence[float]
    steps: Sequence[int]
    loss: Sequence[float]
    error: Sequence[float]

    @property
    def best_loss(self) -> float:
        """The least finite loss of the run."""
        return float(np.nanmin(self.loss))

    @property
    def final_error(self) -> float:
        """The error at the end; infinite after divergence."""
        return self.error[-1] if math.isfinite(self.error[-1]) else math.inf

    def seconds_to(self, loss: float) -> float:
        """Seconds until a loss is reached; infinite if it never is."""
        reached = [s for s, value in zip(self.seconds, self.loss, strict=True) if value <= loss]
        return reached[0] if reached else math.inf


def start(folder: pathlib.Path) -> None:
    """Makes a run folder and notes the machine, unless it is there."""
    (folder / FIELDS).mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).exists():
        (folder / CONFIG).write_text(json.dumps(_machine(), indent=1) + "\n")


def append(folder: pathlib.Path, run: Run) -> None:
    """Adds a run; six digits are kept, and None stands for what is not finite."""
    values = dataclasses.asdict(run)
    for name in ("seconds", "loss", "error"):
        values[name] = records.compact(values[name])
    values["compile_seconds"] = records.compact(run.compile_seconds)
    records.append_row(folder, values)


def read(folder: pathlib.Path) -> list[Run]:
    """All runs of a folder, in the order in which they were made; none if there is no folder."""
    return list(map(_parsed, records.read_rows(folder))) if (folder / RECORDS).exists() else []


def field_path(folder: pathlib.Path, setting: Setting) -> pathlib.Path:
    """The file that holds the picture of a run: arrays `predicted`."""
    name = f"{setting.task}-{setting.size}-{setting.points}-{setting.method}-{setting.seed}.npy"
    return folder / FIELDS / name


def _parsed(values: dict[str, Any]) -> Run:
    for name in ("loss", "error"):
        values[name] = [math.nan if value is None else value for value in values[name]]
    return Run(**{**values, "setting": Setting(**values["setting"])})


def _machine() -> dict[str, Any]:
    devices = jax.devices()
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.machine(),
        "cores": os.cpu_count(),
        "devices": [f"{len(devices)} x {devices[0].device_kind}"],
    }
