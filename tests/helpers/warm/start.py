"""What is asked for when TianJi starts a process of TianJi, and whether a fork can stand for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("engine", "tianji_cli")
PROGRAM = "tests.helpers.warm.program"
WORKER = "tests.helpers.warm.worker"
WORKER_STARTS = ["-u", "-c", "import sys;exec(eval(sys.stdin.readline()))"]
"""The words with which pytest-xdist starts a worker (execnet's `popen_bootstrapline`)."""
ROOM_BYTES = 1 << 15
"""For the variables of a process, where others look for them (`/proc/<pid>/environ`)."""
WORDS_BYTES = 1 << 12
"""For its command line."""
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "TORCH", "KMP_", "MPL", "TZ")
"""Beginnings of variables that an interpreter or a library reads when it starts."""
_READ_LATER = ("PYTHONPATH", "TORCHINDUCTOR_CACHE_DIR")
"""Others with such a beginning. PyTorch sets the second one itself when it first compiles."""
_TETHER = "engine.host.tether"
_TETHERED = {
    "engine.runtime.forkserver": "forkserver",
    "tianji_cli.evaluation.player": "command",
    "tianji_cli.tracking.process": "command",
}
"""What a fork can run with it, and the kind of process that each is most like."""
_LIBRARIES = {"gymnasium", "msgspec", "numpy", "psutil", "rich", "torch", "typer", "yaml", "zmq"}

_READ_FROM_DIRECTORIES = {"sitecustomize", "usercustomize", "matplotlibrc"}


@dataclass(frozen=True, kw_only=True)
class Start:
    """A process to start.

    Attributes:
        words: Its command line.
        module: What `-m` names.
        arguments: The words after it.
        searches_directory: Whether Python looks for modules in the working directory, first.
        env: All of its variables.
        targets: Numbers that the descriptors which are passed on have in it.
        has_own_session: Whether it leads one.
        ignored: Signals that it ignores.
        parent: Who starts it.
        umask: For what it writes.
        descriptors: How many it may open: soft and hard limit.
        cores: Which it may use.
    """

    words: list[str]
    module: str
    arguments: list[str]
    searches_directory: bool
    cwd: str
    env: dict[str, str]
    targets: list[int]
    has_own_session: bool
    ignored: list[int]
    parent: int
    umask: int
    descriptors: tuple[int, int]
    cores: list[int]

    @property
    def is_forkserver(self) -> bool:
        return self.kind == "forkserver"

    @property
    def kind(self) -> str:
        """Of process: those of a kind have read the same modules."""
        if self.module == _TETHER:
            return _TETHERED[self.arguments[2]]
        if self.module == WORKER:
            return "worker"
        return "supervisor" if self.module.startswith("engine.") else "command"


def module_of(words: Sequence[str]) -> tuple[str, list[str], bool] | None:
    """The module that a command line runs, its arguments, and whether Python searches the working
    directory; None if it is not one of TianJi's that a fork can stand for."""
    if words[:1] != [sys.executable]:
        return None
    if words[1:] == WORKER_STARTS:
        return WORKER, [], True
    searches_directory = words[1:2] != ["-P"]
    rest = words[1:] if searches_directory else words[2:]
    if rest[:1] != ["-m"]:
        return None
    module, *arguments = rest[1:]
    if module.partition(".")[0] not in PACKAGES and module != PROGRAM:
        return None
    if module == _TETHER and arguments[2] not in _TETHERED:
        return None
    return module, arguments, searches_directory


def can_be_fork(start: Start, env_of_fork: Mapping[str, str]) -> bool:
    """Whether a new interpreter would find the same libraries, and read them in the same way.

    Args:
        start: What is asked for.
        env_of_fork: The variables with which the libraries were read.
    """
    variables = sum(len(os.fsencode(name + value)) + 2 for name, value in start.env.items())
    words = sum(len(os.fsencode(word)) + 1 for word in start.words)
    return (
        variables < ROOM_BYTES
        and words < WORDS_BYTES
        and _read_at_start(start.env) == _read_at_start(env_of_fork)
        and (not start.is_forkserver or _ONE_THREAD.items() <= start.env.items())
        and not any(map(_hides_libraries, _searched_first(start)))
    )


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in env.items() if name.startswith(_READ_AT_START)}
    return {name: value for name, value in found.items() if value and name not in _READ_LATER}


def _searched_first(start: Start) -> list[str]:
    """Directories that Python searches before its own."""
    named = list(filter(None, start.env.get("PYTHONPATH", "").split(os.pathsep)))
    return [start.cwd, *named] if start.searches_directory else named


def _hides_libraries(directory: str) -> bool:
    if Path(directory) == ROOT:
        return False
    try:
        names = {name.partition(".")[0] for name in os.listdir(directory or ".")}
    except OSError:
        return False
    return bool(names & {*sys.stdlib_module_names, *_LIBRARIES, *PACKAGES, *_READ_FROM_DIRECTORIES})
