"""The driver: `python -P -m tianji_cli.connectors.ray_cluster.driver`.

Reads an `Order` from its standard input, says on its standard output what came of it, and then
carries bytes between the sockets that it inherited and the actors. It ends when all of these have
ended, or with its standard input: then nobody wants them any more. With it Ray ends the actors.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

import msgspec
import ray

from engine.errors import TianJiError
from engine.host.process import name_process
from tianji_cli.connectors.ray_cluster.carrier import CHUNK_BYTES
from tianji_cli.connectors.ray_cluster.identity import first_line
from tianji_cli.connectors.ray_cluster.joining import join
from tianji_cli.connectors.ray_cluster.orders import (
    DriverFailed,
    Order,
    Placed,
    Report,
    StreamEnded,
)
from tianji_cli.connectors.ray_cluster.placing import START_S, place

WORDS_S = 2.0
LEAVE_S = 5


class Driver:
    """All that is under way.

    Args:
        order: What was asked for.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._saying = threading.Lock()

    def run(self) -> None:
        """Joins the cluster and carries bytes until all of them have ended."""
        try:
            join(self._order.address, is_open=self._order.is_open)
            actors, addresses = place(self._order)
        except TianJiError as error:
            self._say(DriverFailed.of(error))
            return
        self._say(Placed(addresses=addresses))
        relays = [
            threading.Thread(target=self._carry, args=(number, actor, fd), daemon=True)
            for number, (actor, fd) in enumerate(zip(actors, self._order.sockets, strict=True))
        ]
        for relay in relays:
            relay.start()
        for relay in relays:
            relay.join()

    def _say(self, report: Report) -> None:
        with self._saying:
            os.write(1, msgspec.json.encode(report) + b"\n")

    def _carry(self, number: int, actor: Any, fd: int) -> None:  # noqa: ANN401 - a handle of Ray
        """What one actor does, up to its end."""
        near = socket.socket(fileno=fd)
        try:
            words = _relay(near, actor)
        except ray.exceptions.RayError as error:
            words = f"Ray lost its worker: {first_line(error)}"
        except OSError as error:
            words = f"nobody reads any more: {error}"
        self._say(StreamEnded(number=number, words=words))
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)
        ray.kill(actor)


def _relay(near: socket.socket, actor: Any) -> str:  # noqa: ANN401 - a handle of Ray
    """Starts an actor's program, and carries bytes until it ends.

    Returns:
        Its last words.
    """
    with near.makefile("rb", buffering=0) as lines:
        line = lines.readline()
    if not line:
        return ""
    ray.get(actor.start.remote(msgspec.json.decode(line, type=list[str])), timeout=START_S)
    threading.Thread(target=_feed, args=(near, actor), daemon=True).start()
    for reference in actor.output.options(num_returns="streaming").remote():
        near.sendall(ray.get(reference))
    return str(ray.get(actor.last_words.remote(), timeout=WORDS_S))


def _feed(near: socket.socket, actor: Any) -> None:  # noqa: ANN401 - a handle of Ray
    """One call at a time: so they stay in order, and a slow program makes its sender wait."""
    with contextlib.suppress(ray.exceptions.RayError, OSError):
        while data := near.recv(CHUNK_BYTES):
            ray.get(actor.write.remote(data))
        ray.get(actor.write.remote(b""))


def _leave() -> NoReturn:
    """Leaves the cluster, which ends all actors; without it, if it does not answer."""
    signal.alarm(LEAVE_S)  # whose default is to end the process, whatever Ray is doing
    ray.shutdown()
    os._exit(0)


def _leave_with_input() -> None:
    """The command is gone, or has what it wanted."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    _leave()


def main() -> None:
    """See the module's first lines."""
    name_process("tianji-ray")
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_leave_with_input, daemon=True).start()
    Driver(order).run()
    _leave()


if __name__ == "__main__":
    main()
