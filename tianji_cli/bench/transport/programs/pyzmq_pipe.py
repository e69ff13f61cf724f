"""Raw pyzmq: PUSH to PULL, copying or not, over a Unix socket or TCP, without encryption."""

from __future__ import annotations

import collections
import socket
from typing import Any

import numpy as np
import zmq

from tianji_cli.bench.transport.programs.harness import play
from tianji_cli.bench.transport.programs.workers import Ends

MAX_WAITING_BYTES = 64 * 2**20


class Pipe(Ends):
    """Options of the job: `transport` (`ipc` or `tcp`), `copy`; `endpoint` between hosts."""

    def __init__(self, job: dict[str, Any], size_bytes: int) -> None:
        super().__init__(job, size_bytes)
        options = job["options"]
        self._copies = bool(options["copy"])
        self._message = np.empty(size_bytes, np.uint8)
        self._on_their_way: collections.deque[tuple[np.ndarray, Any]] = collections.deque()
        self._mark = max(2, min(1000, MAX_WAITING_BYTES // size_bytes))
        if "endpoint" in options:
            self.forks = False
            self._endpoint = options["endpoint"]
        elif options["transport"] == "ipc":
            self._endpoint = "ipc://" + job["scratch"] + "/pipe"
        else:
            self._endpoint = f"tcp://127.0.0.1:{_free_port()}"

    def _socket(self, kind: int) -> Any:  # noqa: ANN401 - a socket of any pyzmq
        self._context = zmq.Context(1)
        made = self._context.socket(kind)
        made.set(zmq.LINGER, 10_000)
        made.set(zmq.IPV6, int("[" in self._endpoint))
        made.set(zmq.SNDHWM, self._mark)
        made.set(zmq.RCVHWM, self._mark)
        return made

    def open_receiver(self) -> None:
        self._pipe = self._socket(zmq.PULL)
        try:
            self._pipe.bind(self._endpoint)
        except zmq.ZMQError:
            self.close()  # else this process could not even end
            raise

    def open_sender(self, index: int) -> None:
        self._pipe = self._socket(zmq.PUSH)
        self._pipe.connect(self._endpoint)

    def send(self, source: np.ndarray, count: int) -> None:
        pipe = self._pipe
        if self._copies:
            for _ in range(count):
                np.copyto(self._message, source)
                pipe.send(self._message, copy=True)
            return
        for _ in range(count):
            message = self._free_message()
            np.copyto(message, source)
            self._on_their_way.append((message, pipe.send(message, copy=False, track=True)))

    def _free_message(self) -> np.ndarray:
        """Memory that was sent already, if there is any."""
        if self._on_their_way and self._on_their_way[0][1].done:
            message: np.ndarray = self._on_their_way.popleft()[0]
            return message
        return np.empty(self.size_bytes, np.uint8)

    def receive(self, target: np.ndarray, count: int) -> None:
        pipe, copies = self._pipe, self._copies
        for _ in range(count):
            message = pipe.recv(copy=copies)
            np.copyto(target, np.frombuffer(message if copies else message.buffer, np.uint8))

    def close(self) -> None:
        self._pipe.close()
        self._context.term()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    play(Pipe)
