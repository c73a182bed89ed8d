"""Several processes of one run: what they ask of each other, and when; arms one after the other."""

import os
import pathlib
import subprocess
import sys

import optax
import pytest
from test_killed import free_port
from test_resume import tiny_workload

from experiments.configs.base import RunConfig
from experiments.runs import checkpoints, devices, loop, records, training

ROOT = pathlib.Path(__file__).parents[1]


def test_steps_do_not_wait_for_each_other(monkeypatch, tmp_path):
    """A signal to one is heard by all within `ASK_EVERY` steps, and no step before asks."""
    asked = []
    monkeypatch.setattr(devices, "are_many", lambda: True)
    monkeypatch.setattr(devices, "any_of", lambda *values: asked.append(values) or list(values))
    stop = checkpoints.Stop()
    saver = checkpoints.Checkpoints(tmp_path, 10.0, stop)
    due = [saver.is_due for _ in range(4 * checkpoints.ASK_EVERY)]
    assert not any(due)
    assert asked == [(False, False)] * 4
    stop.number = 15
    due = [saver.is_due for _ in range(checkpoints.ASK_EVERY)]
    assert due == [False] * (checkpoints.ASK_EVERY - 1) + [True]


@pytest.mark.parametrize("is_first", [True, False])
def test_all_stop_if_the_first_cannot(monkeypatch, is_first: bool):
    def refuse():
        raise ValueError("holds another run")

    monkeypatch.setattr(devices, "is_first", lambda: is_first)
    monkeypatch.setattr(devices, "any_of", lambda value: [value] if is_first else [True])
    with pytest.raises(SystemExit, match="holds another run" if is_first else "the first process"):
        devices.first_does(refuse)


@pytest.mark.slow
def test_two_processes_stop_at_once_at_another_run(tmp_path: pathlib.Path):
    records.start(tmp_path / "run", RunConfig(epochs=7))
    command = [sys.executable, "-m", "experiments.train", "--parallelism=data", "--num_processes=2"]
    command += [f"--run_dir={tmp_path / 'run'}", f"--coordinator=127.0.0.1:{free_port()}"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [*command, f"--process_id={number}"],
            cwd=ROOT,
            env=environment,
            text=True,
            stderr=subprocess.PIPE,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [1, 1]
    assert "holds another run (epochs is 7 there and 60 here)" in said[0]
    assert "the first process stopped" in said[1]


def test_arms_one_after_the_other(monkeypatch):
    """The same records as in turn, and no more than one arm in memory."""
    workload = tiny_workload()
    ways = [training.Arm(name, optax.sgd(rate)) for name, rate in (("a", 0.1), ("b", 0.2))]
    alive, most = set(), []
    begin = loop._begin

    def counted(workload, program, *others):
        found = begin(workload, program, *others)
        alive.add(program.arm.name)
        most.append(len(alive))
        return found

    monkeypatch.setattr(loop, "_begin", counted)
    found = {}
    for interleave in (True, False):
        alive.clear()
        rows = []
        for row in loop.run(workload, ways, [0], 2, 8, 8, interleave=interleave):
            rows.append(row)
            if isinstance(row, records.EndRecord):
                alive.discard(row.arm)
        found[interleave] = rows
    assert most == [1, 2, 1, 1]
    assert [row.arm for row in found[True]] == ["a", "b", "a", "a", "b", "b"]
    assert [row.arm for row in found[False]] == ["a"] * 3 + ["b"] * 3
    losses = [
        sorted((r.arm, r.epoch, r.train_loss) for r in rows if isinstance(r, records.EpochRecord))
        for rows in found.values()
    ]
    assert losses[0] == losses[1]
