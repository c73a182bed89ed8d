r"""Runs the studies behind the tables and figures; what is done already is skipped.

python -m experiments.reproduce --study=verified
"""

from collections.abc import Mapping
import math
import pathlib
import signal
import subprocess
import sys
import time

from experiments import cli
from experiments.configs import cpu, paper, smoke
from experiments.configs.base import RunConfig, Studies
from experiments.reports import tables, time_to_target
from experiments.runs import devices, records
from experiments.settings import Config, difference, setting

SCALES: Mapping[str, Studies] = {
    "cpu": cpu.STUDIES,
    "smoke": smoke.STUDIES,
    "paper": paper.STUDIES,
}


class Settings(Config):
    """A study at a scale, and where."""

    study: str | None = setting(None, "What is reproduced.", of=cpu.STUDIES)
    scale: str = setting(
        "cpu",
        "cpu: as reported; smoke: seconds, to try it; paper: the published sizes and data, for "
        "accelerators.",
        of=SCALES,
    )
    runs_dir: str = setting("runs", "Folder in which each study has a folder of its own.")
    runs: tuple[str, ...] = setting((), "Runs of the study; by default all.")
    parallelism: str | None = setting(
        None, "As of experiments.train; by default fsdp for the paper.", of=devices.PLACEMENTS
    )
    dry_run: bool = setting(False, "Only print the commands.")

    def __post_init__(self):
        super().__post_init__()
        if self.study is None:
            raise ValueError(f"`study` must be given, one of {', '.join(cpu.STUDIES)}.")
        if self.study not in SCALES[self.scale]:
            known = ", ".join(SCALES[self.scale])
            raise ValueError(f"`study` must be of {known} at this scale, got {self.study}.")
        for run in self.runs:
            if run not in self.configs:
                raise ValueError(f"`runs` must be of {', '.join(self.configs)}, got {run}.")

    @property
    def configs(self) -> Mapping[str, RunConfig]:
        """The runs of the study."""
        return SCALES[self.scale][str(self.study)]

    @property
    def folder(self) -> pathlib.Path:
        """That of the study."""
        name = str(self.study) if self.scale == "cpu" else f"{self.study}_{self.scale}"
        return pathlib.Path(self.runs_dir, name)

    def arguments(self, run: str) -> list[str]:
        """What a run passes to `experiments.train`."""
        config = f"--config=experiments/configs/{self.scale}.py:{self.study}/{run}"
        parallelism = self.parallelism or ("fsdp" if self.scale == "paper" else "one")
        more = [f"--parallelism={parallelism}"] if parallelism != "one" else []
        return [config, *more, f"--run_dir={self.folder / run}"]


def main(config: Settings) -> None:
    """Runs the program."""
    study, folder = config.configs, config.folder
    names = [name for name in study if not config.runs or name in config.runs]
    commands = {name: config.arguments(name) for name in names}
    if config.dry_run:
        for command in commands.values():
            print("python -m experiments.train", *command)
        return
    left = [name for name in names if not is_finished(study[name], folder / name)]
    start = time.monotonic()
    for number, name in enumerate(left):
        print(f"{_progress(study, left, number, start)}: {' '.join(commands[name])}", flush=True)
        _train(commands[name])
    scores = {name: time_to_target.score(records.read(folder / name)) for name in names}
    table = tables.study(scores)
    (folder / "summary.md").write_text(f"# {config.study}\n\n{table}\n")
    print(f"\n{table}\n\n{folder / 'summary.md'}")


def _progress(study: Mapping[str, RunConfig], left: list[str], number: int, start: float) -> str:
    """Which run comes, and how long those that are left will take at the pace so far."""
    done, ahead = (
        sum(study[name].epochs * len(study[name].seeds) for name in part)
        for part in (left[:number], left[number:])
    )
    text = f"run {number + 1} of {len(left)}"
    if not done:
        return text
    minutes = (time.monotonic() - start) / 60 * ahead / done
    return f"{text}, about {math.ceil(minutes)} min left"


def _train(arguments: list[str]) -> None:
    """Runs the training program, whose compiled programs end with it; hands signals on to it."""
    command = [sys.executable, "-m", "experiments.train", *arguments]
    with subprocess.Popen(command) as process:
        signal.signal(signal.SIGINT, lambda *_: None)  # The terminal sends it to both.
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        status = process.wait()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if status:
        sys.exit(status)


def is_finished(config: RunConfig, run_dir: pathlib.Path) -> bool:
    """Whether every arm of every seed has ended; an unfinished run goes on."""
    if not (run_dir / records.CONFIG).exists():
        return False
    there = records.read_run_config(run_dir)
    if there != config:
        sys.exit(f"`runs_dir`: {run_dir} holds another run: {difference(there, config)}.")
    scores = time_to_target.score(records.read(run_dir))
    arms = {s.arm for s in scores}
    ended = [s for s in scores if s.status != "unfinished"]
    return bool(arms) and len(ended) == len(config.seeds) * len(arms)


if __name__ == "__main__":
    cli.run(main, Settings)
