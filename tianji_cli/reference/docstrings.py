"""The docstrings of a class's attributes, which Python itself does not keep."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping


def attribute_docs(cls: type) -> Mapping[str, str]:
    """What stands below each attribute of a class and its bases, each as one line.

    Args:
        cls: Defined in a file.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__ != "builtins" and not base.__module__.startswith("msgspec"):
            found |= _docs_of_module(base.__module__).get(base.__qualname__, {})
    return found


def class_paragraphs(cls: type) -> list[str]:
    """The paragraphs of a class's own docstring, each as one line."""
    return [_one_line(part) for part in inspect.cleandoc(cls.__doc__ or "").split("\n\n") if part]


@functools.cache
def _docs_of_module(module: str) -> Mapping[str, Mapping[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_docs_in(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs_in(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            yield statement.target.id, _one_line(following.value.value)


def _one_line(text: str) -> str:
    return " ".join(text.split())
