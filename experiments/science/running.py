"""Runs settings with a progress bar and records each."""

from collections.abc import Sequence
import math
import pathlib

import numpy as np
import tqdm

from experiments.science import rivals, runs
from experiments.science.race import Race
from experiments.science.tasks import Task


def run_all(folder: pathlib.Path, task: Task, settings: Sequence[runs.Setting]) -> None:
    """Runs settings of one task and one rival, compiled once, and records each.

    What is recorded is not run again.
    """
    done = {run.setting for run in runs.read(folder)}
    settings = [setting for setting in settings if setting not in done]
    if not settings:
        return
    race = Race(task, rivals.ALL[settings[0].method], settings[0].points == "fresh")
    for setting in settings:
        runs.append(folder, _run(folder, task, race, setting))


def _run(folder: pathlib.Path, task: Task, race: Race, setting: runs.Setting) -> runs.Run:
    rate = 0.0 if setting.rate is None else setting.rate
    points = []
    title = f"{setting.task} {setting.method} seed {setting.seed}"
    with tqdm.tqdm(total=1.0, desc=title, bar_format="{desc}: {percentage:3.0f}% {postfix}") as bar:
        for chunk in race.run(setting.seed, rate, setting.seconds):
            point = chunk.point
            points.append(point)
            bar.set_postfix_str(f"loss {point.loss:.2e} error {point.error:.2e}", refresh=False)
            bar.update(min(1.0, point.seconds / setting.seconds) - bar.n)
    finished = math.isfinite(points[-1].loss)
    if task.field is not None and finished:
        field = np.asarray(task.field.predict(chunk.params), np.float32)
        np.save(runs.field_path(folder, setting), field)
    return runs.Run(
        setting,
        "finished" if finished else "diverged",
        task.weights(),
        race.compile_seconds,
        *(list(values) for values in zip(*points, strict=True)),
    )
