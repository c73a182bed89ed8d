"""Runs of one process and of two are killed with SIGKILL in mid-epoch and end as if they were not.

`make kill` kills ten runs of each, five of the training program, and prints where.
"""

import dataclasses
import os
from pathlib import Path
import pty
import re
import signal
import socket
import subprocess
import sys
import termios

import numpy as np
import pytest
import resumable

from experiments.runs import records

pytestmark = pytest.mark.slow
ROOT = Path(resumable.__file__).parent.parent
LONG = "PDT_KILL" in os.environ
RUNS = [(2, "fsdp"), *([(1, "data"), (1, "fsdp"), (2, "data")] * LONG)]
TIMES = 5 if LONG else 1
LAST = resumable.EPOCHS * resumable.STEPS


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Run:
    """All processes of one run."""

    def __init__(self, directory, processes, layout, *options):
        command = [sys.executable, "-m", "tests.resumable", f"--directory={directory}", *options]
        command += [f"--layout={layout}", f"--processes={processes}", f"--port={free_port()}"]
        self.processes = [
            subprocess.Popen(
                [*command, f"--process={process}"],
                cwd=ROOT,
                env=os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for process in range(processes)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.communicate()

    def said(self):
        """The next line of each process."""
        return [self._line(process.stdout) for process in self.processes]

    def _line(self, output):
        lines = []
        for line in output:
            if line.startswith(resumable.SAYS):
                return line.split()[1:]
            lines.append(line)
        raise AssertionError("".join(lines))


def finish(*options):
    """The step that a whole run started at, and what each process ended with."""
    with Run(*options) as run:
        return run.said(), run.said()


@pytest.mark.parametrize(("processes", "layout"), RUNS)
def test_killed_run_ends_as_one_that_was_not(tmp_path, processes, layout):
    firsts, expected = finish(tmp_path / "whole", processes, layout)
    assert firsts == [["0"]] * processes
    assert all(int(predictions) == 3 for _, predictions in expected)
    rng = np.random.default_rng([processes, len(layout)])
    for time in range(TIMES):
        step = rng.choice([step for step in range(21, LAST) if step % resumable.STEPS])
        options = tmp_path / f"killed_{time}", processes, layout
        with Run(*options, f"--stop_at={step}") as run:
            assert run.said() == [["0"]] * processes
            assert run.said() == [["stopped"]] * processes
        firsts, results = finish(*options)
        first = int(firsts[0][0])
        assert first in (10, 20, 30)
        assert first <= step
        assert firsts == [firsts[0]] * processes
        assert results == expected
        print(f"\nkilled at step {step}, resumed at {first}, {processes} processes, {layout}")


def train(run_dir, processes, kill_at=None):
    """Runs `experiments.train`, and kills it once its progress bar is at an epoch."""
    command = [sys.executable, "-m", "experiments.train", "--model=fc2", "--dataset=digits"]
    command += ["--epochs=60", "--seeds=1,2", "--batch_size=64", "--baseline", "--pdt"]
    command += ["--checkpoint_minutes=0.01", f"--run_dir={run_dir}"]
    if processes > 1:
        command += ["--parallelism=fsdp", f"--coordinator=127.0.0.1:{free_port()}"]
        command += [f"--num_processes={processes}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(run_dir.parent / "cache")} if processes == 1 else {}
    terminal, errors = pty.openpty()  # On a terminal the bar moves twice a second.
    termios.tcsetwinsize(terminal, (24, 200))
    running = [
        subprocess.Popen(
            command + [f"--process_id={process}"] * (processes > 1),
            cwd=ROOT,
            env=os.environ | cache | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        for process in range(processes)
    ]
    os.close(errors)
    said = ""
    try:
        while part := os.read(terminal, 4096):
            said += part.decode(errors="replace")
            epochs = [int(epoch) for epoch in re.findall(r" (\d+)/240 ", said)]
            if kill_at is not None and epochs and epochs[-1] >= kill_at:
                for process in running:
                    process.kill()
    except OSError:  # What Linux answers where nobody writes any more.
        pass
    os.close(terminal)
    assert "checkpoint_manager" not in said
    return [process.wait() for process in running], said


def timeless(run_dir):
    rows = map(dataclasses.asdict, records.read(run_dir))
    return [{**row, "seconds": 0, "compile_seconds": 0} for row in rows]


@pytest.mark.parametrize("processes", [1, 2] if LONG else [1])
def test_killed_training_program_leaves_the_records_of_one_that_was_not(tmp_path, processes):
    codes, said = train(tmp_path / "whole", processes)
    assert codes == [0] * processes, said
    expected = timeless(tmp_path / "whole")
    for kill_at in np.random.default_rng(0).integers(1, 100, TIMES):
        run_dir = tmp_path / f"killed_{kill_at}"
        assert train(run_dir, processes, kill_at)[0] == [-signal.SIGKILL] * processes
        done = len(records.read(run_dir))
        assert done < len(expected)
        assert train(run_dir, processes)[0] == [0] * processes
        assert timeless(run_dir) == expected
        print(f"\nkilled with {done} records of {len(expected)}, {processes} processes")
