"""Rings on real ports of this host."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from engine.wire.keys import Keyring, make_keyrings
from engine.wire.learner_ring import LearnerRing, RingSeat
from engine.wire.socket_factory import Link

LOOPBACK = "127.0.0.1"


def ring_seats(count: int) -> tuple[list[RingSeat], dict[str, Keyring]]:
    """The places of a ring on free ports, and keys of `worker-0` to the last."""
    with ExitStack() as held:
        servers = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        endpoints = [f"tcp://{LOOPBACK}:{server.getsockname()[1]}" for server in servers]
    names = [f"worker-{position}" for position in range(count)]
    seats = [
        RingSeat(
            position=position,
            count=count,
            bind=endpoints[position],
            left=names[position - 1],
            right=Link(
                peer=names[(position + 1) % count], endpoint=endpoints[(position + 1) % count]
            ),
            hosts={name: f"host-{name[-1]}" for name in names},
        )
        for position in range(count)
    ]
    return seats, make_keyrings(names)


def member_of(
    seats: list[RingSeat],
    keyrings: dict[str, Keyring],
    position: int,
    kind: type[LearnerRing] = LearnerRing,
) -> LearnerRing:
    """One member; returns once all are there."""
    name = f"worker-{position}"
    return kind(seats[position], name, keyrings[name])
