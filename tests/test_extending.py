"""What CONTRIBUTING.md says of adding a model, a control and a field is enough."""

import dataclasses
import pathlib
import re
import runpy
from typing import Any

import optax
import pytest

from experiments import cli, settings, train
from experiments.configs import base
from experiments.configs.base import PDTConfig, RunConfig
from experiments.models import MODELS
from experiments.runs import arms, records
from experiments.runs.controls import CONTROLS
from experiments.runs.optimizers import OPTIMIZERS
import pdt_optax

PAGE = pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture
def mine(tmp_path: pathlib.Path, monkeypatch) -> pathlib.Path:
    """The configuration of the page in a folder of its own; registries are as before at the end."""
    for registry, name in ((MODELS, "linear"), (CONTROLS, "slower")):
        monkeypatch.setitem(registry, name, None)  # To be taken out again.
        monkeypatch.delitem(registry, name)
    code = re.search(
        r"<!-- a configuration of one's own -->\n```python\n(.*?)```", PAGE.read_text(), re.S
    )
    assert code
    (tmp_path / "mine.py").write_text(code[1])
    return tmp_path / "mine.py"


def test_a_model_and_a_control_from_another_folder(mine: pathlib.Path, tmp_path: pathlib.Path):
    arguments = f"--config={mine}", "--epochs=1", f"--run_dir={tmp_path / 'run'}"
    train.main(*cli.parsed(arguments, RunConfig, train.Runtime))
    rows = records.read(tmp_path / "run")
    ended = [row.arm for row in rows if isinstance(row, records.EndRecord)]
    assert ended == ["base", "slower", "paper"]
    losses = {row.arm: row.train_loss for row in rows if isinstance(row, records.EpochRecord)}
    assert losses["base"] != losses["slower"]


def test_an_optimizer_is_an_entry(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "lion", lambda s: optax.lion(s.learning_rate))
    assert cli.parsed(["--optimizer=lion"], RunConfig) == [RunConfig(optimizer="lion")]


def test_a_field_of_extrapolate_is_a_field_of_the_same_name(monkeypatch):
    """It is a flag, a setting of a study, data in a record, and reaches the library."""

    @dataclasses.dataclass(frozen=True)
    class Extrapolate(pdt_optax.Extrapolate):
        damping: float = 0.0

    class Extended(PDTConfig):
        damping: float = settings.setting(0.0, "As in Extrapolate.", least=0)

    seen: list[Any] = []
    monkeypatch.setattr(base, "PDTConfig", Extended)
    monkeypatch.setattr(pdt_optax, "Extrapolate", Extrapolate)
    monkeypatch.setattr(pdt_optax, "pdt", lambda every, jump, **_: seen.append(jump))
    (config,) = cli.parsed(["--damping=0.25", "--vary=damping=0.5"], Extended)
    assert settings.from_data(Extended, dataclasses.asdict(config)) == config
    assert list(arms._links(config, 10)) == ["paper", "damping=0.5"]
    assert [jump.damping for jump in seen] == [0.25, 0.5]
    with pytest.raises(ValueError, match="`pdt_damping` must be a finite number at least 0"):
        Extended(damping=-1.0)


PROGRAMS = [
    path
    for path in (PAGE.parent / "experiments").rglob("*.py")
    if "    cli.run(main, " in path.read_text()
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_programs_take_what_they_say(monkeypatch, program: pathlib.Path):
    """Each hands `main` to the command line, with classes whose settings have no common name."""
    given: list[Any] = []
    monkeypatch.setattr(cli, "run", lambda main, *classes, **_: given.extend((main, *classes)))
    found = runpy.run_path(str(program), run_name="__main__")
    main, *classes = given
    assert main is found["main"]
    assert len(classes) == main.__code__.co_argcount
    cli.shown_help(*classes)
