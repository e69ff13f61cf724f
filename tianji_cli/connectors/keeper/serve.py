"""The keeper's loop: reads frames, starts commands and transfers, and ends when all have ended."""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from tianji_cli.connectors.keeper.commands import StartedCommand
from tianji_cli.connectors.keeper.files import ACTIONS, Transfer
from tianji_cli.connectors.keeper.frames import Answers, Decoder, FrameError

READ_BYTES = 1 << 18
LEAVE_S = 1.0


def home() -> str:
    """The user's home; without one, a directory of the user's own below the temporary one."""
    found = os.path.expanduser("~").rstrip("/")
    if found.startswith("/"):
        return found
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"tianji-{os.getuid()}")


def facts() -> dict[str, Any]:
    """What is known here without asking anyone."""
    return {
        "home": home(),
        "host": os.uname().nodename,
        "user": os.environ.get("LOGNAME") or os.environ.get("USER") or f"uid {os.getuid()}",
        "python": sys.version.split()[0],
        "num_cores": len(os.sched_getaffinity(0)),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


class Keeper:
    """All that is under way.

    Args:
        source, sink: Descriptors on which frames come and go.
        lease_s: Longest silence of the other end; None if its end is always noticed.
    """

    def __init__(self, source: int, sink: int, lease_s: float | None) -> None:
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self.answers = Answers(sink)
        self._source = source
        self._decoder = Decoder()
        self._lease_s = lease_s
        self._heard_s = time.monotonic()
        self._is_attached = True
        self._commands: dict[int, StartedCommand] = {}
        self._transfers: dict[int, Transfer] = {}
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waking = threading.Lock()
        self._woken, self._wake_up = os.pipe()
        for fd in (self._woken, self._wake_up):
            os.set_blocking(fd, False)
        self.selector.register(self._woken, selectors.EVENT_READ, self._wake)
        self.selector.register(source, selectors.EVENT_READ, self._hear)

    def serve(self) -> None:
        """Serves until the other end is gone and all commands have ended."""
        self.answers.send(0, "hello", **facts())
        while self._is_attached or any(not c.is_on_its_own for c in self._commands.values()):
            for key, _ in self.selector.select(self._timeout_s()):
                key.data()
            self._keep_time()
        with self._waking:
            os.close(self._wake_up)
            self._wake_up = -1
        os.close(self._woken)
        self.selector.close()
        self.answers.close(LEAVE_S)

    def call_soon(self, action: Callable[[], None]) -> None:
        self._actions.put(action)
        with self._waking, contextlib.suppress(BlockingIOError):
            if self._wake_up >= 0:
                os.write(self._wake_up, b"\0")

    def _timeout_s(self) -> float | None:
        due = [command.due_s for command in self._commands.values() if command.due_s is not None]
        if self._is_attached and self._lease_s is not None:
            due.append(self._heard_s + self._lease_s)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _keep_time(self) -> None:
        now_s = time.monotonic()
        if self._lease_s is not None and now_s - self._heard_s > self._lease_s:
            self._leave()
        for command in list(self._commands.values()):
            if command.due_s is not None and now_s >= command.due_s:
                command.look()
        self._forget_ended()

    def _forget_ended(self) -> None:
        for number in [n for n, command in self._commands.items() if command.has_ended]:
            del self._commands[number]

    def _wake(self) -> None:
        """A thread has something to do here."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._woken, READ_BYTES):
                pass
        with contextlib.suppress(queue.Empty):
            while True:
                self._actions.get_nowait()()

    def _hear(self) -> None:
        self._heard_s = time.monotonic()
        try:
            data = os.read(self._source, READ_BYTES)
            frames = self._decoder.feed(data)
        except (OSError, FrameError):
            data, frames = b"", []
        for header, body in frames:
            self._handle(header, body)
        if not data:
            self._leave()

    def _handle(self, header: dict[str, Any], body: bytes) -> None:
        number, op = header["id"], header["op"]
        if op == "spawn":
            self._commands[number] = StartedCommand(self, number, header)
        elif op in ACTIONS:
            transfer = self._transfers[number] = Transfer(self.answers, number, header)
            transfer.start(lambda: self.call_soon(lambda: self._forget(number)))
        elif op == "beat":
            self.answers.send(number, op)
        elif number in self._commands:
            self._commands[number].handle(op, header, body)
        elif number in self._transfers:
            self._transfers[number].handle(op, header, body)

    def _forget(self, number: int) -> None:
        del self._transfers[number]

    def _leave(self) -> None:
        """The other end is gone."""
        if not self._is_attached:
            return
        self._is_attached = False
        self.selector.unregister(self._source)
        for command in self._commands.values():
            if command.has_limit:
                command.kill()
            if not command.is_on_its_own:
                command.drop()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Unlike SIG_IGN, this is not inherited by what is started."""


def serve(lease_s: float | None) -> None:
    """Serves whoever started this process."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignore)
    os.set_blocking(1, True)
    Keeper(0, 1, lease_s).serve()
