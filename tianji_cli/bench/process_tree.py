"""One system as a tree of processes: started in a session of its own, watched, ended completely.

Members are found in two ways: by descent, as long as the parents live, and by a token in their
environment, which they keep when their parents are gone. A reaper (`reaper.py`) ends the tree if
this process dies before it could.

Shared memory is part of what a system leaves: with PyTorch's sharing strategy `file_system` a
tensor lies in `/dev/shm/torch_<pid>_<random>_<number>`. A manager of PyTorch's removes it once its
users are gone, unless the manager is ended before.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from engine.host.process_identity import ProcessId, descendants, end_all, find_marked, is_alive
from engine.host.usage import usage_of
from engine.search_path import (
    MODULES_VARIABLE,
    module_command,
    searched,
    user_directories,
)
from tianji_cli.provisioning.bundle import source_root
from tianji_cli.storage.safe_files import append_descriptor

PLACE = Path("/dev/shm")
SLACK_S = 1.0
"""Tolerance of the start time of a process, which the system counts in clock ticks."""
_NAME = re.compile(r"torch_(\d+)_\d+_\d+")


class LeftFile(msgspec.Struct, frozen=True, kw_only=True):
    """Shared memory that was still there when all processes of a system had ended."""

    name: str
    size_bytes: int


def remove_left(births_s: Mapping[int, float], place: Path = PLACE) -> list[LeftFile]:
    """Removes the shared memory these processes left, and nothing else.

    The name contains the pid, but pids are reused: a file that was last changed before the process
    of that pid started belongs to another process, and so does a file of another user.

    Args:
        births_s: Unix time by pid; all have ended.
        place: The directory of shared memory.

    Returns:
        What was removed.
    """
    found = []
    with contextlib.suppress(OSError):  # there is no such place
        for path in sorted(place.iterdir()):
            match = _NAME.fullmatch(path.name)
            birth_s = births_s.get(int(match[1])) if match else None
            if birth_s is not None and (size_bytes := _remove(path, birth_s)) is not None:
                found.append(LeftFile(name=path.name, size_bytes=size_bytes))
    return found


def _remove(path: Path, birth_s: float) -> int | None:
    """Its size; None if it is not of that process, or cannot be removed."""
    try:
        facts = path.lstat()
        if facts.st_uid != os.geteuid() or facts.st_ctime < birth_s - SLACK_S:
            return None
        path.unlink()
    except OSError:
        return None
    return facts.st_size


TOKEN = "TIANJI_BENCH_TOKEN"
TERMINATE_S = 3.0


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """A process that a system left behind when it had ended."""

    pid: int
    name: str
    command: str
    rss_bytes: int
    listening: list[str]
    """Addresses on which it still listened."""


class ProcessTree:
    """A started system and all its descendants.

    Args:
        argv: Program and arguments.
        environment: Complete; the token is added.
        cwd: Working directory.
        output: Gets standard output and error.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path, output: Path
    ) -> None:
        self._token = uuid.uuid4().hex
        self._members: dict[ProcessId, None] = {}  # in the order in which they were found
        self._births_s: dict[int, float] = {}
        self._looked_s = -math.inf
        self.peak_rss_bytes = 0
        self.left_files: list[LeftFile] = []
        self._reaper = _start_reaper(self._token)
        with os.fdopen(append_descriptor(output), "ab") as file:
            self.process = subprocess.Popen(
                list(argv),
                env={**environment, TOKEN: self._token},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with contextlib.suppress(psutil.Error):  # also if it has ended already
            self._births_s[self.process.pid] = psutil.Process(self.process.pid).create_time()
        self._remember(filter(None, [ProcessId.of(self.process.pid)]))
        self.look()

    def wait(self, timeout_s: float) -> int | None:
        """The exit code of the first process, or None if it still runs after `timeout_s`."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def look(self, *, at_most_every_s: float = 0.0) -> None:
        """Remembers all present descendants, and how much memory the whole tree has."""
        if time.monotonic() - self._looked_s < at_most_every_s:
            return
        self._looked_s = time.monotonic()
        self._remember(descendants(self._members))
        resident = sum(_rss(process) for process in self._members)
        self.peak_rss_bytes = max(self.peak_rss_bytes, resident)

    def ask_to_stop(self) -> None:
        """Interrupts the first process, as Ctrl-C would."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def end(self) -> list[Leftover]:
        """Ends whatever is left: first politely, then not. Removes its shared memory.

        Returns:
            Who was still there although the first process had ended.
        """
        had_ended = self.process.poll() is not None
        leftovers = [_describe(process) for process in self._alive()] if had_ended else []
        end_all(self._alive, TERMINATE_S)
        self.process.wait()
        self._reaper.communicate()
        self.left_files = remove_left(self._births_s)
        return leftovers

    def _alive(self) -> list[ProcessId]:
        """Members that still run; a zombie has nothing left to do."""
        self.look()
        self._remember(marked(self._token))
        return [process for process in self._members if is_alive(process)]

    def _remember(self, processes: Iterable[ProcessId]) -> None:
        for process in processes:
            if process not in self._members:
                with contextlib.suppress(psutil.Error):
                    self._births_s[process.pid] = psutil.Process(process.pid).create_time()
                self._members[process] = None


def marked(token: str) -> list[ProcessId]:
    """All running processes with this token in their environment."""
    return list(filter(None, map(ProcessId.of, find_marked(token, TOKEN))))


def _start_reaper(token: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        module_command(sys.executable, "tianji_cli.bench.reaper", token),
        env={**os.environ, "PYTHONPATH": str(source_root())},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def clean_environment(unset: Sequence[str] = ()) -> dict[str, str]:
    """This process's environment without what would leak TianJi's interpreter into a baseline."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", *unset}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def modules_environment() -> dict[str, str]:
    """Names the directories of the user's modules to a system, which runs in another directory."""
    directories = dict.fromkeys([*user_directories(), *searched()])
    return {MODULES_VARIABLE: os.pathsep.join(directories)}


def _rss(process: ProcessId) -> int:
    usage = usage_of(process)
    return 0 if usage is None else usage.rss_bytes


def _describe(process: ProcessId) -> Leftover:
    try:
        found = psutil.Process(process.pid)
        with found.oneshot():
            name, command = found.name(), " ".join(found.cmdline())[:200]
        ports = [
            f"{connection.laddr.ip}:{connection.laddr.port}"
            for connection in found.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
    except psutil.Error:
        name, command, ports = "gone", "", []
    return Leftover(
        pid=process.pid, name=name, command=command, rss_bytes=_rss(process), listening=ports
    )
