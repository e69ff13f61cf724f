"""The user's modules for other hosts: those that an experiment names, and what they import.

Files and packages in the working directory or beside the experiment are sent; installed packages
are not, since Python finds them first here as well, and they must be installed there, too.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from engine.search_path import OWN_PACKAGES
from engine.spec import Experiment
from tianji_cli.units import size

MAX_BYTES = 16 * 2**20
MAX_FILES = 2_000
_ENTRY_POINT = re.compile(r"(?P<module>[A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_]\w*")
"""`grids.small:SmallGrid`, as given to `gymnasium.register`."""


@dataclass(frozen=True)
class OwnModules:
    """The modules to send.

    Attributes:
        directories: Where modules are searched on this machine.
        names: Files and packages, such as `corridor.py` or `grids/`.
        files: Contents by relative path.
        problem: Why nothing is sent; empty unless it is too much.
    """

    directories: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    problem: str = ""

    @property
    def words(self) -> str:
        """`corridor.py, grids/ (4 files, 12 KiB)`"""
        noun = "file" if len(self.files) == 1 else "files"
        total = size(sum(map(len, self.files.values())))
        return f"{', '.join(self.names)} ({len(self.files)} {noun}, {total})"


def find_modules(experiment: Experiment, directories: Sequence[str]) -> OwnModules:
    """Finds the modules that an experiment names, and those that they import from beside them.

    Args:
        experiment: Names them in `modules`, `env.id` and `env.wrappers`.
        directories: Where they are searched; the first match counts.

    Returns:
        Only the directories if it names no own modules.
    """
    firsts = [name.partition(".")[0] for name, _ in experiment.named_modules]
    waiting = [name for name in firsts if name.isidentifier()]  # importing others reports the error
    found: dict[str, Path] = {}
    files: dict[str, Path] = {}
    while waiting:
        name = waiting.pop(0)
        place = None if name in found else _own(name, directories)
        if place is None:
            continue
        found[name] = place
        for path in _files_of(place):
            files[path.relative_to(place.parent).as_posix()] = path
            if len(files) > MAX_FILES:
                return _too_much(directories, f"{place} has more than {MAX_FILES} files")
            if path.suffix == ".py":
                waiting += _needed_by(path)
    num_bytes = sum(path.stat().st_size for path in files.values())
    if num_bytes > MAX_BYTES:
        largest = max(files.values(), key=lambda path: path.stat().st_size)
        problem = f"they have {size(num_bytes)}, of which {largest} is the largest"
        return _too_much(directories, problem)
    return OwnModules(
        directories=tuple(directories),
        names=tuple(place.name + "/" * place.is_dir() for place in found.values()),
        files={name: path.read_bytes() for name, path in files.items()},
    )


def _too_much(directories: Sequence[str], problem: str) -> OwnModules:
    return OwnModules(
        directories=tuple(directories),
        problem=f"own modules are not sent to other hosts: {problem}; {size(MAX_BYTES)} at most."
        " Move data out of the package, or install it on the hosts",
    )


def _own(name: str, directories: Sequence[str]) -> Path | None:
    """The file or package of a top-level name, unless Python finds another one first."""
    if name in sys.stdlib_module_names or name in OWN_PACKAGES:
        return None
    elsewhere = [entry for entry in sys.path if os.path.abspath(entry) not in directories]
    spec = PathFinder.find_spec(name, elsewhere)
    if spec is not None and spec.origin is not None:
        return None
    for directory in directories:
        package, file = Path(directory) / name, Path(directory) / f"{name}.py"
        if (package / "__init__.py").is_file():
            return package
        if file.is_file():
            return file
        if any(package.rglob("*.py")):  # a package without __init__.py
            return package
    return None


def _files_of(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    for root, directories, names in os.walk(place):
        directories[:] = sorted(d for d in directories if d[0] != "." and d != "__pycache__")
        for name in sorted(names):
            path = Path(root) / name
            if name[0] != "." and path.suffix != ".pyc" and path.is_file():
                yield path


def _needed_by(path: Path) -> Iterator[str]:
    """Top-level names that a file imports, or gives to Gymnasium as an entry point."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # importing it reports the error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and (entry := _ENTRY_POINT.fullmatch(node.value))
        ):
            yield entry["module"]
