"""Examples in docstrings say what is so."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.helpers.paths import REPOSITORY

ROOT = REPOSITORY
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("engine", "tianji_cli")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "\n    >>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith(("engine", "tianji_cli")):
            raise
        pytest.skip(f"needs {error.name}, which an extra installs")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
