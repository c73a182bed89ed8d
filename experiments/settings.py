"""Settings as frozen dataclasses: what a field may be, and configurations from flat names and data.

The field `horizon` of the section `pdt` has the flat name `pdt_horizon`.
"""

from collections.abc import Collection, Iterator, Mapping
import dataclasses
import difflib
import math
import types
import typing
from typing import Any, NamedTuple


def setting(default: Any, description: str, **rules: Any) -> Any:
    """A field of a configuration.

    Args:
      default: its value if none is given; what is in a tuple must differ, unless `repeats`.
      description: a sentence.
      **rules: of a value, or of each in a tuple: `least`, `most`, `above`, numbers; `of`, names to
        choose from. `some`: the tuple must not be empty. `key`: it is listed by --help. `parse`: a
        function from the words of the command line to the value.
    """
    return dataclasses.field(default=default, metadata={"description": description, **rules})


@typing.dataclass_transform(frozen_default=True)
class Config:
    """Base of configurations: a subclass is a frozen dataclass, checked when it is made."""

    def __init_subclass__(cls):
        dataclasses.dataclass(frozen=True)(cls)

    def __post_init__(self):
        check(self)


class Leaf(NamedTuple):
    """A field, or a section that may be left out, which is a boolean on the command line.

    Attributes:
      path: names from the outermost section to the field.
      kind: type of a value, or of each in a tuple.
      is_tuple: whether there are several.
      field: the field.
    """

    path: tuple[str, ...]
    kind: Any
    is_tuple: bool
    field: dataclasses.Field


def leaves(cls: type, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Leaf]]:
    """Flat names and fields of a configuration and of its sections."""
    for field, kind, is_tuple in _fields(cls):
        here = (*path, field.name)
        is_section = dataclasses.is_dataclass(kind)
        yield "_".join(here), Leaf(here, bool if is_section else kind, is_tuple, field)
        if is_section:
            yield from leaves(kind, here)  # pyright: ignore[reportArgumentType]


def _fields(cls: type) -> Iterator[tuple[dataclasses.Field, Any, bool]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):
            kind, _ = typing.get_args(kind)
        is_tuple = typing.get_origin(kind) is tuple
        yield field, typing.get_args(kind)[0] if is_tuple else kind, is_tuple


def check(config: Any, section: str = "") -> None:
    """Raises a ValueError that names the first field whose value breaks its rules."""
    for field, kind, is_tuple in _fields(type(config)):
        value, name = getattr(config, field.name), f"{section}{field.name}"
        rules = field.metadata
        is_repeated = is_tuple and not rules.get("repeats") and len(set(value)) < len(value)
        if is_repeated or (is_tuple and rules.get("some") and not value):
            few = "one or more" if rules.get("some") else "all"
            raise ValueError(f"`{name}` must be {few} different, got {_shown(value)}.")
        for part in value if is_tuple else [value] * (value is not None):
            _check_value(name, part, kind, rules)


def _check_value(name: str, value: Any, kind: Any, rules: Mapping[str, Any]) -> None:
    if dataclasses.is_dataclass(kind) or "parse" in rules:
        return
    numbers = {"least": "at least", "most": "at most", "above": "above"}
    bounds = [f"{word} {rules[rule]:g}" for rule, word in numbers.items() if rule in rules]
    called = {int: "an integer", float: "a finite number", bool: "True or False", str: "a name"}
    is_kind = isinstance(value, (int, float) if kind is float else kind)
    is_kind &= kind is bool or not isinstance(value, bool)
    if kind is not str and not (
        is_kind
        and math.isfinite(value)
        and rules.get("least", -math.inf) <= value <= rules.get("most", math.inf)
        and value > rules.get("above", -math.inf)
    ):
        rule = " ".join([called[kind], *([" and ".join(bounds)] if bounds else [])])
        raise ValueError(f"`{name}` must be {rule}, got {value!r}.")
    if not is_kind or ("of" in rules and value not in rules["of"]):
        known = rules.get("of", ())
        raise ValueError(
            f"`{name}` must be of {', '.join(known)}; got {value!r}.{nearest(str(value), known)}"
        )


def nearest(word: str, known: Collection[str]) -> str:
    """A question that names the most similar word, if there is one."""
    found = difflib.get_close_matches(word, known, 1)
    return f" Did you mean {found[0]}?" if found else ""


def _shown(value: tuple[Any, ...]) -> str:
    return ", ".join(map(str, value)) or "none"


def replaced(config: Any, **given: Any) -> Any:
    """A configuration with some settings by their flat names; a section begins with its first one.

    Args:
      config: that to begin with, or its class.
      **given: the settings.

    Raises:
      ValueError: if there is no such setting, or it breaks a rule.
    """
    is_new = isinstance(config, type)
    cls = config if is_new else type(config)
    known = dict(leaves(cls))
    for name in given:
        if name not in known:
            raise ValueError(f"there is no setting `{name}`.{nearest(name, known)}")
    own: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        head, *rest = known[name].path
        if rest:
            sections.setdefault(head, {})[name.removeprefix(f"{head}_")] = value
        else:
            own[head] = value
    kinds = {field.name: kind for field, kind, _ in _fields(cls)}
    for head, value in own.items():
        if dataclasses.is_dataclass(kinds[head]) and isinstance(value, bool):
            own[head] = (getattr(config, head) or kinds[head]()) if value else None
    for head, part in sections.items():
        section = own.get(head, getattr(config, head)) or kinds[head]()
        own[head] = replaced(section, **part)
    return config(**own) if is_new else dataclasses.replace(config, **own)


def from_data(cls: type, data: Mapping[str, Any]) -> Any:
    """A configuration from the JSON values of `dataclasses.asdict`; what lacks is as by default."""
    found = {}
    fields = list(_fields(cls))
    if strange := set(data) - {field.name for field, *_ in fields}:
        raise ValueError(f"there is no setting `{min(strange)}`.")
    for field, kind, is_tuple in fields:
        if field.name in data:
            value = data[field.name]
            if dataclasses.is_dataclass(kind) and value is not None:
                value = from_data(kind, value)  # pyright: ignore[reportArgumentType]
            found[field.name] = _tuples(value) if is_tuple else value
    return cls(**found)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def changed(config: Any) -> dict[str, Any]:
    """The settings that are not as by default, by their flat names."""
    found = {}
    for name, leaf in leaves(type(config)):
        value = config
        for part in leaf.path:
            value = None if value is None else getattr(value, part)
        default = leaf.field.default
        if value is not None and value != default:
            found[name] = True if dataclasses.is_dataclass(value) else value
    return found


def difference(one: Any, other: Any) -> str:
    """In what two configurations differ."""
    flat = [changed(config) for config in (one, other)]
    names = dict.fromkeys(name for config in flat for name in config)
    defaults = {name: leaf.field.default for name, leaf in leaves(type(one))}
    pairs = {n: [config.get(n, defaults[n]) for config in flat] for n in names}
    return "; ".join(f"{n} is {a} there and {b} here" for n, (a, b) in pairs.items() if a != b)
