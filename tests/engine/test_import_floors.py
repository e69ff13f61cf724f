"""The house stands on floors: imports go downward only, and heavy ones stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY

ROOT = REPOSITORY
ENGINE = sorted((ROOT / "engine").rglob("*.py"))
CLI = sorted((ROOT / "tianji_cli").rglob("*.py"))

FLOORS = {
    "engine": (
        (
            "errors",
            "clock",
            "timing",
            "rollout",
            "progress",
            "seeds",
            "search_path",
            "wording",
            "outline",
            "ciphers",
        ),
        ("spec", "blame", "files", "spaces"),
        ("config", "trace", "admission", "replay"),
        ("messages", "layers", "graph"),
        ("algorithms",),
        ("roles", "wire", "host", "batch_shares"),
        ("envs", "devices", "control_protocol"),
        ("extensions", "supervision"),
        ("blueprint",),
        ("compilation",),
        ("executors",),
        ("runtime", "trained"),
        ("export",),
        ("testing",),
    ),
    "tianji_cli": (
        ("streams", "interrupts", "plain_text", "units", "git_state"),
        ("config",),
        ("storage", "planning", "connectors", "scaffold"),
        ("output", "provisioning", "plotting", "analysis", "lab", "slurm"),
        ("runs", "tracking", "bench", "simulation"),
        ("evaluation",),
        ("render", "results", "reference", "watch"),
        ("commands",),
        ("main",),
        ("__main__",),
    ),
}
"""From the ground up. A part, which is a folder or a module beside the folders, imports only what
is on floors below its own."""
HEAVY = {"torch", "pandas", "matplotlib", "gymnasium", "paramiko"}
MAX_MODULES = 20
"""Of one folder, so that a look at it is enough."""


def module_of(path: Path) -> str:
    """`engine/wire/codec.py` -> `engine.wire.codec`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in (*ENGINE, *CLI)}
PACKAGES = sorted(name for name, path in MODULES.items() if path.stem == "__init__")


def imports(node: ast.AST) -> Iterator[str]:
    """All modules imported below a node, as dotted names."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports are banned"
            assert child.module is not None
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)


@cache
def imported(path: Path) -> tuple[str, ...]:
    """What a file imports anywhere in it."""
    return tuple(imports(parsed(path)))


def module_level_imports(path: Path) -> Iterator[str]:
    """What is imported as soon as the module is; not what functions or type checkers import."""
    for statement in parsed(path).body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield from imports(statement)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def roots(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def part_of(module: str, package: str) -> str:
    """What of a package a module belongs to: `engine.wire.codec` in `engine` -> `wire`."""
    inside = module.removeprefix(f"{package}.")
    return "" if inside == module else inside.partition(".")[0]


def parts_imported(path: Path, package: str) -> set[str]:
    """Parts of a package that a file imports, anywhere in it; its own is not counted."""
    found = {part_of(name, package) for name in imported(path) if name in MODULES}
    return found - {"", part_of(module_of(path), package)}


def floor_of(module: str) -> int:
    package = module.partition(".")[0]
    part = part_of(module, package)
    floors = (number for number, parts in enumerate(FLOORS[package]) if part in parts)
    return next(floors, 0 if not part else -1)


def edges_in(package: str) -> dict[str, set[str]]:
    """Which parts of a package import which others of it."""
    edges: dict[str, set[str]] = defaultdict(set)
    for name, path in MODULES.items():
        if part := part_of(name, package):
            edges[part] |= parts_imported(path, package)
    return edges


def circle_in(edges: dict[str, set[str]]) -> set[str]:
    """Parts that cannot be put above all that they import; empty if all can."""
    left = {part: set(below) for part, below in edges.items()}
    while free := {part for part, below in left.items() if not below & left.keys()}:
        for part in free:
            del left[part]
    return set(left)


def test_there_is_something_to_check():
    assert len(ENGINE) > 100
    assert len(CLI) > 100
    for package, floors in FLOORS.items():
        parts = {part_of(name, package) for name in MODULES}
        assert parts - {""} == {part for floor in floors for part in floor}


def test_a_circle_is_seen():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": set()}) == set()
    assert circle_in({"a": {"b"}, "b": {"a", "c"}, "c": set()}) == {"a", "b"}


def test_the_engine_knows_no_command_line():
    known = {"tianji_cli", "typer", "rich", "paramiko"}
    assert [path for path in ENGINE if roots(imported(path)) & known] == []


def parts_above(module: str) -> set[str]:
    """What a module imports that is not below its own floor."""
    package, own = module.partition(".")[0], floor_of(module)
    if not part_of(module, package):
        return set()
    below = parts_imported(MODULES[module], package)
    return {part for part in below if floor_of(f"{package}.{part}") >= own}


def test_imports_go_downward():
    assert {module: above for module in MODULES if (above := parts_above(module))} == {}


def test_no_circle_goes_through_the_parts_of_a_folder():
    circles = {package: circle_in(edges_in(package)) for package in PACKAGES}
    assert {package: circle for package, circle in circles.items() if circle} == {}


def test_no_folder_is_a_heap():
    sizes = Counter(name.rpartition(".")[0] for name in MODULES if name not in PACKAGES)
    assert {name: n for name, n in sizes.items() if n > MAX_MODULES} == {}


def test_the_laboratory_is_not_needed_elsewhere():
    for name, path in MODULES.items():
        if name.startswith(("tianji_cli.lab", "tianji_cli.commands.lab", "tianji_cli.render.lab")):
            continue
        if name != "tianji_cli.main":
            assert "lab" not in parts_imported(path, "tianji_cli"), name


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        (
            "torch",
            {"algorithms", "layers", "envs", "devices", "batch_shares", "blueprint", "testing"}
            | {"compilation", "executors", "runtime", "trained", "export"},
        ),
        ("zmq", {"wire"}),
        ("yaml", {"config"}),
    ],
)
def test_a_library_stays_where_it_belongs(library: str, allowed: set[str]):
    users = [path for path in ENGINE if library in roots(imported(path))]
    found = {part_of(module_of(path), "engine") for path in users}
    assert found
    assert found <= allowed


def test_only_connectors_know_ssh():
    for name, path in MODULES.items():
        if "paramiko" in roots(imported(path)):
            assert name.startswith("tianji_cli.connectors"), name


def test_only_its_connector_knows_ray():
    """And of that only what runs in the driver's process, or is sent to Ray's workers."""
    knowing = {"driver", "joining", "placing", "visiting", "carrier"}
    for name, path in MODULES.items():
        is_measured = {"drivers", "programs"} & set(path.parts)  # against Ray, in its own process
        if "ray" in roots(imported(path)) and not is_measured:
            package, _, module = name.rpartition(".")
            assert package == "tianji_cli.connectors.ray_cluster", name
            assert module in knowing, name
    for name in ("hosts", "connection"):
        path = MODULES[f"tianji_cli.connectors.ray_cluster.{name}"]
        assert not knowing & {other.rpartition(".")[2] for other in imported(path)}


def may_be_heavy(path: Path) -> bool:
    is_figures = path.stem.startswith("figures") and path.parts[-3] in ("render", "tianji_cli")
    is_ssh = path.parent.name == "connectors" and path.stem.startswith(("ssh", "host_keys"))
    is_analysis = "analysis" in path.parts[-3:-1] or path.stem == "downsample"
    return is_analysis or is_figures or is_ssh or is_driver(path)


def is_driver(path: Path) -> bool:
    """A program for another interpreter; nothing here imports it."""
    return "drivers" in path.parts


def test_nothing_imports_a_driver():
    for name, path in MODULES.items():
        assert not any("drivers" in n.split(".") for n in imported(path)), name


@pytest.mark.parametrize("path", [p for p in CLI if is_driver(p)], ids=module_of)
def test_a_driver_imports_nothing_of_tianji(path: Path):
    assert not roots(imported(path)) & {"engine", "tianji_cli"}


def test_a_command_loads_heavy_libraries_only_when_it_runs():
    light = [path for path in CLI if not may_be_heavy(path)]
    assert [path for path in light if roots(module_level_imports(path)) & HEAVY] == []


def test_the_command_line_answers_without_any_heavy_library():
    code = "import sys, tianji_cli.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "tianji_cli" in loaded
    assert not loaded & HEAVY
