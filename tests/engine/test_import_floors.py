"""The house stands on floors: imports go downward only, and heavy ones stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = sorted((ROOT / "engine").rglob("*.py"))
CLI = sorted((ROOT / "tianji_cli").rglob("*.py"))

FLOORS = {
    **dict.fromkeys(("errors", "clock", "spec", "rollout", "progress", "sections"), 0),
    **dict.fromkeys(
        (
            "yaml_text",
            "whole_numbers",
            "regular_files",
            "search_path",
            "extras",
            "blame",
            "wording",
        ),
        0,
    ),
    **dict.fromkeys(("config_file", "trace"), 1),
    **dict.fromkeys(
        ("messages", "balance", "algorithms", "envs", "graph", "replay", "extensions"), 2
    ),
    **dict.fromkeys(("roles", "wire"), 3),
    "runtime": 4,
    "testing": 5,
}
HEAVY = {"torch", "pandas", "matplotlib", "gymnasium", "paramiko"}


def module_of(path: Path) -> str:
    """`engine/wire/codec.py` -> `engine.wire.codec`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(node: ast.AST) -> Iterator[str]:
    """All modules imported anywhere below a node, as dotted names."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports are banned"
            assert child.module is not None
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)


def module_level_imports(tree: ast.Module) -> Iterator[str]:
    """What is imported as soon as the module is; not what functions or type checkers import."""
    for statement in tree.body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield from imports(statement)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def roots(names: Iterator[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def part_of(module: str) -> str:
    """The name that stands in `FLOORS`: `engine.wire.codec` -> `wire`."""
    return module.split(".")[1] if module.count(".") else ""


def engine_parts(path: Path) -> set[str]:
    return {part_of(name) for name in imports(parsed(path)) if name.startswith("engine.")}


def test_there_is_something_to_check():
    assert len(ENGINE) > 30
    assert len(CLI) > 15
    assert {part_of(module_of(path)) for path in ENGINE} - {""} == set(FLOORS)


@pytest.mark.parametrize("path", ENGINE, ids=module_of)
def test_the_engine_knows_no_command_line(path: Path):
    assert not roots(imports(parsed(path))) & {"tianji_cli", "typer", "rich", "paramiko"}


@pytest.mark.parametrize("path", ENGINE, ids=module_of)
def test_imports_go_downward_or_stay_on_their_floor(path: Path):
    part = part_of(module_of(path))
    own = FLOORS.get(part, 0)
    above = {name for name in engine_parts(path) if FLOORS.get(name, 0) > own}
    assert not above, f"{module_of(path)} is on floor {own}"


def test_roles_and_wire_do_not_know_each_other():
    for path in ENGINE:
        part = part_of(module_of(path))
        if part == "roles":
            assert "wire" not in engine_parts(path), path
        if part == "wire":
            assert "roles" not in engine_parts(path), path


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("torch", {"algorithms", "envs", "runtime", "testing"}),
        ("zmq", {"wire"}),
        ("yaml", {"yaml_text"}),
    ],
)
def test_a_library_stays_where_it_belongs(library: str, allowed: set[str]):
    found = {part_of(module_of(path)) for path in ENGINE if library in roots(imports(parsed(path)))}
    assert found
    assert found <= allowed


def test_only_connectors_know_ssh():
    for path in (*ENGINE, *CLI):
        if "paramiko" in roots(imports(parsed(path))):
            assert module_of(path).startswith("tianji_cli.connectors"), path


def may_be_heavy(path: Path) -> bool:
    is_figures = path.parent.name == "render" and path.name.startswith("figures")
    is_ssh = path.parent.name == "connectors" and path.stem.startswith(("ssh", "host_keys"))
    return "analysis" in path.parts or is_figures or is_ssh or is_driver(path)


def is_driver(path: Path) -> bool:
    """A program for another interpreter; nothing here imports it."""
    return "drivers" in path.parts


def test_nothing_imports_a_driver():
    for path in (*ENGINE, *CLI):
        assert not any("drivers" in name.split(".") for name in imports(parsed(path))), path


@pytest.mark.parametrize("path", [p for p in CLI if is_driver(p)], ids=module_of)
def test_a_driver_imports_nothing_of_tianji(path: Path):
    assert not roots(imports(parsed(path))) & {"engine", "tianji_cli"}


@pytest.mark.parametrize("path", [p for p in CLI if not may_be_heavy(p)], ids=module_of)
def test_a_command_loads_heavy_libraries_only_when_it_runs(path: Path):
    assert not roots(module_level_imports(parsed(path))) & HEAVY


def loaded_by(module: str) -> set[str]:
    """What is there once a module has been read by an interpreter of its own."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_command_line_answers_without_any_heavy_library():
    loaded = loaded_by("tianji_cli.main")
    assert "tianji_cli" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("module", ["tianji_cli.commands.up", "engine.runtime.supervisor"])
def test_a_run_starts_without_what_only_some_runs_need(module: str):
    """`asyncio` comes with the authenticator of sockets between hosts."""
    loaded = loaded_by(module)
    assert "zmq" in loaded
    assert not loaded & (HEAVY | {"asyncio"})
