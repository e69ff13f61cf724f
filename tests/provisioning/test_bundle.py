"""The bundle is named by its content, whatever machine packs it, and runs from where it lies."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

from engine import REQUIREMENTS
from engine.envs.names import EXTRAS
from engine.host.host_check import LIST_NAME
from engine.supervision.host_facts import host_facts
from tianji_cli.provisioning.bundle import (
    OPTIONAL,
    environment_name,
    make_bundle,
    pinned_constraints,
    source_root,
)
from tianji_cli.provisioning.probe import probe_command


def tree(root: Path) -> Path:
    for package in ("engine", "tianji_cli"):
        (root / package / "sub").mkdir(parents=True)
        (root / package / "__init__.py").write_text("x = 1\n")
        (root / package / "sub" / "a.py").write_text("y = 2\n")
        (root / package / "sub" / "__pycache__").mkdir()
        (root / package / "sub" / "__pycache__" / "a.pyc").write_bytes(b"no")
    return root


def test_equal_files_make_equal_bundles(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    os.utime(two / "engine" / "__init__.py", (0, 0))
    (two / "engine" / "__init__.py").chmod(0o777)
    assert make_bundle(one, "c") == make_bundle(two, "c")
    with tarfile.open(fileobj=io.BytesIO(make_bundle(one, "c").data)) as archive:
        names = archive.getnames()
    assert names == sorted(names)
    assert "constraints.txt" in names
    assert not [name for name in names if "pyc" in name]


def test_the_laboratory_is_not_shipped() -> None:
    with tarfile.open(fileobj=io.BytesIO(make_bundle(source_root(), "").data)) as archive:
        names = archive.getnames()
    assert "tianji_cli/bench/transport/programs/tianji_channel.py" in names
    assert "engine/graph/policies/tianji.yaml" in names
    assert {"engine/compilation/cpp/product.cpp", "engine/compilation/cpp/helpers.h"} <= set(names)
    assert not [name for name in names if name.startswith("tianji_cli/lab")]
    assert not [
        name
        for name in names
        if not name.endswith((".py", ".cpp", ".h", ".yaml", ".txt", LIST_NAME))
    ]


def test_any_change_makes_another_name(tmp_path: Path) -> None:
    root = tree(tmp_path)
    names = {make_bundle(root, "c").name, make_bundle(root, "d").name}
    (root / "engine" / "sub" / "a.py").write_text("y = 3\n")
    names.add(make_bundle(root, "c").name)
    assert len(names) == 3


def test_constraints_pin_what_the_engine_imports() -> None:
    lines = pinned_constraints().split()
    assert all(line.count("==") == 1 and "+" not in line for line in lines)
    assert any(line.startswith("torch==") for line in lines)
    assert environment_name("a", "3.11") != environment_name("a", "3.12")


def test_one_list_says_what_hosts_need_and_what_is_recorded_of_them() -> None:
    modules = {"pyyaml": "yaml", "pyzmq": "zmq"}
    imported = {
        name.partition(".")[0]
        for path in (source_root() / "engine").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    # pip: of any Python; types: for mypy; exports are made where the command is.
    others = {"engine", "pip", "_typeshed", "onnxruntime", *OPTIONAL}
    foreign = imported - sys.stdlib_module_names - others
    assert foreign == {modules.get(name, name) for name in REQUIREMENTS}
    assert set(REQUIREMENTS) <= set(host_facts().versions)


ENV_EXTRAS = ("atari", "box2d", "envpool", "marl", "minatar", "minigrid", "mujoco")
"""What hosts of a run can need; all others are for the machine of the command."""


def test_every_extra_with_environments_is_pinned_on_hosts_too() -> None:
    project = tomllib.loads((source_root() / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [need for name in ENV_EXTRAS for need in extras[name]]
    assert {extra for _, extra in EXTRAS.values()} <= set(ENV_EXTRAS) <= set(extras)
    names = {re.split(r"[><=]", need)[0] for need in wanted}
    as_package = {"gymnasium[mujoco]": "mujoco"}
    assert {as_package.get(name, name) for name in names} == set(OPTIONAL)


def test_the_shipped_supervisor_runs_from_the_bundle_alone(tmp_path: Path) -> None:
    bundle = make_bundle(source_root(), pinned_constraints())
    with tarfile.open(fileobj=io.BytesIO(bundle.data)) as archive:
        archive.extractall(tmp_path, filter="data")
    code = "import engine.supervision.supervisor as s; print(s.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path))


def test_the_probe_needs_nothing_of_tianji(tmp_path: Path) -> None:
    command = probe_command(sys.executable, "facts", str(tmp_path / "not" / "there"), "torch", "xx")
    command.insert(1, "-I")
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert '"xx": null' in done.stdout
    assert '"is_writable": true' in done.stdout
    for name in ("host_probe.py", "host_check.py"):
        script = (source_root() / "engine" / "host" / name).read_text()
        ast.parse(script, feature_version=(3, 7))
