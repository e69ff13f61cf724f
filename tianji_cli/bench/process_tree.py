"""One system as a tree of processes: started in a session of its own, watched, ended completely.

Members are found in two ways: by descent, as long as the parents live, and by a token in their
environment, which they keep when their parents are gone. A process is only ever signalled by its
pid together with its start time, never by name. A reaper (`reaper.py`) ends the tree if this
process dies before it could.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from engine.search_path import (
    MODULES_VARIABLE,
    module_command,
    searched,
    user_directories,
)
from tianji_cli.bench.shared_memory import LeftFile, remove_left
from tianji_cli.provisioning.bundle import source_root
from tianji_cli.storage.safe_files import append_descriptor

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
        self._members: dict[int, psutil.Process] = {}
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
        self._remember([psutil.Process(self.process.pid)])
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
        self._remember(_descendants(list(self._members.values())))
        resident = sum(_rss(process) for process in self._members.values())
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
        end_all(self._alive)
        self.process.wait()
        self._reaper.communicate()
        self.left_files = remove_left(self._births_s)
        return leftovers

    def _alive(self) -> list[psutil.Process]:
        """Members that still run; a zombie has nothing left to do."""
        self.look()
        self._remember(marked(self._token))
        return [process for process in self._members.values() if _runs(process)]

    def _remember(self, processes: Iterable[psutil.Process]) -> None:
        for process in processes:
            if process.pid not in self._members:
                with contextlib.suppress(psutil.Error):
                    self._births_s[process.pid] = process.create_time()
                self._members[process.pid] = process


def marked(token: str) -> list[psutil.Process]:
    """All running processes with this token in their environment."""
    return [p for p in psutil.process_iter() if _has_token(p, token) and _runs(p)]


def end_all(alive: Callable[[], list[psutil.Process]]) -> None:
    """Terminates processes, then kills them; looks again each time for new children."""
    for send in (signal.SIGTERM, signal.SIGKILL):
        left = alive()
        for process in left:
            _signal(process, send)
        deadline_s = time.monotonic() + TERMINATE_S
        while left and time.monotonic() < deadline_s:
            psutil.wait_procs(left, timeout=0.2)
            left = alive()
        if not left:
            return


def _start_reaper(token: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        module_command(sys.executable, "tianji_cli.bench.reaper", token),
        env={**os.environ, "PYTHONPATH": str(source_root())},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _has_token(process: psutil.Process, token: str) -> bool:
    try:
        return process.environ().get(TOKEN) == token
    except (psutil.Error, OSError):
        return False


def clean_environment(unset: Sequence[str] = ()) -> dict[str, str]:
    """This process's environment without what would leak TianJi's interpreter into a peer."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", *unset}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def modules_environment() -> dict[str, str]:
    """Names the directories of the user's modules to a system, which runs in another directory."""
    directories = dict.fromkeys([*user_directories(), *searched()])
    return {MODULES_VARIABLE: os.pathsep.join(directories)}


def _descendants(ancestors: Sequence[psutil.Process]) -> list[psutil.Process]:
    """All processes below these, with one pass over the system's table: a measurement takes as
    little as possible of the processors that are measured."""
    children: dict[int, list[int]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(process.pid)
    found, known = [], {process.pid for process in ancestors}
    parents = [process for process in ancestors if _runs(process)]
    while parents:
        parent = parents.pop()
        for pid in children.pop(parent.pid, ()):
            with contextlib.suppress(psutil.Error):
                child = psutil.Process(pid)
                if pid not in known and child.create_time() >= parent.create_time():
                    found.append(child)
                    parents.append(child)
    return found


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)  # psutil compares the start time first
    except (psutil.Error, ProcessLookupError):
        return


def _describe(process: psutil.Process) -> Leftover:
    try:
        with process.oneshot():
            name, command = process.name(), " ".join(process.cmdline())[:200]
        ports = [
            f"{connection.laddr.ip}:{connection.laddr.port}"
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
    except psutil.Error:
        name, command, ports = "gone", "", []
    return Leftover(
        pid=process.pid, name=name, command=command, rss_bytes=_rss(process), listening=ports
    )
