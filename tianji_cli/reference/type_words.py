"""Types, bounds, units and defaults of keys, in plain words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Literal, get_args, get_origin

import msgspec
from msgspec import inspect

from engine.config.whole_numbers import kinds_of
from engine.spec import MAX_FLOAT

_UNITS = {
    "seconds": "seconds",
    "_s": "seconds",
    "_ms": "milliseconds",
    "_bytes": "bytes",
    "_updates": "updates",
    "_versions": "weights versions",
    "max_lag": "weights versions",
    "env_steps": "env steps",
    "batch_steps": "env steps",
    "rollout_steps": "steps",
    "burn_in_steps": "steps",
    "replay_capacity": "env steps",
    "min_replay_size": "env steps",
}
"""By the end of a key; the others have no unit, or their meaning says it."""
_SCALAR = {inspect.BoolType, inspect.IntType, inspect.FloatType, inspect.StrType}


def unit_of(key: str) -> str:
    """The unit of a number, by the name of its key; empty without one.

    >>> unit_of("every_s"), unit_of("replay_capacity"), unit_of("keep")
    ('seconds', 'env steps', '')
    """
    endings = sorted(_UNITS, key=len, reverse=True)
    return next((_UNITS[ending] for ending in endings if key.endswith(ending)), "")


def is_number(info: inspect.Type) -> bool:
    """Whether it takes numbers, alone or in a list, and no mapping."""
    kinds = [kind for part in kinds_of(info) for kind in (part, *_items(part))]
    return any(isinstance(kind, (inspect.IntType, inspect.FloatType)) for kind in kinds)


def type_words(info: inspect.Type, order: Sequence[object] = ()) -> str:
    """A type in words, without `null`, which `allows_null` tells.

    Args:
        info: The type.
        order: Of choices, which `info` has sorted.

    >>> from engine.spec import PositiveFloat, UnitInterval
    >>> type_words(inspect.type_info(PositiveFloat)), type_words(inspect.type_info(UnitInterval))
    ('number above 0', 'number, 0 to 1')
    >>> type_words(inspect.type_info(tuple[int, ...]))
    'list of whole numbers'
    """
    kinds = [kind for kind in kinds_of(info) if not isinstance(kind, inspect.NoneType)]
    if {type(kind) for kind in kinds} >= _SCALAR:
        lists = [kind for kind in kinds if type(kind) not in _SCALAR]
        return "value or list of values" if lists else "value"
    if any(isinstance(kind, inspect.FloatType) for kind in kinds):
        kinds = [kind for kind in kinds if not isinstance(kind, inspect.IntType)]
    return " or ".join(dict.fromkeys(_words(kind, order) for kind in kinds))


def choices_of(hint: object) -> list[object]:
    """The values of every `Literal` in an annotation, in the order in which they are written.

    >>> choices_of(tuple[Literal["b", "a"], ...] | None)
    ['b', 'a']
    """
    arguments = list(get_args(hint))
    if get_origin(hint) is Literal:
        return arguments
    return [choice for argument in arguments for choice in choices_of(argument)]


def allows_null(info: inspect.Type) -> bool:
    """Whether `null` can be written."""
    return any(isinstance(kind, inspect.NoneType) for kind in kinds_of(info))


def structs_in(info: inspect.Type) -> list[inspect.StructType]:
    """The sections that a key holds: directly, by name, or in a list."""
    return [
        item
        for kind in kinds_of(info)
        for item in (kind, *_items(kind))
        if isinstance(item, inspect.StructType)
    ]


def holds_several(info: inspect.Type) -> bool:
    """Whether it is a mapping or a list of what it holds."""
    return any(_items(kind) for kind in kinds_of(info))


def yaml_words(value: object) -> str:
    """A default as it would be written in a file.

    >>> [yaml_words(value) for value in (None, True, 3e-4, (64, 64), "tianji", "")]
    ['null', 'true', '0.0003', '[64, 64]', 'tianji', '""']
    """
    match value:
        case msgspec.Struct():
            plain = type(value)() if _has_defaults(type(value)) else None
            assert value == plain, f"{value} is not the default of its own section"
            return "{}"
        case str():
            return value or '""'
        case float():
            return f"{value:g}"
        case tuple() | list():
            return f"[{', '.join(map(yaml_words, value))}]"
        case dict():
            pairs = (f"{key}: {yaml_words(entry)}" for key, entry in value.items())
            return f"{{{', '.join(pairs)}}}"
    return json.dumps(value)


def _has_defaults(cls: type[msgspec.Struct]) -> bool:
    return not any(field.required for field in msgspec.structs.fields(cls))


def _items(kind: inspect.Type) -> list[inspect.Type]:
    match kind:
        case inspect.DictType():
            return kinds_of(kind.value_type)
        case inspect.VarTupleType() | inspect.ListType():
            return kinds_of(kind.item_type)
    return []


def _words(kind: inspect.Type, order: Sequence[object]) -> str:
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "whole number" + _bounds(kind.ge, kind.gt, kind.le, kind.lt)
        case inspect.FloatType():
            return "number" + _bounds(kind.ge, kind.gt, kind.le, kind.lt)
        case inspect.LiteralType():
            values = sorted(kind.values, key=list(order).index) if order else kind.values
            return _choices(f"`{yaml_words(value)}`" for value in values)
        case inspect.StructType():
            return "section"
        case inspect.DictType():
            words = _plural(type_words(kind.value_type, order))
            return f"{words}{',' * (', ' in words)} by name"
        case inspect.VarTupleType():
            return f"list of {_plural(type_words(kind.item_type, order))}"
    return "text"


def _plural(words: str) -> str:
    """`whole numbers, at least 1` of `whole number, at least 1`."""
    if " by name" in words:
        return "mappings"
    for noun in ("whole number", "number", "section", "value"):
        if words.startswith(noun):
            return f"{noun}s{words[len(noun) :]}"
    return words.replace(" or ", ", ") if words.startswith("`") else words


def _choices(words: Iterable[str]) -> str:
    *some, last = words
    return f"{', '.join(some)} or {last}" if some else last


def _bounds(
    least: float | None, above: float | None, most: float | None, below: float | None
) -> str:
    """`, at least 1`, ` above 0, at most 1`; the largest number that can be written is no bound."""
    assert below is None
    limit = None if most is None or most >= MAX_FLOAT else _limit(most)
    if least is not None:
        return f", {_limit(least)} to {limit}" if limit else f", at least {_limit(least)}"
    if above is not None:
        return f" above {_limit(above)}" + (f", at most {limit}" if limit else "")
    return f", at most {limit}" if limit else ""


def _limit(number: float) -> str:
    exponent = round(math.log2(number + 1)) if number > 2**53 else 0
    return f"2^{exponent} - 1" if exponent else f"{number:g}" if number < 1000 else f"{number:,.0f}"
