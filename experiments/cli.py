"""Programs take their settings from the command line: each field of a frozen dataclass is a flag.

absl defines and parses the flags; the dataclass alone says what there is and checks it once. The
field `horizon` of the section `pdt` is `--pdt_horizon`, or `--config.pdt.horizon` as with
ml_collections, whose own flags are not used: they set one attribute after the other of an object
that is never whole.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import functools
import pathlib
import runpy
import sys
from typing import Any

from absl import app, flags, logging
import jax

from experiments import settings
from experiments.runs import records

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = "config"
_DEFINE: dict[Any, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
_KINDS = {int: "integers", float: "numbers", str: "names"}


def run(main: Callable[..., None], *classes: type, has_files: bool = False) -> None:
    """Runs a program that takes an instance of each class.

    With `has_files` there is a flag --config: a Python file, whose `get_config` returns an instance
    of the first class that further flags change; behind a colon stands its argument.
    """

    def checked(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"unexpected argument {argv[1]}: give options as --flag=value.")
        if not flags.FLAGS["verbosity"].present:  # Orbax tells each step of a checkpoint.
            logging.set_verbosity(logging.WARNING)
        main(*_read(flags.FLAGS, classes))

    jax.config.update("jax_logging_level", "WARNING")
    _define(flags.FLAGS, classes, has_files)
    app.run(checked)


def shown_help(*classes: type) -> str:
    """What --help says of the flags of a program."""
    values = flags.FlagValues()
    _define(values, classes, has_files=True)
    return values.main_module_help()


def parsed(arguments: Sequence[str], *classes: type) -> list[Any]:
    """What a program is called with that is given these arguments."""
    values = flags.FlagValues()
    _define(values, classes, has_files=True)
    values(["program", *arguments])
    return _read(values, classes)


def folder(run_dir: str) -> pathlib.Path:
    """A folder, made if need be; stops the program if it cannot be."""
    found = pathlib.Path(run_dir)
    with _or_stop():
        found.mkdir(parents=True, exist_ok=True)
    return found


def rows(run_dir: str, config: Mapping[str, Any]) -> records.Rows:
    """The rows of a run folder, to which some may be added; stops the program if it cannot be."""
    with _or_stop():
        return records.Rows(run_dir, config)


def read_rows(run_dir: str) -> list[dict[str, Any]]:
    """The rows of a run folder; stops the program if there are none."""
    with _or_stop():
        return records.read_rows(pathlib.Path(run_dir))


@contextlib.contextmanager
def _or_stop() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        sys.exit(f"`run_dir`: {error}")


def _define(values: flags.FlagValues, classes: Sequence[type], has_files: bool) -> None:
    if has_files:
        flags.DEFINE_string(CONFIG, None, "Python file of the settings.", flag_values=values)
        values.register_key_flag_for_module(sys.argv[0], values[CONFIG])
    for cls in classes:
        for name, leaf in settings.leaves(cls):
            rules: Any = leaf.field.metadata
            default: Any = leaf.field.default
            text = rules["description"]
            if "of" in rules and not rules.get("key"):
                text += f" Of {', '.join(rules['of'])}."
            if leaf.is_tuple:
                default = [str(part) for part in default] if "parse" not in rules else []
                flags.DEFINE_list(name, default, text, flag_values=values)
            else:
                default = None if leaf.kind is bool and default is None else default
                _DEFINE[leaf.kind](name, default, text, flag_values=values)
            if rules.get("key", not has_files):
                values.register_key_flag_for_module(sys.argv[0], values[name])
            if has_files:
                flags.DEFINE_alias(_dotted(leaf), name, flag_values=values)


def _read(values: flags.FlagValues, classes: Sequence[type]) -> list[Any]:
    """An instance of each class; stops the program with one line if something is wrong."""
    try:
        path = values[CONFIG].value if CONFIG in values else None
        bases = [_from_file(path), *classes[1:]] if path else classes
        pairs = zip(bases, classes, strict=True)
        return [settings.replaced(base, **_given(values, cls)) for base, cls in pairs]
    except ValueError as error:
        sys.exit(str(error))


def _given(values: flags.FlagValues, cls: type) -> dict[str, Any]:
    """The settings on the command line by their flat names."""
    found = {}
    for name, leaf in settings.leaves(cls):
        names = [name, _dotted(leaf)]
        if any(n in values and not values[n].using_default_value for n in names):
            found[name] = _value(name, leaf, values[name].value)
    return found


def _dotted(leaf: settings.Leaf) -> str:
    return ".".join((CONFIG, *leaf.path))


def _value(name: str, leaf: settings.Leaf, value: Any) -> Any:
    if not leaf.is_tuple:
        return value
    if "parse" in leaf.field.metadata:
        return leaf.field.metadata["parse"](value)
    try:
        return tuple(map(leaf.kind, value))
    except ValueError:
        kind = _KINDS[leaf.kind]
        text = ",".join(value)
        raise ValueError(f"`{name}` must be {kind}, separated by commas, got {text}.") from None


def _from_file(path: str) -> Any:
    file, _, argument = path.partition(":")
    found = next((p for p in (pathlib.Path(file), ROOT / file) if p.is_file()), None)
    if found is None:
        raise ValueError(f"`config` must be a Python file, got {file}, which is not there.")
    return _module(str(found))["get_config"](*[argument] * bool(argument))


_module = functools.cache(runpy.run_path)
