"""Redacts documents for publication: removes paths and names of this machine."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

T = TypeVar("T")

_PATH = re.compile(r"""(?<![^\s=,"'(\[])/(?:[^\s/"',:]+/)*([^\s/"',:]+)""")
_HOST_NAME = "hostname"


def redacted(document: T) -> T:
    """The same document with absolute paths reduced to their last part, and an empty host name."""
    return msgspec.convert(_without(msgspec.to_builtins(document)), type(document))


def redacted_json(line: bytes) -> bytes:
    """The same for any JSON document."""
    return msgspec.json.encode(_without(msgspec.json.decode(line)))


def redact_paths(text: str) -> str:
    """Absolute paths in a text become their last part.

    >>> redact_paths("/home/me/bin/python -m x --file=/tmp/a.yaml"), redact_paths("12 steps/s"), redact_paths("https://a.b/c")
    ('python -m x --file=a.yaml', '12 steps/s', 'https://a.b/c')
    """
    return _PATH.sub(r"\1", text)


def _without(tree: object) -> object:
    if isinstance(tree, str):
        return redact_paths(tree)
    if isinstance(tree, (list, tuple)):
        return [_without(item) for item in tree]
    if isinstance(tree, dict):
        return {key: "" if key == _HOST_NAME else _without(item) for key, item in tree.items()}
    return tree
