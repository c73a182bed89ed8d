r"""Trains a model with an optimizer, with PDT, or with both side by side, and reports.

  python -m experiments.train --baseline --pdt --learning_rate=0.01 --pdt_criteria=paper,bounded
  python -m experiments.train --config=experiments/configs/fcn.py --config.pdt.horizon=10
  python -m experiments.train --config=experiments/configs/cpu.py:table2/adam

Below is what people change. All settings: experiments/configs/base.py, or --helpfull.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import hashlib
import json
import pathlib
import shutil
import signal
import sys
from typing import Any

from experiments import cli
from experiments.configs.base import RunConfig
from experiments.data import DATASETS, ORDERS, ArrayDataset, MissingDataError
from experiments.models import MODELS
from experiments.reports import summary, tables
from experiments.runs import checkpoints, devices, loop, progress, records, workloads
from experiments.runs.arms import build_arms
from experiments.runs.training import Arm
from experiments.settings import Config, changed, setting

CHECKPOINTS = "checkpoints"


class Runtime(Config):
    """How a run is carried out; what comes out does not depend on it."""

    run_dir: str | None = setting(None, "Folder of records, table and picture.", key=True)
    checkpoint_minutes: float = setting(
        10.0,
        "Time between checkpoints. Ctrl-C and SIGTERM save one as well, and the same command goes "
        "on.",
        least=0,
    )
    interleave: bool = setting(
        True,
        "Train the arms in turn, epoch by epoch, so that what slows the machine slows all of them; "
        "else one after the other, and one alone is in memory.",
    )
    parallelism: str = setting(
        "one",
        "one: the default device; data: batches are split over all devices of all processes; fsdp: "
        "parameters and optimizer state as well.",
        of=devices.PLACEMENTS,
    )
    coordinator: str | None = setting(
        None,
        "Of a run of several processes the address:port of the first; auto on TPU pods and under "
        "Slurm. All see the same run folder.",
    )
    num_processes: int | None = setting(None, "How many processes there are.", least=1)
    process_id: int | None = setting(None, "Which of them this is.", least=0)

    def __post_init__(self):
        super().__post_init__()
        number, process = self.num_processes, self.process_id
        if self.coordinator is None and (number is not None or process is not None):
            raise ValueError("`coordinator` must be given with `num_processes` and `process_id`.")
        if self.coordinator not in (None, devices.AUTO) and None in (number, process):
            raise ValueError("`coordinator` needs `num_processes` and `process_id`.")
        if self.coordinator is not None and self.parallelism == "one":
            raise ValueError("`coordinator` needs `parallelism` data or fsdp.")
        if number is not None and process is not None and process >= number:
            raise ValueError(f"`process_id` must be below `num_processes`, got {process}.")


def main(config: RunConfig, runtime: Runtime) -> None:
    """Runs the program."""
    try:
        devices.join(runtime.coordinator, runtime.num_processes, runtime.process_id)
    except (RuntimeError, ValueError) as error:
        sys.exit(f"`coordinator` {runtime.coordinator}: {error}")
    try:
        placement = _placement(config, runtime)
        workload = workload_of(config)
        arms = build_arms(config, workload)
    except ValueError as error:
        sys.exit(str(error))
    run_dir = pathlib.Path(runtime.run_dir or pathlib.Path("runs", default_name(config)))
    devices.first_does(lambda: records.resume(run_dir, config))
    is_first = devices.is_first()
    say = print if is_first else _silence
    say(f"Training {', '.join(arm.name for arm in arms)}: {summary.describe(vars(config))}")
    every = workload.dataset.steps_per_epoch(config.batch_size)
    for arm in arms:
        epochs = arm.epochs or config.epochs
        first = -(-arm.link.steps_until_jump() // every) if arm.link else 0
        if first > epochs:
            say(
                f"{arm.name}: no jump in {epochs} epochs, the first may come at the end of {first}."
            )
    stop = checkpoints.Stop()
    try:
        with stop.on_signals():
            for record in _train(config, runtime, workload, arms, placement, run_dir, stop):
                if is_first:
                    records.append(run_dir, record)
    except (checkpoints.StoppedError, KeyboardInterrupt):
        say(
            "Stopped. The same command goes on. What is done is shown by "
            f"python -m experiments.report --run={run_dir}",
            file=sys.stderr,
        )
        sys.exit(128 + (stop.number or signal.SIGINT))
    devices.wait("the end")
    if not is_first:
        return
    shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)

    print("\n" + tables.text(summary.write(run_dir)) + "\n")
    for name in (summary.PICTURE, summary.SUMMARY, records.RECORDS):
        print(run_dir / name)


def _silence(*_: Any, **__: Any) -> None:
    """Says nothing."""


def _train(
    config: RunConfig,
    runtime: Runtime,
    workload: workloads.Workload,
    arms: Sequence[Arm],
    placement: devices.Placement,
    run_dir: pathlib.Path,
    stop: checkpoints.Stop,
) -> Iterator[records.Record]:
    """New records, from where the run folder has got to."""
    saver = checkpoints.Checkpoints(run_dir / CHECKPOINTS, runtime.checkpoint_minutes, stop)
    done = records.read(run_dir)
    number, position = checkpoints.kept(done, [arm.name for arm in arms], saver.position())
    devices.wait("the records")
    if devices.is_first():
        records.truncate(run_dir, number)
    rows = loop.run(
        workload,
        arms,
        config.seeds,
        config.epochs,
        config.batch_size,
        config.pdt.verify_examples if config.pdt else config.batch_size,
        saver,
        done[:number],
        position,
        placement,
        runtime.interleave,
    )
    return progress.shown(rows, len(arms), len(config.seeds), config.epochs, done[:number])


def _placement(config: RunConfig, runtime: Runtime) -> devices.Placement:
    found = devices.PLACEMENTS[runtime.parallelism]()
    if found.mesh is not None and config.batch_size % found.mesh.size:
        raise ValueError(
            f"`batch_size` must be a multiple of the {found.mesh.size} devices of `parallelism` "
            f"{runtime.parallelism}, got {config.batch_size}."
        )
    return found


def workload_of(config: RunConfig) -> workloads.Workload:
    """What is trained.

    Raises:
      ValueError: if data are missing, or model and data do not fit together.
    """
    scale = {"width": config.model_width, "depth": config.model_depth}
    try:
        dataset = DATASETS[config.dataset]()
    except MissingDataError as error:
        raise ValueError(f"`dataset`: {error}") from None
    if config.batch_order != "shuffled":
        if not isinstance(dataset, ArrayDataset):
            raise ValueError(f"`batch_order` {config.batch_order} needs a `dataset` in memory.")
        dataset = dataclasses.replace(dataset, order=ORDERS[config.batch_order])

    def model(*arguments: Any, **options: Any) -> Any:
        given = {name: value for name, value in scale.items() if value != 1}
        return MODELS[config.model](*arguments, **given, **options)

    try:
        return workloads.create(model, dataset, config.resolution)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`model` {config.model}: {error}") from None
    except ZeroDivisionError:
        raise ValueError(
            f"`model_width` must leave each layer units, got {config.model_width}."
        ) from None


def default_name(config: RunConfig) -> str:
    """Name of a run folder: what is trained, and a digest of all settings that are changed."""
    text = json.dumps(changed(config), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return "-".join([config.model, config.dataset, config.optimizer, digest])


if __name__ == "__main__":
    cli.run(main, RunConfig, Runtime, has_files=True)
