"""The two ends of a method, and the control channel between a receiver and its senders.

A message: number (8 bytes) or time stamp, sender (8 bytes), then bytes that are random by sender.

Works with Python 3.7 and NumPy 1.17; knows nothing of TianJi.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from typing import Any

import numpy as np

STAMP_BYTES = 8
HEAD_BYTES = 16
PATIENCE_S = 60.0
NUMBER = np.dtype("<i8")


def pattern(sender: int, size_bytes: int) -> np.ndarray:
    """What this sender sends, [size_bytes] uint8; the number is left zero."""
    raw = np.random.RandomState(sender + 1).bytes(size_bytes - HEAD_BYTES)
    message = np.zeros(size_bytes, np.uint8)
    message[HEAD_BYTES:] = np.frombuffer(raw, np.uint8)
    message[STAMP_BYTES:HEAD_BYTES].view(NUMBER)[0] = sender
    return message


class Ends:
    """One way to transmit messages of one size.

    Made in the receiver; forked senders inherit it, others make their own.

    Args:
        job: What is to be measured; see `Job` in `tianji_cli.bench.transport.methods`.
        size_bytes: Of a message.
    """

    forks = True
    """Whether senders are forks of the receiver; otherwise they connect by themselves."""
    is_pulled = False
    """Whether `receive` also makes the senders send."""

    def __init__(self, job: dict[str, Any], size_bytes: int) -> None:
        self.job = job
        self.size_bytes = size_bytes
        self.senders = int(job["senders"])

    def open_receiver(self) -> None:
        """In the receiver, after forking, before any sender opens."""

    def open_sender(self, index: int) -> None:
        """In a sender."""

    def send(self, source: np.ndarray, count: int) -> None:
        """Writes `source` into memory that is sent from, and sends it, so many times."""
        raise NotImplementedError

    def receive(self, target: np.ndarray, count: int) -> None:
        """Receives so many messages from any sender, each copied to `target`."""
        raise NotImplementedError

    def pull_stamped(self, target: np.ndarray) -> None:
        """If pulled: sends one message that carries its start time."""
        raise NotImplementedError

    def close(self) -> None:
        """At the end of either end."""


class Line:
    """JSON lines over a stream socket, between the receiver and one sender."""

    def __init__(self, stream: socket.socket) -> None:
        stream.settimeout(PATIENCE_S)
        self._stream = stream
        self._reader = stream.makefile("rb")

    def say(self, **words: Any) -> None:  # noqa: ANN401 - JSON
        self._stream.sendall(json.dumps(words).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        """Raises EOFError if the other end is gone."""
        line = self._reader.readline()
        if not line:
            raise EOFError("the other end is gone")
        words: dict[str, Any] = json.loads(line.decode())
        return words

    def close(self) -> None:
        self._reader.close()
        self._stream.close()


class Workers:
    """The senders of one size, as the receiver sees them.

    Args:
        ends: Of this size.
        server: Where senders call.
    """

    def __init__(self, ends: Ends, server: socket.socket) -> None:
        self._lines: list[Line] = []
        self._pids: list[int] = []
        self._server = server
        if ends.forks:
            self._fork(ends)

    def _fork(self, ends: Ends) -> None:
        own = os.getpid()
        for index in range(ends.senders):
            pid = os.fork()
            if pid == 0:
                self._server.close()
                _be_sender(ends, index, own)
            self._pids.append(pid)

    def gather(self, ends: Ends) -> None:
        """Waits until every sender has connected and is open."""
        self._server.settimeout(PATIENCE_S)
        self._lines = [Line(self._server.accept()[0]) for _ in range(ends.senders)]
        for line in self._lines:
            line.hear()

    def tell(self, **words: Any) -> None:  # noqa: ANN401 - JSON
        for line in self._lines:
            line.say(**words)

    def tell_first(self, **words: Any) -> None:  # noqa: ANN401 - JSON
        self._lines[0].say(**words)

    def dismiss(self) -> None:
        """Ends all senders, and waits for those that were forked."""
        self.tell(op="end")
        for line in self._lines:
            line.close()
        for pid in self._pids:
            _, status = os.waitpid(pid, 0)
            if status != 0:
                raise RuntimeError(f"a sender ended with status {status}")


def serve(ends: Ends, index: int) -> None:
    """The loop of a sender until it is dismissed."""
    line = Line(connect(ends.job["control"]))
    ends.open_sender(index)
    source = pattern(index, ends.size_bytes)
    number = source[:STAMP_BYTES].view(NUMBER)
    line.say(op="ready")
    while True:
        words = line.hear()
        if words["op"] == "end":
            break
        if words["op"] == "differ":
            for i in range(words["count"]):
                number[0] = i + 1
                ends.send(source, 1)
            number[0] = 0
        elif words["op"] == "stamp":
            number[0] = time.monotonic_ns()
            ends.send(source, 1)
        else:
            ends.send(source, words["count"])
    line.close()
    ends.close()


def _be_sender(ends: Ends, index: int, parent: int) -> None:
    """The rest of a forked sender's life."""
    status = 1
    try:
        die_with_parent()
        if os.getppid() != parent:
            raise RuntimeError("its parent is gone")
        serve(ends, index)
        status = 0
    except BaseException as error:  # noqa: BLE001 - said, and told by the status
        sys.stderr.write(f"sender {index}: {error!r}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


def listen(control: str) -> socket.socket:
    """Control lines: a path, or `address:port`."""
    if control.startswith("/"):
        if os.path.exists(control):
            os.unlink(control)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(control)
    else:
        address, port = _split(control)
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.socket(kind, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
    server.listen(64)
    return server


def connect(control: str) -> socket.socket:
    if control.startswith("/"):
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.connect(control)
        return stream
    return socket.create_connection(_split(control), PATIENCE_S)


def _split(control: str) -> tuple[str, int]:
    """Address and port of `address:port`, or of `[address]:port`."""
    address, _, port = control.rpartition(":")
    return address.strip("[]"), int(port)


def die_with_parent() -> None:
    """The kernel ends this process if its parent dies."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
