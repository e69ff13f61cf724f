"""Operating-system processes: their parent, name, exit, standard streams and the end of its log."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from engine.blame import ERROR

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
LOG_TAIL_LINES = 50


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Asks the kernel to send this process a signal as soon as its parent is gone (Linux).

    Ends it at once if the parent is gone already. On other systems only `is_orphan` helps.

    Args:
        parent: Pid of the process that started this one, as seen by that process.
        number: The signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + number)


def name_process(name: str) -> None:
    """Shows `name` (its first 15 characters) as this process's command in `ps` and `top`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def flush_output() -> None:
    """Writes what this process was given to write, also by user code: by Python to streams that
    were replaced since, and by C libraries. `os._exit` alone would lose it."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # the reader is gone, or it is closed
                stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)


class OrphanWatch:
    """A check of whether this process still has its original parent."""

    def __init__(self) -> None:
        self._parent = os.getppid()

    def is_orphan(self) -> bool:
        return os.getppid() != self._parent


def describe_exit(status: int) -> tuple[str, bool]:
    """Describes a wait status.

    Returns:
        Text such as `was killed by SIGKILL` or `ended with code 1`; whether it was a clean exit.
    """
    code = os.waitstatus_to_exitcode(status)
    return describe_returncode(code), code == 0


def describe_returncode(code: int) -> str:
    """The same for a return code, which is negative after a signal."""
    if code >= 0:
        return f"ended with code {code}"
    return f"was killed by {signal.Signals(-code).name}"


def log_tail(path: Path) -> list[str]:
    """The last lines of a log; empty if there is none. If it ends with an error of TianJi,
    only that; the traceback before it is in the log."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return _last_error([line.rstrip("\n") for line in deque(file, LOG_TAIL_LINES)])
    except OSError as error:
        return [f"(its log cannot be read: {error})"]


def _last_error(lines: list[str]) -> list[str]:
    for begin in range(len(lines) - 1, -1, -1):
        if lines[begin].startswith(ERROR):
            return lines[begin:]
        if not lines[begin].startswith("    "):
            break
    return lines


class _Log(io.FileIO):
    """Wraps a standard stream: a full disk or a lost reader must not end the process."""

    def write(self, data: ReadableBuffer, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


def take_stdout() -> int:
    """Reserves standard output for messages: other output goes to standard error, if possible.

    Returns:
        The descriptor to write messages to.
    """
    descriptor = os.dup(1)
    os.set_inheritable(descriptor, False)
    os.dup2(2, 1)
    sys.stdout, sys.stderr = (_forgiving(number) for number in (1, 2))
    return descriptor


def _forgiving(descriptor: int) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(_Log(descriptor, "w", closefd=False))
    return io.TextIOWrapper(
        buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
