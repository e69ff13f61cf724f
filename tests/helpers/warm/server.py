"""The process from which tests fork TianJi: `python -m tests.helpers.warm.server FD TESTS ROOM`.

It has read all libraries, runs nothing itself, and has one thread. `TESTS` are the paths of what
workers will run, if there will be any. `ROOM`, and a variable of that name, only keep memory for
the words and variables of its forks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence

from tests.helpers.warm.caches import fill_caches
from tests.helpers.warm.child import await_parent
from tests.helpers.warm.forking import run
from tests.helpers.warm.libraries import read_all, read_for
from tests.helpers.warm.start import Start

MESSAGE_BYTES = 1 << 17
MOST_DESCRIPTORS = 200

inherited: socket.socket | None = None
"""Leads to a server that a process has left when it became what it is."""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asking = socket.socket(fileno=int(sys.argv[1]))
    read_all()
    asking.send(b"!")
    serve(asking, json.loads(sys.argv[2]))


def serve(asking: socket.socket, tests: Sequence[str] = ()) -> None:
    """Forks what is asked for until nobody can ask any more.

    Args:
        asking: Requests come from there.
        tests: Paths of what workers will run.
    """
    while True:
        message, descriptors, _, _ = socket.recv_fds(asking, MESSAGE_BYTES, MOST_DESCRIPTORS)
        if not message:
            return
        asked = json.loads(message)
        start = Start(**{**asked, "descriptors": tuple(asked["descriptors"])})
        read_for(start)
        if start.kind == "worker":
            fill_caches(tests, start)
        child = _orphan(start, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        asking.send(str(child).encode())


def _orphan(start: Start, descriptors: list[int]) -> int:
    """Forks it as a grandchild, whose parent is gone: it goes to who asked, the next subreaper."""
    reading, writing = os.pipe()
    between = os.fork()
    if between == 0:
        child = os.fork()
        if child == 0:
            await_parent(start.parent)
            run(start, descriptors)
        os.write(writing, str(child).encode())
        os._exit(0)
    os.close(writing)
    child = int(os.read(reading, 20))
    os.close(reading)
    os.waitpid(between, 0)
    return child


if __name__ == "__main__":
    main()
