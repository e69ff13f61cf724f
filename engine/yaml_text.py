"""YAML text to plain values that still know on which line each key stands, or one clear error.

YAML 1.1 as PyYAML reads it surprises people in three ways, all mended here: `1e-3` is a number,
a key written twice is an error, and `on`/`yes`/`off`/`no` stay strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from engine.errors import ConfigError

KeyPath = tuple[str, ...]
MAX_VALUES = 50_000
"""Keys and values of one file, what aliases repeat included."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers and booleans."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML declares it as an instance attribute
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":bool", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def parse_text(text: str, source: str) -> tuple[Any, dict[KeyPath, int]]:
    """Any YAML value, and the line of each key in it."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        _refuse_bomb(node, source)
        lines = dict(_lines_of(node, (), source)) if node is not None else {}
        return yaml.load(text, Loader=_Loader), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(f"not valid YAML: {error.problem}", where=place) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {error}", where=source) from error


def _refuse_bomb(root: yaml.Node | None, source: str) -> None:
    """A few aliases of aliases can stand for more values than any machine has room for."""
    waiting, seen = [root], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise ConfigError(
                f"not valid YAML: it stands for more than {MAX_VALUES} values", where=source
            )
        if isinstance(node, yaml.MappingNode):
            waiting += (part for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _lines_of(node: yaml.Node, path: KeyPath, source: str) -> Iterable[tuple[KeyPath, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in seen:
            raise ConfigError(
                f"the key {key!r} stands here and on line {seen[key]}", where=f"{source}:{line}"
            )
        seen[key] = line
        yield (*path, key), line
        yield from _lines_of(value_node, (*path, key), source)
