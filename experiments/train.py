r"""Trains a model with an optimizer, with PDT, or with both side by side, and reports.

Example:
  python -m experiments.train --model=fcn --dataset=mnist5k --optimizer=sgd --learning_rate=0.01 \
    --baseline --pdt --pdt_criteria=paper,bounded,reference
"""

from collections.abc import Iterator, Sequence
import pathlib
import shutil
import signal
import sys
from typing import Any

from absl import flags
import optax

from experiments import cli
from experiments.configs import ire_flags, pdt_flags, run_flags
from experiments.configs.run_flags import BATCH_SIZE, EPOCHS, LEARNING_RATE
from experiments.reports import summary, tables, tensorboard, time_to_target
from experiments.runs import checkpoints, hosts, loop, progress, records, workloads
from experiments.runs.controls import CONTROLS
from experiments.runs.optimizers import OPTIMIZERS, SCHEDULES, Settings
from experiments.runs.placement import Placement
from experiments.runs.training import Arm

CHECKPOINTS = "checkpoints"

for module in (run_flags, pdt_flags, ire_flags):
    flags.adopt_module_key_flags(module)


def main() -> None:
    """Runs the program."""
    _check_flags()
    run_flags.join()
    placement = run_flags.placement()
    workload = run_flags.workload()
    arms = _arms(workload)
    run_dir = pathlib.Path(run_flags.RUN_DIR.value or pathlib.Path("runs", _default_name()))
    is_first = hosts.is_first()
    logger = None
    try:
        if is_first:
            records.resume(run_dir, _configuration())
            logger = tensorboard.Logger(run_dir) if run_flags.TENSORBOARD.value else None
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"flag --run_dir: {error}")
    hosts.wait("the run folder")

    say = print if is_first else _silence
    say(f"Training {', '.join(arm.name for arm in arms)}: {summary.describe(_configuration())}")
    stop = checkpoints.Stop()
    try:
        with stop.on_signals():
            for record in _train(workload, arms, placement, run_dir, stop):
                if is_first:
                    records.append(run_dir, record)
                if logger:
                    logger.log(record)
    except (checkpoints.StoppedError, KeyboardInterrupt):
        say(
            "Stopped. The same command goes on. What is done is shown by "
            f"python -m experiments.report --run={run_dir}",
            file=sys.stderr,
        )
        sys.exit(128 + (stop.number or signal.SIGINT))
    hosts.wait("the end")
    if not is_first:
        return
    shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)

    print("\n" + tables.text(summary.write(run_dir)) + "\n")
    for name in (summary.PICTURE, summary.SUMMARY, records.RECORDS):
        print(run_dir / name)


def _silence(*_: Any, **__: Any) -> None:
    """Says nothing."""


def _train(
    workload: workloads.Workload,
    arms: Sequence[Arm],
    placement: Placement,
    run_dir: pathlib.Path,
    stop: checkpoints.Stop,
) -> Iterator[records.Record]:
    """New records, from where the run folder has got to."""
    seeds = [int(seed) for seed in run_flags.SEEDS.value]
    minutes = run_flags.CHECKPOINT_MINUTES.value
    saver = checkpoints.Checkpoints(run_dir / CHECKPOINTS, minutes, stop)
    done = records.read(run_dir)
    number, position = checkpoints.kept(done, [arm.name for arm in arms], saver.position())
    hosts.wait("the records")
    if hosts.is_first():
        records.truncate(run_dir, number)
    rows = loop.run(
        workload,
        arms,
        seeds,
        EPOCHS.value,
        BATCH_SIZE.value,
        pdt_flags.VERIFY_EXAMPLES.value,
        saver,
        done[:number],
        position,
        placement,
    )
    return progress.shown(rows, len(arms), len(seeds), EPOCHS.value, done[:number])


def _check_flags() -> None:
    given = [name for name, flag in _own_flags().items() if not flag.using_default_value]
    pdt_flags.check(given, run_flags.OPTIMIZER.value)
    run_flags.check(pdt_flags.PDT.value)
    ire_flags.check(given, BATCH_SIZE.value, bool(run_flags.GRID.value), pdt_flags.PDT.value)


def _steps_per_epoch(workload: workloads.Workload) -> int:
    steps = workload.dataset.steps_per_epoch(BATCH_SIZE.value)
    if not steps:
        of = "a class" if run_flags.ORDER.value == "one_class" else "the train split"
        sys.exit(f"flag --batch_size={BATCH_SIZE.value}: is larger than {of}.")
    return steps


def _arms(workload: workloads.Workload) -> list[Arm]:
    steps_per_epoch = _steps_per_epoch(workload)
    steps = EPOCHS.value * steps_per_epoch
    has_ire = ire_flags.KAPPA.value is not None
    if has_ire and workload.logits is None:
        sys.exit(f"flag --ire_kappa: needs a model with classes, not {run_flags.MODEL.value}.")
    if run_flags.GRID.value:
        bases = {rate: _base(float(rate), steps) for rate in run_flags.GRID.value}
        if has_ire:
            bases = {r: ire_flags.tuned(base, workload) for r, base in bases.items()}
        return [Arm(rate, base) for rate, base in bases.items()]
    base = _base(LEARNING_RATE.value, steps)
    arms = []
    if run_flags.BASELINE.value or not (pdt_flags.PDT.value or has_ire):
        arms.append(Arm(time_to_target.BASE, base))
    if short := run_flags.SHORT_EPOCHS.value:
        arms.append(Arm("short", _base(LEARNING_RATE.value, short * steps_per_epoch), epochs=short))
    if rate := run_flags.RETUNED_RATE.value:
        arms.append(Arm("retuned", _base(rate, steps)))
    for name in run_flags.CONTROL_NAMES.value:
        control = CONTROLS[name]
        settings = _settings(LEARNING_RATE.value, steps)
        optimizer = control.build(base, settings, run_flags.OPTIMIZER.value, steps_per_epoch)
        arms.append(Arm(name, optimizer, evaluated=control.evaluated))
    links = pdt_flags.links(steps_per_epoch)
    for name, link in links.items():
        arms.append(Arm(name, link.after(base), link))
    if has_ire:
        base = _base(ire_flags.LEARNING_RATE.value or LEARNING_RATE.value, steps)
        for name, enhanced in ire_flags.enhanced(base, workload).items():
            arms.append(Arm(name, enhanced, is_counted=False))
            for other, link in links.items() if ire_flags.WITH_PDT.value else ():
                arms.append(Arm(f"{name}+{other}", link.after(enhanced), link, is_counted=False))
    return arms


def _settings(learning_rate: float, steps: int) -> Settings:
    warmup, restart = (
        steps * flag.value // EPOCHS.value
        for flag in (run_flags.WARMUP_EPOCHS, run_flags.RESTART_EPOCH)
    )
    schedule = SCHEDULES[run_flags.SCHEDULE.value](
        learning_rate, steps, run_flags.MINIMUM_RATE.value, warmup, restart
    )
    return Settings(schedule, learning_rate, run_flags.MOMENTUM.value, run_flags.WEIGHT_DECAY.value)


def _base(learning_rate: float, steps: int) -> optax.GradientTransformation:
    return OPTIMIZERS[run_flags.OPTIMIZER.value](_settings(learning_rate, steps))


def _own_flags() -> dict[str, flags.Flag]:
    one_of_each = run_flags.MODEL, pdt_flags.PDT, ire_flags.KAPPA
    return {name: flag for one in one_of_each for name, flag in cli.flags_beside(one).items()}


def _configuration() -> dict[str, Any]:
    return {name: flag.value for name, flag in _own_flags().items() if name not in records.MEANS}


def _default_name() -> str:
    named = (run_flags.MODEL, run_flags.DATASET, run_flags.OPTIMIZER)
    apart = [*(flag.name for flag in named), *records.MEANS]
    rest = [flag for flag in _own_flags().values() if flag.name not in apart]
    changed = [flag.serialize().removeprefix("--") for flag in rest if flag.value != flag.default]
    return "-".join([*(flag.value for flag in named), *changed])


if __name__ == "__main__":
    cli.run(main)
