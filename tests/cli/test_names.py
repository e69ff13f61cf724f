"""One name for one thing: a class is known by its name wherever it is spoken of."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.helpers.paths import REPOSITORY

PACKAGES = ("engine", "tianji_cli")
EXEMPT = "drivers"
"""They run in other interpreters, import nothing of TianJi, and are read by themselves."""


def test_no_two_public_classes_have_one_name() -> None:
    places = defaultdict(list)
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            if EXEMPT not in path.parts:
                for node in ast.parse(path.read_text(encoding="utf-8")).body:
                    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                        places[node.name].append(path.relative_to(REPOSITORY).as_posix())
    assert len(places) > 300
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_test_imports_another() -> None:
    for path in (REPOSITORY / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
                assert not (names[0] == "tests" and any(n.startswith("test_") for n in names)), path
