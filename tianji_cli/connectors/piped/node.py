"""A host whose commands and files go through a keeper there, however that was started."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from engine.errors import DeadlineError, HostUnreachableError, PreflightError
from tianji_cli.connectors.base import MAX_DEPTH, MAX_FILES, AccessFacts, Completed
from tianji_cli.connectors.keeper.frames import CHUNK_BYTES, PUT_WINDOW_BYTES, WINDOW_BYTES
from tianji_cli.connectors.piped.call import Call
from tianji_cli.connectors.piped.channel import SILENCE_S
from tianji_cli.connectors.piped.connection import PipedConnection
from tianji_cli.connectors.piped.link import KeeperLink

GRACE_S = 10.0
"""A keeper says this much later at most that a command has taken too long."""
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


class PipedNode:
    """A host with a keeper, which is started when it is needed first.

    Args:
        name: In the inventory.
        start: Starts the keeper; see `start_keeper`.
        access: The connection.
        is_remote: Whether files must be copied there and back.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], KeeperLink],
        access: AccessFacts,
        *,
        is_remote: bool = True,
    ) -> None:
        self.name = name
        self.is_remote = is_remote
        self.access = access
        self._start = start
        self._link: KeeperLink | None = None
        self._starting = threading.Lock()
        self._is_closed = False
        self._connections: list[PipedConnection] = []

    @property
    def link(self) -> KeeperLink:
        """The keeper, started if it was not yet.

        Raises:
            HostUnreachableError: The node is closed, or what `start` raises.
        """
        with self._starting:
            if self._link is None:
                if self._is_closed:
                    raise HostUnreachableError("the connection was closed", where=self.name)
                self._link = self._start()
            return self._link

    def expand(self, path: str) -> str:
        home = str(self.link.facts["home"])
        if path == "~" or path.startswith("~/"):
            return home + path[1:]
        return path if path.startswith("/") else f"{home}/{path}"

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        said = {"out": bytearray(), "err": bytearray()}
        request = _command(command, {}, None, has_input=False, limit_s=timeout_s)
        with self._asked("spawn", request) as call:
            for header, body in call.frames(timeout_s + GRACE_S):
                if body:
                    said[header["op"]] += body
        if header["is_overdue"]:
            raise DeadlineError(f"{command[0]} took longer than {timeout_s:.0f} s", where=self.name)
        out, err = (said[name].decode("utf-8", "replace") for name in ("out", "err"))
        return Completed(max(int(header["code"]), -1), out, err)

    def spawn(
        self, command: Sequence[str], env: Mapping[str, str], directory: str | None = None
    ) -> PipedConnection:
        request = _command(command, env, directory, has_input=True, limit_s=None)
        call = self.link.call("spawn", request)
        connection = PipedConnection(self.name, call)
        self._connections.append(connection)
        return connection

    def put(self, path: str, data: bytes) -> None:
        with self._asked("put", {"path": path}, PUT_WINDOW_BYTES) as call:
            view = memoryview(data)
            while view and call.give(bytes(view[:CHUNK_BYTES]), SILENCE_S):
                view = view[CHUNK_BYTES:]
            call.say("end")
            self._end_of(call, path)

    def exists(self, path: str) -> bool:
        with self._asked("exists", {"path": path}) as call:
            return bool(self._end_of(call, path)["is_there"])

    def read(self, path: str, offset: int = 0, max_bytes: int = -1) -> bytes:
        request = {"path": path, "offset": offset, "max_bytes": max_bytes}
        return self._contents("read", path, request, max_bytes) or b""

    def walk(self, root: str) -> dict[str, int]:
        request = {"path": root, "max_depth": MAX_DEPTH, "max_files": MAX_FILES}
        listed = (self._contents("walk", root, request) or b"").decode("utf-8", "surrogateescape")
        rows = [entry.partition(" ") for entry in listed.split("\0") if entry]
        if not all(size.isdecimal() for size, _, _ in rows):
            raise self.link.unreachable("it lists files as no keeper does")
        return {name: int(size) for size, _, name in rows}

    def close(self) -> None:
        self._is_closed = True
        for connection in self._connections:
            connection.close()
        if self._link is not None:
            self._link.close()

    def _contents(
        self, op: str, path: str, request: Mapping[str, object], max_bytes: int = -1
    ) -> bytes | None:
        """What is said in answer to a request; None if there is no such file.

        Raises:
            HostUnreachableError: The connection broke, or more comes than was asked for.
        """
        data = bytearray()
        header: Mapping[str, object] = {}
        with self._asked(op, request) as call:
            for header, body in call.frames(SILENCE_S):  # noqa: B007 - the last one counts
                data += body
                if 0 <= max_bytes < len(data):
                    raise self.link.unreachable("it sends more than was asked for")
        if header.get("error") in _NOT_THERE:
            return None
        self._check(header, path)
        return bytes(data)

    def _end_of(self, call: Call, path: str) -> Mapping[str, object]:
        """What `done` says of a request about a file."""
        *_, (header, _) = call.frames(SILENCE_S)
        self._check(header, path)
        return header

    def _check(self, header: Mapping[str, object], path: str) -> None:
        if "error" in header:
            raise PreflightError(
                f"{path}: {header['text']}",
                where=self.name,
                fix="give another `workdir:`, or permissions there",
            )

    @contextmanager
    def _asked(
        self, op: str, request: Mapping[str, object], window: int = WINDOW_BYTES
    ) -> Iterator[Call]:
        """A request; it is broken off if its answer is not awaited."""
        call = self.link.call(op, request, window)
        try:
            yield call
        except BaseException:
            call.abandon()
            raise


def _command(
    words: Sequence[str],
    env: Mapping[str, str],
    directory: str | None,
    *,
    has_input: bool,
    limit_s: float | None,
) -> dict[str, object]:
    return {
        "words": list(words),
        "env": dict(env),
        "directory": directory,
        "has_input": has_input,
        "limit_s": limit_s,
    }
