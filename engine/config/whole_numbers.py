"""Accepts floats that are whole numbers where a spec requires integers: `1e6` is 1000000."""

from __future__ import annotations

from typing import Any

from msgspec import inspect

EXACT = 2**53
"""Up to here every integer has an exact float."""


def with_integers(value: Any, target: type) -> Any:  # noqa: ANN401 - any YAML value
    """The same plain values, with integers for whole floats where `target` takes integers only.

    >>> import msgspec
    >>> class Stop(msgspec.Struct):
    ...     env_steps: int | None = None
    ...     seconds: float | None = None
    ...
    >>> with_integers({"env_steps": 1e6, "seconds": 1e2}, Stop)
    {'env_steps': 1000000, 'seconds': 100.0}
    """
    return _converted(value, inspect.type_info(target))


def _converted(value: Any, info: inspect.Type) -> Any:  # noqa: ANN401 - any YAML value
    kinds = kinds_of(info)
    if isinstance(value, float):
        is_integer = any(isinstance(kind, inspect.IntType) for kind in kinds)
        if is_integer and not any(isinstance(kind, inspect.FloatType) for kind in kinds):
            return int(value) if value.is_integer() and abs(value) <= EXACT else value
    elif isinstance(value, dict):
        return _converted_mapping(value, kinds)
    elif isinstance(value, list):
        return _converted_list(value, kinds)
    return value


def _converted_mapping(value: dict[str, Any], kinds: list[inspect.Type]) -> dict[str, Any]:
    for kind in kinds:
        if isinstance(kind, inspect.StructType) and _is_meant(kind, value):
            fields = {field.encode_name: field.type for field in kind.fields}
            return {k: _converted(v, fields[k]) if k in fields else v for k, v in value.items()}
        if isinstance(kind, inspect.DictType):
            return {k: _converted(v, kind.value_type) for k, v in value.items()}
    return value


def _converted_list(value: list[Any], kinds: list[inspect.Type]) -> list[Any]:
    for kind in kinds:
        if isinstance(kind, (inspect.ListType, inspect.VarTupleType)):
            return [_converted(part, kind.item_type) for part in value]
        if isinstance(kind, inspect.TupleType) and len(value) == len(kind.item_types):
            return [_converted(v, t) for v, t in zip(value, kind.item_types, strict=True)]
    return value


def _is_meant(kind: inspect.StructType, value: dict[str, Any]) -> bool:
    """The struct of a tagged union, chosen by its tag."""
    return kind.tag_field is None or value.get(kind.tag_field) == kind.tag


def kinds_of(info: inspect.Type) -> list[inspect.Type]:
    """The alternatives of a union, without constraints."""
    if isinstance(info, inspect.Metadata):
        return kinds_of(info.type)
    if isinstance(info, inspect.UnionType):
        return [kind for part in info.types for kind in kinds_of(part)]
    return [info]
