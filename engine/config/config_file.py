"""YAML files and `-s key=value` settings, turned into typed specs or into one clear error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import msgspec

from engine.config.automatic import without_automatic
from engine.config.unread import refuse_unread_lag
from engine.config.whole_numbers import kinds_of, with_integers
from engine.config.yaml_text import KeyPath, parse_text
from engine.errors import ConfigError
from engine.spec import Experiment, check_experiment

T = TypeVar("T")
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")
_MISSING_KEY = re.compile(r"Object missing required field `(?P<key>[^`]*)`")
_PATH = re.compile(r" - at `(?P<path>\$?[^`]*)`$")
_BAD_KEY = re.compile(r" - at `key` in (?=`[^`]*`$)")
_PLAIN_WORDS = re.compile(r"`object")
"""JSON's word for a mapping of keys."""
_PATH_PART = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")


@dataclass(frozen=True)
class Document:
    """A parsed YAML mapping with the line of each key.

    Attributes:
        source: Its name in errors: a path, or `-s` for settings.
        data: The mapping as plain Python values.
        lines: Line (from 1) of each key, by its path.
        settings: Keys that a `-s` setting has overlaid.
        options: What the user typed instead of `-s`, by key.
        automatic: Keys of an experiment that are `auto`.
        written: Numbers and booleans as written in the file, by path.
    """

    source: str
    data: dict[str, Any]
    lines: Mapping[KeyPath, int]
    settings: frozenset[KeyPath] = frozenset()
    written: Mapping[KeyPath, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    automatic: frozenset[KeyPath] = frozenset()

    def where(self, path: KeyPath) -> str:
        """`file:line: key.path`, with the line of the nearest key in the file; or `-s key.path`."""
        if any(path[: len(setting)] == setting for setting in self.settings):
            key = ".".join(path)
            return self.options.get(key, f"-s {key}")
        made = [s for s in self.settings if path and s[: len(path)] == path]
        if made and path not in self.lines:  # a section that exists only because of a setting
            return f"-s {'.'.join(min(made))}"
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = f":{self.lines[known]}" if known else ""
        return ": ".join(filter(None, (f"{self.source}{line}", ".".join(path))))


def read_yaml(path: Path) -> Document:
    """Reads one YAML mapping.

    Raises:
        ConfigError: No such file, unreadable, not YAML, not a mapping, or a key given twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    return parse_yaml(text, source=str(path))


def parse_yaml(text: str, *, source: str) -> Document:
    """Parses one YAML mapping from text; errors as in `read_yaml`."""
    parsed = parse_text(text, source)
    data = parsed.value
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise ConfigError(f"a mapping of keys is needed, but the file {found}", where=source)
    return Document(source, data, parsed.lines, written=parsed.written)


def apply_settings(document: Document, settings: Sequence[str]) -> Document:
    """Applies `key.path=value` settings to a document; values are read as YAML.

    Raises:
        ConfigError: A setting has no `=`, or goes through a value that is not a section.
    """
    data: dict[str, Any] = _copy(document.data)
    overlaid: set[KeyPath] = set()
    for setting in settings:
        key, equals, text = setting.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise ConfigError(
                "not of the form KEY=VALUE", where=f"-s {setting}", fix="-s stop.env_steps=100000"
            )
        value = parse_text(text, source=f"-s {key}").value
        section: Any = data
        for part in path[:-1]:
            if isinstance(section, dict) and section.get(part) is None:
                section[part] = {}  # an optional section that is left out
            section = section[_place(section, part, key)]
            if not isinstance(section, (dict, list)):
                raise ConfigError(f"{part!r} is a value, not a section", where=f"-s {key}")
        section[_place(section, path[-1], key)] = value
        overlaid.add(path)
    return Document(document.source, data, document.lines, frozenset(overlaid))


def _place(section: dict[str, Any] | list[Any], part: str, key: str) -> Any:  # noqa: ANN401
    """The key of a mapping, or the number of an entry that a list has; raises ConfigError."""
    if isinstance(section, dict):
        return part
    if not part.isdecimal() or int(part) >= len(section):
        raise ConfigError(
            f"{part!r} is no entry of a list of {len(section)}; they are counted from 0",
            where=f"-s {key}",
            fix=f"set the whole list: -s {key.rpartition('.' + part)[0]}='[...]'",
        )
    return int(part)


def _copy(value: Any) -> Any:  # noqa: ANN401 - any YAML value
    if isinstance(value, list):
        return [_copy(part) for part in value]
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def convert(document: Document, target: type[T]) -> T:
    """Checks a document against a `Spec` and returns it typed.

    Raises:
        ConfigError: Unknown key (with the nearest known one), missing key, wrong type or range.
    """
    return convert_part(document.data, target, document)


def convert_part(data: object, target: type[T], document: Document, path: KeyPath = ()) -> T:
    """The same for values at `path` of a document."""
    try:
        return msgspec.convert(with_integers(data, target), target, str_keys=True)
    except msgspec.ValidationError as error:
        raise explain(error, target, document, path) from error


def explain(
    error: msgspec.ValidationError, target: type, document: Document, prefix: KeyPath = ()
) -> ConfigError:
    """Turns a validation error into one that names file, line, key and fix."""
    text = _BAD_KEY.sub(" for a key - at ", str(error))
    found = _PATH.search(text)
    inside = _key_path(found["path"] if found else "")
    path = prefix + _name_keys(inside, target, _below(document.data, prefix))
    problem = _PATH.sub("", text)
    if unknown := _UNKNOWN_KEY.search(problem):
        key = unknown["key"]
        known = _known_keys(target, path[len(prefix) :])
        return ConfigError(
            f"unknown key {key!r}",
            where=document.where((*path, key)),
            fix=suggest(key, known),
        )
    if missing := _MISSING_KEY.search(problem):
        return ConfigError(
            f"the key {missing['key']!r} is missing", where=document.where(path), fix="add it"
        )
    return ConfigError(
        _PLAIN_WORDS.sub("`mapping", problem[0].lower() + problem[1:]),
        where=document.where(path),
        fix=_allowed(problem, target, path[len(prefix) :]),
    )


def _allowed(problem: str, target: type, path: KeyPath) -> str:
    """The allowed values, if there are only a few."""
    if "enum value" not in problem:
        return ""
    info: msgspec.inspect.Type = msgspec.inspect.type_info(target)
    for part in path:
        info = _child(info, part)
    known = [str(value) for kind in kinds_of(info) for value in getattr(kind, "values", ())]
    return f"one of: {', '.join(known)}" if known else ""


def _below(data: Any, path: KeyPath) -> Any:  # noqa: ANN401 - any YAML value
    for part in path:
        data = _entry(data, part)
    return data


def _entry(data: Any, part: str) -> Any:  # noqa: ANN401 - any YAML value
    """What is at a key of a mapping, or at a number of a list; None if nothing."""
    if isinstance(data, list):
        return data[int(part)] if part.isdecimal() and int(part) < len(data) else None
    return data.get(part) if isinstance(data, dict) else None


def suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def _key_path(text: str) -> KeyPath:
    return tuple(part["name"] or part["index"] for part in _PATH_PART.finditer(text))


def _name_keys(path: KeyPath, target: type, data: Any) -> KeyPath:  # noqa: ANN401 - any YAML
    """Replaces `...`, a placeholder for some key of a mapping, by the first key that is wrong."""
    info: msgspec.inspect.Type = msgspec.inspect.type_info(target)
    named: list[str] = []
    for part in path:
        child = _child(info, part)
        if part == "..." and isinstance(data, dict):
            part = next((key for key, value in data.items() if not _suits(value, child)), part)
        named.append(part)
        data = _entry(data, part)
        info = child
    return tuple(named)


def _suits(value: Any, info: msgspec.inspect.Type) -> bool:  # noqa: ANN401 - any YAML value
    info = _unwrap(info)
    if isinstance(info, msgspec.inspect.UnionType):
        return any(_suits(value, kind) for kind in info.types)
    if isinstance(info, msgspec.inspect.VarTupleType) and isinstance(value, list):
        return all(_suits(part, info.item_type) for part in value)
    if not isinstance(info, msgspec.inspect.StructType):
        return _is_plain(value, info)
    try:
        msgspec.convert(with_integers(value, info.cls), info.cls)
    except msgspec.ValidationError:
        return False
    return True


def _is_plain(value: Any, info: msgspec.inspect.Type) -> bool:  # noqa: ANN401 - any YAML value
    kinds = _PLAIN.get(type(info), object)
    return isinstance(value, kinds) and (not isinstance(value, bool) or kinds in (bool, object))


def _known_keys(target: type, path: KeyPath) -> list[str]:
    """The field names of the struct that `path` leads to inside `target`."""
    info: msgspec.inspect.Type = msgspec.inspect.type_info(target)
    for part in path:
        info = _child(info, part)
    info = _unwrap(info)
    return [f.encode_name for f in info.fields] if isinstance(info, _STRUCTS) else []


_PLAIN: Mapping[type[msgspec.inspect.Type], type | tuple[type, ...]] = {
    msgspec.inspect.NoneType: NoneType,
    msgspec.inspect.BoolType: bool,
    msgspec.inspect.IntType: int,
    msgspec.inspect.FloatType: (int, float),
    msgspec.inspect.StrType: str,
    msgspec.inspect.DictType: dict,
    msgspec.inspect.ListType: list,
    msgspec.inspect.VarTupleType: list,
}
"""YAML's names of a type; other types accept anything."""
_STRUCTS = (msgspec.inspect.StructType,)


def _unwrap(info: msgspec.inspect.Type) -> msgspec.inspect.Type:
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    if isinstance(info, msgspec.inspect.UnionType):
        structs = [t for t in info.types if isinstance(t, _STRUCTS)]
        return structs[0] if structs else info
    return info


def _child(info: msgspec.inspect.Type, part: str) -> msgspec.inspect.Type:
    info = _unwrap(info)
    if isinstance(info, _STRUCTS):
        for item in info.fields:
            if item.encode_name == part:
                return item.type
    if isinstance(info, msgspec.inspect.DictType):
        return info.value_type
    if isinstance(info, (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)):
        return info.item_type
    return info


def load_experiment(
    path: Path, settings: Sequence[str] = (), options: Mapping[str, str] | None = None
) -> tuple[Experiment, Document]:
    """Reads, overlays and checks an experiment file.

    Args:
        path: The file.
        settings: `KEY=VALUE`, as after `-s`.
        options: What the user typed for some of them, by key, such as `--policy`.

    Returns:
        The experiment, with the default of each value that is `auto`; and the document it came
        from, which names these, and lines in later errors.

    Raises:
        ConfigError: The file or a setting cannot be used.
    """
    return _experiment_of(apply_settings(read_yaml(path), settings), options)


def overlaid_experiment(
    base: Experiment,
    source: str,
    settings: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
) -> tuple[Experiment, Document]:
    """Applies settings to an existing experiment and checks it.

    Args:
        base: The experiment.
        source: What to call it in errors.
        settings, options: As on the command line.

    Returns, Raises: As `load_experiment`.
    """
    data = msgspec.json.decode(msgspec.json.encode(base))  # with lists, as in a file
    return _experiment_of(apply_settings(Document(source, data, {}), settings), options)


def require_numbers(document: Document, why: str) -> None:
    """Raises ConfigError, with the reason, if a value of an experiment is `auto`."""
    for path in sorted(document.automatic):
        raise ConfigError(
            f"`auto` is chosen when a run starts on its hosts; {why}",
            where=document.where(path),
            fix=f"give a number: -s {'.'.join(path)}=N",
        )


def _experiment_of(
    document: Document, options: Mapping[str, str] | None
) -> tuple[Experiment, Document]:
    data, automatic = without_automatic(document.data)
    document = replace(document, options=options or {}, automatic=automatic)
    experiment = convert_part(data, Experiment, document)
    try:
        check_experiment(experiment)
        refuse_unread_lag(
            experiment.staleness, document.data, document.lines.keys(), document.settings
        )
    except ConfigError as error:
        key_path = tuple(error.where.split("."))
        raise ConfigError(error.what, where=document.where(key_path), fix=error.fix) from error
    return experiment, document
