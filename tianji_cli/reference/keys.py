"""From a spec to the sections of a file that it describes, and the keys of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_type_hints

import msgspec
from msgspec import NODEFAULT, inspect

from tianji_cli.reference.docstrings import attribute_docs, class_paragraphs
from tianji_cli.reference.type_words import (
    allows_null,
    choices_of,
    holds_several,
    is_number,
    structs_in,
    type_words,
    unit_of,
    yaml_words,
)

ANY_NAME = "NAME"
"""In a path: a name that the author of the file chooses."""


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key of a file.

    Attributes:
        name: Within its section.
        path: With its sections, as after `-s`.
        type: In words.
        is_nullable: Whether it can be `null`.
        unit: Of a number; empty without one.
        default: As it would be written; None if the key is required.
        meaning: From its docstring; empty if it has none.
    """

    name: str
    path: str
    type: str
    is_nullable: bool = False
    unit: str = ""
    default: str | None = None
    meaning: str

    @property
    def type_and_unit(self) -> str:
        """`number above 0 (seconds), or null`."""
        words = self.type + (f" ({self.unit})" if self.unit else "")
        return f"{words}, or `null`" if self.is_nullable else words


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one mapping of a file.

    Attributes:
        path: Where it is in the file, as after `-s`; empty for the file itself.
        variant: Which of several kinds of this section it is; empty if there is one.
        title: Unique within its chapter.
        about: Paragraphs.
        keys: In the order of the spec.
    """

    path: str
    variant: str
    title: str
    about: tuple[str, ...]
    keys: tuple[Key, ...]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A spec, and the place of what it describes in a file.

    Attributes:
        spec: Its fields are keys.
        path: Of the section; empty for the whole file.
        title: Of the section; by default its path.
        about: Paragraphs instead of those of the spec's docstring.
        only: The fields to describe; None means all.
        also: Specs whose fields are keys of the same section.
        tag: Key and value that select this spec among several.
        is_deep: Whether the sections inside it are described too.
    """

    spec: type[msgspec.Struct]
    path: str = ""
    title: str = ""
    about: tuple[str, ...] | None = None
    only: tuple[str, ...] | None = None
    also: tuple[type[msgspec.Struct], ...] = ()
    tag: tuple[str, str] | None = None
    is_deep: bool = True


def sections_of(sources: Sequence[Source]) -> list[Section]:
    """The sections of all sources, each followed by those inside it."""
    return [section for source in sources for section in _walk(source)]


def _walk(source: Source) -> Iterator[Section]:
    about = tuple(class_paragraphs(source.spec)) if source.about is None else source.about
    specs = (source.spec, *source.also)
    keys = [key for spec in specs for key in _keys_of(spec, source.path)]
    kept = [key for key in keys if source.only is None or key.name in source.only]
    variant = source.tag[1] if source.tag and source.path else ""
    yield Section(
        path=source.path,
        variant=variant,
        title=source.title or f"`{source.path}`" + (f": {variant}" if variant else ""),
        about=about,
        keys=(*_tag_keys(source), *kept),
    )
    for field in _fields_of(source.spec) if source.is_deep else ():
        inner = structs_in(field.type)
        several = f".{ANY_NAME}" if holds_several(field.type) else ""
        path = _join(source.path, field.encode_name) + several
        for info in inner:
            tag = (str(info.tag_field), str(info.tag)) if len(inner) > 1 else None
            yield from _walk(Source(spec=info.cls, path=path, tag=tag))


def _tag_keys(source: Source) -> Iterator[Key]:
    if source.tag is not None:
        name, value = source.tag
        yield Key(
            name=name,
            path=_join(source.path, name),
            type=f"`{value}`",
            meaning="Selects the keys of this table.",
        )


def _keys_of(spec: type[msgspec.Struct], path: str) -> Iterator[Key]:
    docs, hints = attribute_docs(spec), get_type_hints(spec, include_extras=True)
    for field in _fields_of(spec):
        words = type_words(field.type, choices_of(hints[field.name]))
        yield Key(
            name=field.encode_name,
            path=_join(path, field.encode_name),
            type=words,
            is_nullable=allows_null(field.type) and not words.startswith("value"),
            unit=unit_of(field.name) if is_number(field.type) else "",
            default=_default_of(field),
            meaning=docs.get(field.name) or _of_section(field.type),
        )


def _of_section(info: inspect.Type) -> str:
    """What a section says about itself, for a key that says nothing more."""
    inner = structs_in(info)
    return class_paragraphs(inner[0].cls)[0] if inner else ""


def _default_of(field: inspect.Field) -> str | None:
    if field.default_factory is not NODEFAULT:
        return yaml_words(field.default_factory())
    return None if field.default is NODEFAULT else yaml_words(field.default)


def _fields_of(spec: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    return _info_of(spec).fields


def _info_of(spec: type[msgspec.Struct]) -> inspect.StructType:
    info = inspect.type_info(spec)
    assert isinstance(info, inspect.StructType)
    return info


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
