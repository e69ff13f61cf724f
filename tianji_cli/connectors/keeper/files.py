"""What a keeper does with files. Each request has its own thread, since a disk can hang."""

from __future__ import annotations

import errno
import itertools
import os
import queue
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tianji_cli.connectors.keeper.frames import (
    CHUNK_BYTES,
    WINDOW_BYTES,
    Answers,
    Consumed,
    path_bytes,
)


class Transfer:
    """A request for files that is under way.

    Args:
        answers: Takes what is said.
        number: The request's.
        request: Its header.
    """

    def __init__(self, answers: Answers, number: int, request: dict[str, Any]) -> None:
        self._answers, self._number, self.request = answers, number, request
        self._given: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = WINDOW_BYTES
        self._changed = threading.Condition()
        self._is_dropped = False

    def start(self, ended: Callable[[], None]) -> None:
        """Performs it in a thread, which then calls `ended`."""
        threading.Thread(target=self._perform, args=(ended,), daemon=True).start()

    def _perform(self, ended: Callable[[], None]) -> None:
        try:
            result = ACTIONS[self.request["op"]](self)
        except (OSError, ValueError) as error:
            self._answers.refuse(self._number, error)
        else:
            self._answers.send(self._number, "done", b"", **result)
        ended()

    def handle(self, op: str, header: dict[str, Any], body: bytes) -> None:
        """Takes a later frame of the request."""
        if op == "in":
            self._given.put(body)
            return
        with self._changed:
            self._is_dropped = self._is_dropped or op in ("close", "kill")
            self._room += header.get("num_bytes", 0)
            self._changed.notify()
        if op != "more":
            self._given.put(None)

    def send(self, data: bytes) -> None:
        """Says a chunk, once there is room for it.

        Raises:
            OSError: Nobody wants it any more.
        """
        with self._changed:
            while self._room <= 0 and not self._is_dropped:
                self._changed.wait()
            self._room -= len(data)
            self._check()
        self._answers.send(self._number, "out", data)

    def received(self) -> Iterator[bytes]:
        """The input, chunk by chunk.

        Raises:
            OSError: It was broken off.
        """
        consumed = Consumed()
        while (data := self._given.get()) is not None:
            yield data
            if num_bytes := consumed.add(len(data)):
                self._answers.send(self._number, "more", of="in", num_bytes=num_bytes)
        self._check()

    def _check(self) -> None:
        if self._is_dropped:
            raise OSError(errno.ECANCELED, "Broken off")


def _read(transfer: Transfer) -> dict[str, object]:
    request = transfer.request
    left = request["max_bytes"]
    # not a pipe, whose other end would be waited for
    fd = os.open(path_bytes(request["path"]), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        file.seek(request["offset"])
        while left:
            data = file.read(min(left, CHUNK_BYTES) if left > 0 else CHUNK_BYTES)
            if not data:
                break
            left -= len(data) if left > 0 else 0
            transfer.send(data)
    return {}


def _put(transfer: Transfer) -> dict[str, object]:
    with open(path_bytes(transfer.request["path"]), "wb", buffering=0) as file:
        for data in transfer.received():
            view = memoryview(data)
            while view:
                view = view[file.write(view) or 0 :]
    return {}


def _exists(transfer: Transfer) -> dict[str, object]:
    try:
        os.stat(path_bytes(transfer.request["path"]))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return {"is_there": False}
    return {"is_there": True}


def _walk(transfer: Transfer) -> dict[str, object]:
    request = transfer.request
    found = bytearray()
    files = _files(path_bytes(request["path"]), b"", request["max_depth"])
    for size, name in itertools.islice(files, request["max_files"]):
        found += b"%d %s\0" % (size, name)
        if len(found) >= CHUNK_BYTES:
            transfer.send(bytes(found))
            found.clear()
    transfer.send(bytes(found))
    return {}


def _files(root: bytes, prefix: bytes, depth: int) -> Iterator[tuple[int, bytes]]:
    """Sizes and names of the files in a directory and in those below it; links are left out.

    Args:
        depth: Of levels of directories.
    """
    below = []
    with os.scandir(os.path.join(root, prefix)) as entries:
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.stat(follow_symlinks=False).st_size, prefix + entry.name
            except FileNotFoundError:
                continue  # removed in the meantime
    for name in below if depth > 1 else ():
        try:
            yield from _files(root, b"%s%s/" % (prefix, name), depth - 1)
        except FileNotFoundError:
            continue


ACTIONS: dict[str, Callable[[Transfer], dict[str, object]]] = {
    "read": _read,
    "put": _put,
    "walk": _walk,
    "exists": _exists,
}
"""What is done for each request, in its thread; returns what `done` says."""
