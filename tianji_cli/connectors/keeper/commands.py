"""A command that a keeper has started: its three streams, its limit, its end."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from tianji_cli.connectors.keeper.frames import (
    CHUNK_BYTES,
    WINDOW_BYTES,
    Answers,
    Consumed,
    path_bytes,
)

LINGER_S = 1.0
"""Time for the output of an ended command that another process holds open."""
_REFUSALS = {errno.ENOENT: "not found", errno.EACCES: "permission denied"}


class KeeperLoop(Protocol):
    """What a command needs of the keeper's loop.

    Attributes:
        selector: Its data are functions without arguments.
    """

    answers: Answers
    selector: selectors.BaseSelector

    def call_soon(self, action: Callable[[], None]) -> None:
        """Calls it in the loop; from any thread."""
        ...


class StartedCommand:
    """A started command. All methods but `_start` run in the loop.

    Args:
        loop: The keeper's.
        number: The request's.
        request: Its header.

    Attributes:
        due_s: When `look` has something to do even if nothing happens (monotonic seconds).
        has_ended: Whether it has ended and all was said.
    """

    def __init__(self, loop: KeeperLoop, number: int, request: dict[str, Any]) -> None:
        self._loop, self._number, self._request = loop, number, request
        self._process: subprocess.Popen[bytes] | None = None
        self._input: int | None = None
        self._waiting = bytearray()
        self._consumed = Consumed()
        self._outputs: dict[str, int] = {}
        self._room = {"out": WINDOW_BYTES, "err": WINDOW_BYTES}
        self._takes_input = bool(request["has_input"])
        self._is_dropped = False
        self._is_killed = False
        self._has_exited = False
        self._is_said = False
        self.has_ended = False
        limit_s = request["limit_s"]
        self.has_limit = limit_s is not None
        self.due_s: float | None = time.monotonic() + limit_s if self.has_limit else None
        threading.Thread(target=self._start, daemon=True).start()

    @property
    def is_on_its_own(self) -> bool:
        """Whether it has closed its output and goes on, as a detached program does."""
        return self._process is not None and not self._outputs and not self._is_dropped

    def _start(self) -> None:
        """In a thread, which also waits for its end: the program can be on a disk that hangs."""
        request = self._request
        try:
            added = {path_bytes(name): path_bytes(text) for name, text in request["env"].items()}
            process = subprocess.Popen(
                [path_bytes(word) for word in request["words"]],
                stdin=subprocess.PIPE if self._takes_input else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env={**os.environb, **added},
                cwd=path_bytes(request["directory"]) if request["directory"] else None,
            )
        except (OSError, ValueError) as error:
            refusal = error
            self._loop.call_soon(lambda: self._not_started(refusal))
            return
        self._loop.call_soon(lambda: self._started(process))
        with contextlib.suppress(ChildProcessError):  # the loop has noticed it first
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self._loop.call_soon(self.look)

    def _not_started(self, error: Exception) -> None:
        """Says it as a shell does."""
        number = getattr(error, "errno", None) or 0
        name = os.fsdecode(getattr(error, "filename", None) or self._request["words"][0])
        text = _REFUSALS.get(number) or getattr(error, "strerror", None) or str(error)
        said = f"{name}: {text}\n".encode("utf-8", "backslashreplace")
        self._loop.answers.send(self._number, "err", said)
        self._end(127 if number == errno.ENOENT else 126)

    def _started(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        for name, file in (("out", process.stdout), ("err", process.stderr)):
            assert file is not None
            self._outputs[name] = os.dup(file.fileno())
            file.close()
            self._watch(name)
        if process.stdin is not None:
            self._input = os.dup(process.stdin.fileno())
            process.stdin.close()
            os.set_blocking(self._input, False)
            self._write()
        if self._is_killed:
            self.kill()
        if self._is_dropped:
            self.drop()
        self.look()

    def handle(self, op: str, header: dict[str, Any], body: bytes) -> None:
        """Takes a later frame of the request."""
        if op == "in":
            self._waiting += body
            self._write()
        elif op == "end":
            self._takes_input = False
            self._write()
        elif op == "more":
            self._room[header["of"]] += header["num_bytes"]
            self._watch(header["of"])
        elif op == "kill":
            self.kill()
        elif op == "close":
            self.drop()

    def kill(self) -> None:
        """Kills it and the processes of its session's first group."""
        self._is_killed = True
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def drop(self) -> None:
        """Closes all its streams: nobody reads or writes them any more."""
        self._is_dropped = True
        self._close_input()
        for name in list(self._outputs):
            self._close_output(name)

    def look(self) -> None:
        """Notices its end, and the end of its time."""
        now_s = time.monotonic()
        is_due = self.due_s is not None and now_s >= self.due_s
        if self._process is None or self._process.poll() is None:
            if is_due:
                self.due_s = None
                self.kill()
                self.drop()
                self._say_end(-1, is_overdue=True)
            return
        if self._outputs and not self._has_exited:
            self._has_exited = True
            self.due_s = now_s + LINGER_S
        elif self._outputs and is_due:
            self.drop()
        if not self._outputs:
            self._end(self._process.returncode)

    def _end(self, code: int) -> None:
        self.due_s = None
        self._close_input()
        self._say_end(code, is_overdue=False)
        self.has_ended = True

    def _say_end(self, code: int, *, is_overdue: bool) -> None:
        if not self._is_said:
            self._is_said = True
            self._loop.answers.send(self._number, "done", code=code, is_overdue=is_overdue)

    def _watch(self, name: str) -> None:
        """Waits for output if there is room for it."""
        fd = self._outputs.get(name)
        if fd is None:
            return
        is_watched = fd in self._loop.selector.get_map()
        if self._room[name] > 0 and not is_watched:
            self._loop.selector.register(fd, selectors.EVENT_READ, lambda: self._read(name))
        elif self._room[name] <= 0 and is_watched:
            self._loop.selector.unregister(fd)

    def _read(self, name: str) -> None:
        if name not in self._outputs:
            return  # closed by an event of the same moment
        data = os.read(self._outputs[name], min(CHUNK_BYTES, self._room[name]))
        if data:
            self._room[name] -= len(data)
            self._loop.answers.send(self._number, name, data)
            self._watch(name)
        else:
            self._close_output(name)
            self.look()

    def _close_output(self, name: str) -> None:
        fd = self._outputs.pop(name)
        if fd in self._loop.selector.get_map():
            self._loop.selector.unregister(fd)
        os.close(fd)
        self._loop.answers.send(self._number, "eof", of=name)

    def _write(self) -> None:
        """Gives it what it takes at once of its input; the rest when it reads again."""
        if self._input is None:
            self._consume(len(self._waiting) if self._process is not None else 0)
            return
        try:
            while self._waiting:
                self._consume(os.write(self._input, self._waiting[:CHUNK_BYTES]))
        except BlockingIOError:
            self._watch_input()
        except OSError:
            self._close_input()
        else:
            self._watch_input()
            if not self._takes_input:
                self._close_input()

    def _consume(self, num_bytes: int) -> None:
        del self._waiting[:num_bytes]
        if num_bytes := self._consumed.add(num_bytes):
            self._loop.answers.send(self._number, "more", of="in", num_bytes=num_bytes)

    def _watch_input(self) -> None:
        assert self._input is not None
        is_watched = self._input in self._loop.selector.get_map()
        if self._waiting and not is_watched:
            self._loop.selector.register(self._input, selectors.EVENT_WRITE, self._write)
        elif is_watched and not self._waiting:
            self._loop.selector.unregister(self._input)

    def _close_input(self) -> None:
        if self._input is not None:
            if self._input in self._loop.selector.get_map():
                self._loop.selector.unregister(self._input)
            os.close(self._input)
            self._input = None
            self._loop.answers.send(self._number, "eof", of="in")
        self._consume(len(self._waiting))
