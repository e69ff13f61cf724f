"""Stands for the driver of a Ray cluster: programs are started here, without any cluster.

What it does is in `$FAKE_RAY`: `run`, `refuse`, `silent`, `die`; the order goes to `$FAKE_RAY_LOG`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import msgspec

from tianji_cli.connectors.ray_cluster.orders import (
    DriverFailed,
    Order,
    Placed,
    Report,
    StreamEnded,
)

EXCUSE = "the head fell over"


def say(report: Report) -> None:
    os.write(1, msgspec.json.encode(report) + b"\n")


def carry(number: int, fd: int) -> None:
    near = socket.socket(fileno=fd)
    with near.makefile("rb", buffering=0) as lines:
        line = lines.readline()
    if line:
        words = [sys.executable, *msgspec.json.decode(line)]
        done = subprocess.run(words, stdin=near, stdout=near, stderr=subprocess.PIPE, check=False)
        say(StreamEnded(number=number, words=done.stderr.decode()))
    near.shutdown(socket.SHUT_RDWR)


def main() -> None:
    line = sys.stdin.buffer.readline()
    order = msgspec.json.decode(line, type=Order)
    with open(os.environ["FAKE_RAY_LOG"], "ab") as log:
        log.write(line)
    part = os.environ["FAKE_RAY"]
    if part == "refuse":
        say(DriverFailed(kind="PreflightError", what="no token", fix="get one"))
        return
    if part == "die":
        sys.exit(EXCUSE)
    if part == "silent":
        sys.stdin.buffer.read()
        return
    say(Placed(addresses=tuple(f"192.0.2.{10 + n}" for n in range(len(order.reservations)))))
    relays = [
        threading.Thread(target=carry, args=(number, fd), daemon=True)
        for number, fd in enumerate(order.sockets)
    ]
    for relay in relays:
        relay.start()
    for relay in relays:
        relay.join()


if __name__ == "__main__":
    main()
