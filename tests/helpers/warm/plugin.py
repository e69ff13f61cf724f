"""TianJi's processes start in milliseconds in ordinary tests: as forks with read libraries.

A new interpreter takes two seconds of processor time for the libraries of a run, more than most
tests need for what they are about. Slow tests and those on real hosts, and tests with the marker
`cold`, which are about starting itself, start every process anew.
"""

from __future__ import annotations

import atexit
import ctypes
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from tests.helpers.warm import forking, server
from tests.helpers.warm.start import ROOM_BYTES, ROOT, WORDS_BYTES, Start

_PR_SET_CHILD_SUBREAPER = 36
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_COLD_MARKS = ("cold", "slow", "lab", "matrix")


class _Server:
    """A worker of pytest-xdist has its own from its start, others get one at the first need.

    Attributes:
        is_wanted: Whether the present test may have forks.
        tests: Paths of what is run.
    """

    def __init__(self) -> None:
        self._asking = server.inherited
        self._lock = threading.Lock()
        self.is_wanted = True
        self.tests: list[str] = []

    def fork(self, start: Start, descriptors: list[int]) -> int | None:
        """The pid of a child of this process that is what is asked for."""
        if not self.is_wanted:
            return None
        with self._lock:
            if self._asking is None:
                self._asking = _start_server(self.tests)
            message = json.dumps(dataclasses.asdict(start)).encode()
            _adopt(True)
            try:
                socket.send_fds(self._asking, [message], descriptors)
                return int(self._asking.recv(20))
            finally:
                _adopt(False)


def _adopt(is_wanted: bool) -> None:
    """Whether orphans among this process's descendants become its children."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(is_wanted), 0, 0, 0)


def _start_server(tests: Sequence[str]) -> socket.socket:
    own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = [str(its.fileno()), json.dumps(tests), "x" * WORDS_BYTES]
    env = {**os.environ, **_ONE_THREAD, "ROOM": "x" * ROOM_BYTES}
    env.pop("PYTHONPATH", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.warm.server", *words],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        pass_fds=(its.fileno(),),
    )
    its.close()
    atexit.register(process.wait)
    atexit.register(own.close)
    own.recv(1)  # it is ready
    return own


_server = _Server()


def pytest_configure(config: pytest.Config) -> None:
    _server.tests = [path.partition("::")[0] for path in config.args]
    if sys.platform == "linux":
        forking.lead(_server.fork, dict(os.environ))


def pytest_unconfigure() -> None:
    forking.stop_leading()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _server.is_wanted = not any(item.get_closest_marker(mark) for mark in _COLD_MARKS)
