"""Trains several arms: same initialisation, same batches; in turn or one after the other."""

from collections.abc import Iterator, Sequence
import functools
import math

from experiments.runs.checkpoints import Checkpoints, Position
from experiments.runs.devices import ONE, Placement, prefetched
from experiments.runs.records import EndRecord, Record
from experiments.runs.training import (
    Arm,
    Program,
    Training,
    compile_arm,
    initial,
    scored_examples,
)
from experiments.runs.workloads import Workload


def run(
    workload: Workload,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    num_scored: int,
    saver: Checkpoints | None = None,
    done: Sequence[Record] = (),
    position: Position | None = None,
    placement: Placement = ONE,
    interleave: bool = True,
) -> Iterator[Record]:
    """Trains every arm on every seed.

    An arm whose train loss is no longer finite ends there; the others go on.

    Args:
      workload: what is trained.
      arms: ways of training, compared on the same initialisation and the same batches.
      seeds: seeds of the initialisation and of the order of the batches.
      epochs: passes over the train split.
      batch_size: examples per step.
      num_scored: training examples whose loss is the `value_fn` of verified jumps.
      saver: saves checkpoints; whoever takes records must keep each before asking for the next.
      done: records of this run that are kept already; see `checkpoints.kept`.
      position: checkpoint to go on from.
      placement: the devices.
      interleave: whether the arms of a seed are trained in turn, epoch by epoch, so that what slows
        the machine slows all of them; else one after the other, and one alone is in memory.

    Yields:
      A record per seed, epoch and arm, as soon as it is known, and one at the end of each arm.

    Raises:
      StoppedError: once a checkpoint is saved after a signal.
    """
    ended = {(record.seed, record.arm) for record in done if isinstance(record, EndRecord)}
    names = [arm.name for arm in arms]
    left = [seed for seed in seeds if any((seed, name) not in ended for name in names)]
    if not left:
        return
    programs = [compile_arm(workload, arm, batch_size, num_scored, placement) for arm in arms]
    count = len(done)
    for seed in left:
        todo = [program for program in programs if (seed, program.arm.name) not in ended]
        begun = position.progress if saver and position and position.seed == seed else {}
        under_way = [program for program in todo if program.arm.name in begun]
        rest = [program for program in todo if program.arm.name not in begun]
        for part in filter(None, [under_way, *([rest] if interleave else ([p] for p in rest))]):
            live = [_begin(workload, program, seed, num_scored, placement) for program in part]
            if saver and position and part is under_way:
                _go_on(live, saver, position)
            for record in _run_seed(workload, live, epochs, batch_size, placement, saver, count):
                yield record
                count += 1


def _begin(
    workload: Workload, program: Program, seed: int, num_scored: int, placement: Placement
) -> Training:
    state = initial(workload, program.arm, seed, placement)
    scored = placement.put_whole(scored_examples(workload, program.arm, seed, num_scored))
    return Training(program, seed, state, scored)


def _go_on(live: Sequence[Training], saver: Checkpoints, position: Position) -> None:
    restored = saver.restore({training.program.arm.name: training.state for training in live})
    for training in live:
        name = training.program.arm.name
        training.state = restored[name]
        for counter, value in position.progress[name].items():
            setattr(training, counter, value)


def _run_seed(
    workload: Workload,
    live: list[Training],
    epochs: int,
    batch_size: int,
    placement: Placement,
    saver: Checkpoints | None,
    count: int,
) -> Iterator[Record]:
    """Trains the arms of a seed that are `live`, with `count` records kept before."""

    def save() -> None:
        assert saver is not None
        progress = {training.program.arm.name: training.progress() for training in live}
        states = {training.program.arm.name: training.state for training in live}
        saver.save(Position(seed, count, progress), states)

    seed = live[0].seed
    for epoch in range(1 + min(training.epoch for training in live), epochs + 1):
        for training in [training for training in live if training.epoch < epoch]:
            batches = workload.dataset.epoch_batches(
                seed, epoch, batch_size, training.step, placement.read
            )
            on_devices = prefetched(batches, lambda batch: placement.put_read(batch, batch_size))
            training.train(on_devices, lambda: bool(saver and saver.is_due), save)
            evaluate = functools.partial(
                workload.evaluate, *training.evaluated(), placement=placement
            )
            train = evaluate("train")
            yield training.epoch_record(train, evaluate("validation"))
            count += 1
            diverged = not math.isfinite(train.loss)
            if diverged or epoch == (training.program.arm.epochs or epochs):
                live.remove(training)
                yield training.end_record(evaluate("test"), diverged)
                count += 1
