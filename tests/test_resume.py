"""Runs that stop, or are killed, and go on: the same records as of an uninterrupted run."""

from collections.abc import Sequence
import dataclasses
import functools
import signal
from typing import Any

import jax
import numpy as np
import optax
import pytest
from suites import quick

from experiments.data import ArrayDataset, Examples
from experiments.models import MODELS
from experiments.runs import checkpoints, loop, records, training, workloads
from experiments.runs.checkpoints import Checkpoints, Position, Stop, StoppedError
from experiments.runs.records import EndRecord, EpochRecord, Record
import pdt_optax

EPOCHS, SEEDS, BATCH = 3, (3, 4), 8


def tiny_workload() -> workloads.Workload:
    model = functools.partial(MODELS["fc2"], width=1 / 32)
    random = np.random.default_rng(0)
    split = Examples(
        random.normal(size=(24, 4, 4, 1)).astype(np.float32),
        random.integers(0, 3, 24).astype(np.int32),
    )
    return workloads.create(model, ArrayDataset(split, split, split, num_classes=3))


@pytest.fixture(scope="module")
def trained():
    """A workload, arms of which one ends sooner and one jumps, the records of a whole run."""
    workload = tiny_workload()
    jump = pdt_optax.Extrapolate("bounded", history=3, horizon=2, start=3, interval=0)
    pdt = pdt_optax.pdt(1, jump)
    link = training.Link(lambda optimizer: optax.chain(optimizer, pdt), 3, 2)
    arms = [
        training.Arm("short", optax.adam(0.01), epochs=1),
        training.Arm("bounded", link.after(optax.adam(0.01)), link),
    ]
    programs = {arm.name: training.compile_arm(workload, arm, BATCH, 8) for arm in arms}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_arm", lambda workload, arm, *_: programs[arm.name])
        yield workload, arms, list(loop.run(workload, arms, SEEDS, EPOCHS, BATCH, 8))


def timeless(rows: Sequence[Record]) -> list[dict[str, Any]]:
    return [{**dataclasses.asdict(row), "seconds": 0, "compile_seconds": 0} for row in rows]


class Killed(BaseException):
    pass


def run_until(trained, folder, done: list[Record], count: int, every: int, stops: bool) -> None:
    """Trains `count` steps, with a checkpoint each `every` steps; then dies or stops."""
    workload, arms, _ = trained
    steps = 0

    class Counting(Checkpoints):
        @property
        def is_due(self) -> bool:
            nonlocal steps
            steps += 1
            if steps == count and not stops:
                raise Killed
            if steps == count:
                stop.number = signal.SIGTERM
            return steps % every == 0 or super().is_due

    stop = Stop()
    saver = Counting(folder, 1e9, stop)
    number, position = checkpoints.kept(done, [arm.name for arm in arms], saver.position())
    del done[number:]
    rows = loop.run(workload, arms, SEEDS, EPOCHS, BATCH, 8, saver, tuple(done), position)
    for row in rows:
        done.append(row)


@pytest.mark.parametrize("stops", quick([False, True], True))
@pytest.mark.parametrize(("every", "counts"), [(4, (1, 6, 9, 5)), (1000, (8, 14))])
def test_killed_or_stopped_anywhere(trained, tmp_path, stops, every, counts):
    """Killed in the midst of epochs, again and again, with and without a checkpoint at hand."""
    done: list[Record] = []
    for count in counts:
        with pytest.raises(StoppedError if stops else Killed):
            run_until(trained, tmp_path / "checkpoints", done, count, every, stops)
    run_until(trained, tmp_path / "checkpoints", done, 10**9, every, stops)
    assert timeless(done) == timeless(trained[2])
    predicted = [row for row in done if isinstance(row, EpochRecord) and row.predicted]
    assert predicted
    assert [row.arm for row in done if isinstance(row, EndRecord)] == ["short", "bounded"] * 2


def test_what_is_kept():
    epoch = EpochRecord(0, "a", 1, 1.0, 1.0, 1.0, 1.0, 1.0)
    ends = [EndRecord(0, arm, "finished", 1, 1.0, 1.0, 0.5) for arm in "ab"]
    later = dataclasses.replace(epoch, seed=1)
    rows = [epoch, *ends, later]
    position = Position(1, 4, {})
    assert checkpoints.kept(rows, "ab", None) == (3, None)
    assert checkpoints.kept(rows, "ab", position) == (4, position)
    assert checkpoints.kept(rows[:3], "ab", position) == (3, None)  # Records were lost.
    assert checkpoints.kept(rows, "ab", Position(0, 2, {})) == (3, None)  # Of a finished seed.
    assert checkpoints.kept(rows[:2], "ab", None) == (0, None)


def test_a_line_cut_off_is_left_out(tmp_path):
    records.start(tmp_path, {"epochs": 2})
    row = EpochRecord(0, "a", 1, 1.0, 1.0, 1.0, 1.0, 1.0)
    records.append(tmp_path, row)
    with (tmp_path / records.RECORDS).open("a") as file:
        file.write('{"kind":"epo')
    assert records.read(tmp_path) == [row]
    records.truncate(tmp_path, 1)
    records.append(tmp_path, row)
    assert records.read(tmp_path) == [row, row]


def test_checkpoints_keep_random_keys_and_the_structure(tmp_path):
    state = {"key": jax.random.key(7), "adam": optax.adam(0.1).init({"w": np.ones(2)})}
    saver = Checkpoints(tmp_path / "checkpoints", 1e9, Stop())
    assert saver.position() is None
    saver.save(Position(0, 5, {"a": {"epoch": 1}}), {"a": state})
    assert saver.position() == (0, 5, {"a": {"epoch": 1}})
    restored = saver.restore({"a": state})["a"]
    assert jax.random.key_data(restored["key"]).tolist() == [0, 7]
    assert jax.tree.structure(restored) == jax.tree.structure(state)
