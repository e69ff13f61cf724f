"""Reads YAML 1.2 (core schema) into plain values, with the line of each key.

PyYAML scans and parses; what a scalar means is decided here, because PyYAML reads YAML 1.1, in
which `010` is 8, `1:30` is 90, `1_000` is 1000, `no` is false and `2024-01-01` is a date. In the
core schema only null, true, false, decimal, `0o` and `0x` integers, floats and text exist.
Other YAML features are refused with their line: other tags, merge keys, keys that are not text,
duplicate keys, numbers that do not fit into 64 bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from engine.errors import ConfigError

KeyPath = tuple[str, ...]
"""Keys from the outside in; an entry of a list by its index."""
MAX_VALUES = 50_000
"""Keys and values of one file, including those repeated by aliases."""
MAX_DEPTH = 100
INTEGER_RANGE = range(-(2**63), 2**64)
"""Integers that results and messages can store."""
MAX_DIGITS = 400
"""Digits of an integer; conversion takes quadratic time."""

_TAG = "tag:yaml.org,2002:"
_STR, _NULL, _BOOL, _INT, _FLOAT = (
    f"{_TAG}{kind}" for kind in ("str", "null", "bool", "int", "float")
)
_PATTERNS: Mapping[str, tuple[re.Pattern[str], str]] = {
    _NULL: (re.compile(r"(?:null|Null|NULL|~|)"), "~nN\0"),
    _BOOL: (re.compile(r"(?:true|True|TRUE|false|False|FALSE)"), "tTfF"),
    _INT: (re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)"), "-+0123456789"),
    _FLOAT: (
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
        ),
        "-+.0123456789",
    ),
}
"""YAML 1.2.2, section 10.3.2, and the first characters of such scalars."""
_UNICODE_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Line breaks in YAML 1.1, text in YAML 1.2."""

_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class YamlText:
    """The result of reading a text.

    Attributes:
        value: Plain Python values; keys of mappings are text.
        lines: Line (from 1) of each key, by its path.
        written: Each number and boolean as written, by its path, for keys that turn out to be text.
    """

    value: Any
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    written: Mapping[KeyPath, str] = field(default_factory=dict)


class _Refusal(yaml.MarkedYAMLError):
    """Valid YAML that is not allowed in a configuration."""

    def __init__(self, problem: str, place: yaml.Node | yaml.Event, path: KeyPath = ()) -> None:
        super().__init__(problem=problem, problem_mark=_mark(place))
        self.path = path


class _Loader(yaml.SafeLoader):
    """Composes nodes whose tags follow the core schema."""

    _depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:  # noqa: ANN401
        """The tag of a node that has none."""
        if kind is yaml.ScalarNode:
            return _plain_tag(value) if implicit[0] else _STR
        return f"{_TAG}{'seq' if kind is yaml.SequenceNode else 'map'}"

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.ScalarEvent) and event.tag == "!":
            event.tag = _STR  # the non-specific tag: not to be resolved
        if self._depth > MAX_DEPTH:
            raise _Refusal(f"nested more than {MAX_DEPTH} levels deep", event)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def parse_text(text: str, source: str) -> YamlText:
    """Reads any YAML value.

    Raises:
        ConfigError: It is not YAML 1.2, or has a feature that is refused; the line is named.
    """
    try:
        node = _compose(text)
        if node is None:
            return YamlText(None)
        _refuse_bomb(node)
        reading = _Reading()
        return YamlText(reading.value_of(node, ()), reading.lines, reading.written)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        if isinstance(error, _Refusal):
            where = ": ".join(filter(None, (place, ".".join(error.path))))
            raise ConfigError(str(error.problem), where=where) from error
        raise ConfigError(f"not valid YAML: {error.problem}", where=place) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = error.character  # by its number or by itself
        number = character if isinstance(character, int) else ord(character)
        raise ConfigError(
            f"not valid YAML: the character U+{number:04X} is not allowed in it",
            where=f"{source}:{line}",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {error}", where=source) from error


def _compose(text: str) -> yaml.Node | None:
    if found := _UNICODE_BREAKS.search(text):
        line = text.count("\n", 0, found.start())
        mark = yaml.Mark("", found.start(), line, 0, None, 0)
        escape = f"\\u{ord(found[0]):04x}"
        raise yaml.MarkedYAMLError(
            problem=f'U+{ord(found[0]):04X} is a line break to some readers: write "{escape}"',
            problem_mark=mark,
        )
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        if node is not None and loader.yaml_version not in (None, (1, 2)):
            raise _Refusal("its %YAML directive names another version than 1.2", node)
        return node
    finally:
        loader.dispose()


def _mark(place: yaml.Node | yaml.Event) -> Any:  # noqa: ANN401 - the stubs know two Marks
    assert place.start_mark is not None
    return place.start_mark


def _plain_tag(text: str) -> str:
    """The core schema's tag of a plain scalar.

    >>> [_plain_tag(text).rpartition(":")[2] for text in ("010", "0o10", "1e3", ".5", "no", "1_0")]
    ['int', 'int', 'float', 'float', 'str', 'str']
    """
    first = text[:1] or "\0"
    for tag, (pattern, firsts) in _PATTERNS.items():
        if first in firsts and pattern.fullmatch(text):
            return tag
    return _STR


class _Reading:
    """Converts nodes to values, recording lines of keys and how numbers are written."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.written: dict[KeyPath, str] = {}

    def value_of(self, node: yaml.Node, path: KeyPath) -> Any:  # noqa: ANN401 - any YAML value
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return {
                key: self.value_of(value, (*path, key)) for key, value in self._pairs(node, path)
            }
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self._entry(part, (*path, str(i))) for i, part in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and (node.tag == _STR or node.tag in _PATTERNS):
            value = _scalar(node)
            if isinstance(value, (bool, int, float)):
                self.written[path] = node.value
            return value
        raise yaml.MarkedYAMLError(
            problem=f"the tag {kind!r} is not part of YAML 1.2", problem_mark=_mark(node)
        )

    def _entry(self, node: yaml.Node, path: KeyPath) -> Any:  # noqa: ANN401 - any YAML value
        self.lines[path] = node.start_mark.line + 1
        return self.value_of(node, path)

    def _pairs(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, yaml.Node]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = _key(key_node, path), key_node.start_mark.line + 1
            if key in seen:
                raise _Refusal(f"the key {key!r} stands here and on line {seen[key]}", key_node)
            seen[key] = line
            self.lines[(*path, key)] = line
            yield key, value_node


def _key(node: yaml.Node, path: KeyPath) -> str:
    """A key, which is text."""
    if not isinstance(node, yaml.ScalarNode):
        raise _Refusal("a list or a mapping cannot be a key", node)
    if node.tag != _STR:
        kind = node.tag.removeprefix(_TAG)
        raise _Refusal(f'expected `str`, got `{kind}` for a key: write "{node.value}"', node, path)
    if node.value == "<<" and node.style is None:
        raise _Refusal("YAML 1.2 has no merge keys (<<): write the keys out", node)
    return str(node.value)


def _scalar(node: yaml.ScalarNode) -> bool | int | float | str | None:
    text: str = node.value
    if node.tag == _STR:
        if found := _SURROGATES.search(text):
            raise _Refusal(
                f"\\u{ord(found[0]):04x} is half a character: write it as itself",
                node,
            )
        return text
    if not _PATTERNS[node.tag][0].fullmatch(text) and not (
        node.tag == _FLOAT and _PATTERNS[_INT][0].fullmatch(text)
    ):
        raise _Refusal(f"{text!r} is no {node.tag.removeprefix(_TAG)}", node)
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    return _integer(text, node) if node.tag == _INT else _real(text, node)


def _integer(text: str, node: yaml.Node) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    value = int(text, base) if len(text) <= MAX_DIGITS else None
    if value is None or value not in INTEGER_RANGE:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise _Refusal(f"{shown} does not fit into 64 bits", node)
    return value


def _real(text: str, node: yaml.Node) -> float:
    if text[:2] in ("0o", "0x"):  # `!!float 0x10`
        return float(_integer(text, node))
    if text.lstrip("+-")[:2].lower() in (".i", ".n"):
        return float(text.replace(".", "", 1))
    value = float(text)
    if math.isinf(value):
        raise _Refusal(f"{text[:40]} is larger than any floating-point number", node)
    return value


def _refuse_bomb(root: yaml.Node) -> None:
    """A few aliases of aliases can expand to more values than fit into memory."""
    waiting, seen = [root], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise yaml.YAMLError(f"its aliases expand to more than {MAX_VALUES} values")
        if isinstance(node, yaml.MappingNode):
            waiting += (part for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
