"""Adds up vectors over a ring of processes: the gradients of learners on several hosts.

Every member sends to its right neighbour and receives from its left one. A long vector is cut into
one part per member. In the first half a part travels around once and every member adds its own
values; in the second half the sums travel around and replace what every member has. Each part is
cut into pieces, and a piece is passed on as soon as it was added to, so that members add, seal
and send different pieces at the same time. Short vectors all travel around as they are, which takes
half as many steps.

Every element is added up by one member, or by all of them in the same order. So all members get the
same bits.

The sockets are the project's own (sealed messages, heartbeats), with a context of their own:
gradients do not wait behind weights and rollouts, nor these behind gradients. Only the left
neighbour is admitted. A connection that breaks could have lost a piece, so it breaks the ring; the
member on its left side notices.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt
import zmq
from zmq.utils.monitor import recv_monitor_message

from engine.errors import RunFailedError, WireError
from engine.wire.header import Buffer
from engine.wire.keys import Keyring
from engine.wire.socket_factory import LINGER_MS, Link, SocketFactory, seals_of

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

PIECE_BYTES = 2**18
"""Smaller pieces cost more calls than they overlap, larger ones overlap less."""
SHORT_BYTES = 2**15
"""Up to this size the number of steps matters more than the number of bytes; PyZMQ copies them."""
IO_THREADS = 2
"""One sends while the other receives."""
MAX_WAITING_BYTES = 2**32
"""Of pieces that may wait to be received: more than any vector has that is added up here."""
MEET_S = 600.0
"""Time-out for the other members to reach a sum; one that is gone is noticed long before."""
LAST_PIECES_S = 1.0
"""Time for what a neighbour sent before its connection closed: at the end of a run, the sum that it
has already; otherwise its own host reports its death first, with the cause."""
MAX_SAID = 20
"""Refusals that are logged, of one ring."""
_NUMBER = struct.Struct("<Q")
RING = b"ring".ljust(16)
"""The connection that all pieces are sealed for: a member has one life."""

Vector = npt.NDArray[np.generic]


class RingSeat(msgspec.Struct, frozen=True, kw_only=True):
    """The place of one process in a ring.

    Attributes:
        position, count: Its number among all.
        bind: Endpoint at which its left neighbour reaches it.
        left: The process on its left.
        right: How it reaches the one on its right.
        hosts: Of both neighbours, for errors.
    """

    position: int
    count: int
    bind: str
    left: str
    right: Link
    hosts: dict[str, str]

    def name_of(self, process: str) -> str:
        """A neighbour in errors."""
        return f"{process} on {self.hosts[process]}"


class _RingSockets(SocketFactory):
    """What is sent has no limit, and what is received a large one, since no member can send more of
    a sum than one vector before it needs an answer; with a small one, a member that computes for a
    while would not answer heartbeats."""

    high_water_mark = 0
    heartbeat_ms = 1_000
    heartbeat_timeout_ms = 6_000


class LearnerRing:
    """One member. Calls return when every member has made them, with vectors of equal size.

    Args:
        seat: Its place.
        address: Its own name.
        keyring: Its keys, and those of its neighbours.
        listener: A descriptor that already listens at `seat.bind`.

    Raises:
        RunFailedError: Of all calls: a neighbour is gone, or has sent nothing for too long.
        PreflightError: The endpoint is taken.
    """

    factory: type[SocketFactory] = _RingSockets

    def __init__(
        self, seat: RingSeat, address: str, keyring: Keyring, listener: int | None = None
    ) -> None:
        self._seat = seat
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(IO_THREADS)
        self._authenticator: ThreadAuthenticator | None = None
        self._sent = self._received = 0
        self._broken_at_s: float | None = None
        self._num_refused = 0
        try:
            self._seals = seals_of(address, keyring)
            factory = self.factory(address, PIECE_BYTES, self._context, self._seals)
            self._authenticator = factory.start_authenticator(seat.bind, (seat.left,))
            factory.high_water_mark = MAX_WAITING_BYTES // PIECE_BYTES
            self._left = factory.bind(seat.bind, listener, zmq.PULL)
            factory.high_water_mark = 0
            self._right = factory.connect(seat.right, zmq.PUSH)
            self._monitor = self._right.get_monitor_socket(
                zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
            )
            self._poller = zmq.Poller()
            self._poller.register(self._left, zmq.POLLIN)
            self._poller.register(self._monitor, zmq.POLLIN)
            self._is_met = False
            self._meet()
        except BaseException:
            self.close(linger_ms=0)
            raise

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Leaves the ring; what was sent is flushed for at most `linger_ms`."""
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.destroy(linger_ms)

    def add_up(self, values: Vector) -> None:
        """Replaces a contiguous array, of any shape and numeric type, by the sum over all."""
        flat = values.reshape(-1)
        assert np.shares_memory(flat, values), "it must be contiguous"
        if flat.nbytes <= SHORT_BYTES:
            self._add_up_short(flat)
        else:
            self._add_up_long(flat)

    def _meet(self) -> None:
        """Waits for all. Attempts to connect may fail until then; afterwards nothing may."""
        self._add_up_short(np.zeros(1, np.int64))
        self._look_at_connection()
        self._is_met = True

    def _add_up_short(self, flat: Vector) -> None:
        own, count = self._seat.position, self._seat.count
        held = {own: flat.copy()}
        self._send(flat)
        for step in range(1, count):
            frame = self._receive(flat.nbytes)
            if step < count - 1:
                self._pass_on(frame)
            held[(own - step) % count] = np.frombuffer(frame, flat.dtype)
        flat[:] = held[0]
        for position in range(1, count):
            np.add(flat, held[position], out=flat)

    def _add_up_long(self, flat: Vector) -> None:
        own, count = self._seat.position, self._seat.count
        for piece in pieces_of(flat, own, count):
            self._send(piece)
        for step in range(1, count):
            for piece in pieces_of(flat, own - step, count):
                added = np.add(self._receive_values(piece), piece)
                self._send(added)
                if step == count - 1:  # it is complete; other sums come in the second half
                    piece[:] = added
        for step in range(count - 1):
            for piece in pieces_of(flat, own - step, count):
                frame = self._receive(piece.nbytes)
                if step < count - 2:
                    self._pass_on(frame)
                piece[:] = np.frombuffer(frame, piece.dtype)

    def _receive_values(self, like: Vector) -> Vector:
        return np.frombuffer(self._receive(like.nbytes), like.dtype)

    def _send(self, piece: Vector) -> None:
        """Sends to the right."""
        self._pass_on(piece.data.cast("B"))

    def _pass_on(self, piece: Buffer) -> None:
        frames = (_NUMBER.pack(self._sent), piece)
        sealed = self._seals.seal(self._seat.right.peer, RING, frames)
        self._right.send_multipart(sealed, copy=False)
        self._sent += 1

    def _receive(self, num_bytes: int) -> Buffer:
        """The next piece from the left."""
        while (frames := self._take()) is None:
            self._wait()
        due = _NUMBER.pack(self._received)
        if len(frames) != 2 or bytes(frames[0]) != due or len(frames[1]) != num_bytes:
            raise self._failure(self._seat.left, "has sent something else than was due")
        self._received += 1
        return frames[1]

    def _take(self) -> list[Buffer] | None:
        """What the left neighbour has sealed next; None if it has not arrived."""
        try:
            parts = self._left.recv_multipart(zmq.DONTWAIT, copy=False)
            return self._seals.open(self._seat.left, RING, [part.buffer for part in parts])
        except zmq.Again:
            return None
        except WireError as error:
            self._refuse(error)
            return None

    def _refuse(self, error: WireError) -> None:
        """Whoever has listened can say this; what the neighbour sends stays due."""
        if self._num_refused < MAX_SAID:
            name = self._seat.name_of(self._seat.left)
            print(f"refused a piece in the name of {name}: {error}", file=sys.stderr, flush=True)
        self._num_refused += 1

    def _wait(self) -> None:
        """Waits for something from the left, or for news of the connection to the right."""
        limit_s = MEET_S
        if self._broken_at_s is not None:
            limit_s = self._broken_at_s + LAST_PIECES_S - time.monotonic()
        ready = dict(self._poller.poll(max(0, round(limit_s * 1000))))
        if self._monitor in ready:
            self._look_at_connection()
        elif not ready:
            if self._broken_at_s is not None:
                raise self._failure(self._seat.right.peer, "is gone")
            raise self._failure(self._seat.left, f"has sent nothing for {MEET_S:.0f} s")

    def _look_at_connection(self) -> None:
        """A connection that broke does not heal by being made again: a piece can be lost."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            is_broken = self._is_met and event != zmq.EVENT_HANDSHAKE_SUCCEEDED
            if is_broken and self._broken_at_s is None:
                self._broken_at_s = time.monotonic()

    def _failure(self, process: str, words: str) -> RunFailedError:
        return RunFailedError(
            f"the ring of learners is broken: {self._seat.name_of(process)} {words}"
        )


def pieces_of(flat: Vector, part: int, count: int) -> Iterator[Vector]:
    """Views of the pieces of one of `count` parts of a vector; `part` counts around the ring.

    >>> [piece.tolist() for piece in pieces_of(np.arange(5), -1, 2)]
    [[3, 4]]
    """
    part %= count
    each, extra = divmod(len(flat), count)
    first = part * each + min(part, extra)
    end = first + each + (part < extra)
    step = max(1, PIECE_BYTES // flat.itemsize)
    return (flat[at : min(at + step, end)] for at in range(first, end, step))
