"""Runs settings side by side with a progress bar and records each."""

from collections.abc import Iterator, Sequence
import math
import pathlib

import numpy as np
import tqdm

from experiments.science import rivals, runs
from experiments.science.race import Chunk, Point, Race
from experiments.science.tasks import Task
from experiments.science.tasks.task import Params


def run_all(folder: pathlib.Path, task: Task, settings: Sequence[runs.Setting]) -> None:
    """Runs settings of one task and records each; those of one seed run side by side.

    Each rival is compiled once. In turn each makes a chunk of steps on a clock of its own, first
    that which has the most seconds left: a machine that slows down slows all of them. What is
    recorded is not run again.
    """
    done = {run.setting for run in runs.read(folder)}
    settings = [setting for setting in settings if setting not in done]
    races: dict[str, Race] = {}
    for setting in settings:
        if setting.method not in races:
            rival = rivals.ALL[setting.method]
            races[setting.method] = Race(task, rival, setting.points == "fresh")
    for seed in dict.fromkeys(setting.seed for setting in settings):
        together = [setting for setting in settings if setting.seed == seed]
        for run in _side_by_side(folder, task, races, together):
            runs.append(folder, run)


def _side_by_side(
    folder: pathlib.Path, task: Task, races: dict[str, Race], settings: Sequence[runs.Setting]
) -> Iterator[runs.Run]:
    points: dict[runs.Setting, list[Point]] = {setting: [] for setting in settings}
    params: dict[runs.Setting, Params] = {}
    for setting, chunk in _in_turn(races, settings):
        points[setting].append(chunk.point)
        params[setting] = chunk.params
    for setting in settings:
        finished = math.isfinite(points[setting][-1].loss)
        if task.field is not None and finished:
            field = np.asarray(task.field.predict(params[setting]), np.float32)
            np.save(runs.field_path(folder, setting), field)
        yield runs.Run(
            setting,
            "finished" if finished else "diverged",
            task.weights(),
            races[setting.method].compile_seconds,
            *(list(values) for values in zip(*points[setting], strict=True)),
        )


def _in_turn(
    races: dict[str, Race], settings: Sequence[runs.Setting]
) -> Iterator[tuple[runs.Setting, Chunk]]:
    """The chunks of all runs; a bar shows how far the last one is, and the losses, least first."""
    going = {
        setting: races[setting.method].run(setting.seed, setting.rate or 0.0, setting.seconds)
        for setting in settings
    }
    done = dict.fromkeys(settings, 0.0)
    losses: dict[str, float] = {}
    title = f"{settings[0].task} seed {settings[0].seed}"
    with tqdm.tqdm(total=1.0, desc=title, bar_format="{desc}: {percentage:3.0f}%{postfix}") as bar:
        while going:
            setting = min(going, key=done.__getitem__)
            bar.update(min(1.0, done[setting]) - bar.n)
            chunk = next(going[setting], None)
            if chunk is None:
                del going[setting]
                continue
            done[setting] = chunk.point.seconds / setting.seconds
            losses[setting.method] = chunk.point.loss
            least = sorted(losses, key=losses.__getitem__)
            bar.set_postfix_str(" ".join(f"{n} {losses[n]:.1e}" for n in least), refresh=False)
            yield setting, chunk
        bar.update(1.0 - bar.n)
