"""TianJi's own channel: the arena and the sockets that runs use, with the messages that runs send.

Senders are actors that write rollouts and send `RolloutArrived`; the receiver is a buffer that
copies each out. A rollout of a run holds the trajectories of several environments; here it holds
several messages on one host, each written and read by itself, as far as they are to be sent at
once. There rollouts lie in the arena, and a sender that finds no free slot for a moment asks for a
ticket and sleeps until it has one. Between hosts they travel as frames over TCP, encrypted by the
keys of the job, and tickets are granted several at once: a ticket's number says how many rollouts
may have been sent.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import numpy as np
import zmq

from engine.errors import WireError
from engine.host.malloc import keep_freed_memory
from engine.messages import AnyMessage, RolloutArrived, TicketGranted, TicketRequested, index_of
from engine.rollout import Field, Layout, Rollout, RolloutInfo
from engine.wire.arena import Arena
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.frames import allocate_framed
from engine.wire.keys import Keyring
from engine.wire.shared_receiver import LINGER_S
from engine.wire.socket_factory import Link, SocketFactory
from engine.wire.sockets import Sockets, Wiring
from tianji_cli.bench.transport.programs.harness import play
from tianji_cli.bench.transport.programs.memory import num_slots
from tianji_cli.bench.transport.programs.workers import Ends

BUFFER = "buffer-0"
MAX_WAITING_BYTES = 64 * 2**20
"""Bytes of each sender that can be in transit between hosts."""
MAX_WAITING = 512
GRANTS = 16
"""So often while that much is sent the receiver says how much more may come: senders that get it
in small parts keep the link busy without a break."""
MAX_MESSAGES, ROLLOUT_BYTES = 64, 2**22
"""So many messages make a rollout, as far as they do not fill more than that."""


class PlainOpening(SocketFactory):
    """For measurement only: TCP without keys, which no run can have."""

    def _secure_server(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        """Nothing."""

    def _secure_client(self, socket: zmq.Socket[bytes], link: Link) -> None:
        """Its name, as on one host."""
        self._name_client(socket, link)

    def start_authenticator(self, endpoint: str, admitted: Collection[str] | None = None) -> None:
        """No key is required."""


class PlainSockets(Sockets):
    """Without keys."""

    factory = PlainOpening


class Channel(Ends):
    """Options of the job: none on one host; `endpoint`, `single_endpoint`, `plain` and `keyrings`
    between hosts."""

    def __init__(self, job: dict[str, Any], size_bytes: int) -> None:
        super().__init__(job, size_bytes)
        options = job["options"]
        endpoint = options.get("endpoint", f"ipc://{job['scratch']}/{BUFFER}")
        most = max(1, min(MAX_MESSAGES, ROLLOUT_BYTES // size_bytes))
        self._several = self._single = _Pipe(job, size_bytes, endpoint, most)
        if "single_endpoint" in options:
            # A frame is as long as its layout, so a message that travels alone has one of its own.
            self.forks = False
            self._single = _Pipe(job, size_bytes, options["single_endpoint"], 1)
        self._pipes = {self._several, self._single}

    def open_receiver(self) -> None:
        for pipe in self._pipes:
            pipe.open_receiver()

    def open_sender(self, index: int) -> None:
        for pipe in self._pipes:
            pipe.open_sender(index)

    def send(self, source: np.ndarray, count: int) -> None:
        (self._single if count == 1 else self._several).send(source, count)

    def receive(self, target: np.ndarray, count: int) -> None:
        (self._single if count == 1 else self._several).receive(target, count)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()


class _Pipe:
    """From all senders to the receiver, in rollouts of one layout.

    Args:
        job, size_bytes: See `Ends`.
        endpoint: Where the receiver is.
        most: So many messages make a rollout.
    """

    def __init__(self, job: dict[str, Any], size_bytes: int, endpoint: str, most: int) -> None:
        options = job["options"]
        self._size_bytes = size_bytes
        self._endpoint, self._most = endpoint, most
        self._layout = Layout((Field("data", "uint8"),), size_bytes, most)
        self._keyrings = msgspec.convert(options.get("keyrings", {}), dict[str, Keyring])
        self._sockets_type = PlainSockets if options.get("plain") else Sockets
        self._arena: Arena | None = None
        senders = int(job["senders"])
        if endpoint.startswith("ipc:"):
            self._window = num_slots(self._layout.num_bytes)
            self._arena = Arena(senders, self._window, self._layout.num_bytes)
        else:
            self._window = max(4, min(MAX_WAITING, MAX_WAITING_BYTES // self._layout.num_bytes))
        self._grants = max(1, self._window // GRANTS)
        self._taken = [0] * senders
        self._sent = 0
        self._granted = self._window

    def _open(self, address: str, wiring: Wiring) -> Sockets:
        codec = Codec(self._layout, WeightsLayout(4, 1), arena=self._arena)
        return self._sockets_type(address, wiring, codec)

    def open_receiver(self) -> None:
        self._sockets = self._open(
            BUFFER, Wiring(bind=self._endpoint, keyring=self._keyrings.get(BUFFER))
        )
        self._arrivals = self._arrive()

    def open_sender(self, index: int) -> None:
        self._index, self._actor = index, f"actor-{index}"
        wiring = Wiring(
            links=(Link(peer=BUFFER, endpoint=self._endpoint),),
            keyring=self._keyrings.get(self._actor),
            neighbours=frozenset({BUFFER} if self._arena else ()),
        )
        self._sockets = self._open(self._actor, wiring)

    def send(self, source: np.ndarray, count: int) -> None:
        while count:
            buffer = self._allocate()
            messages = self._messages(buffer, min(count, self._most))
            for message in messages:
                np.copyto(message, source)
            info = self._describe(len(messages))
            self._sockets.send(BUFFER, RolloutArrived(Rollout(info, buffer), 0))
            self._sent += 1
            count -= len(messages)

    def _messages(self, buffer: np.ndarray, count: int) -> np.ndarray:
        """The first messages of a rollout, [count, size_bytes]."""
        return buffer[: count * self._size_bytes].reshape(count, self._size_bytes)

    def _hear(self) -> None:
        """Waits for more tickets."""
        for _, message in self._sockets.receive(None):
            if isinstance(message, WireError):
                raise message
            assert isinstance(message, TicketGranted)
            self._granted = message.ticket

    def _allocate(self) -> np.ndarray:
        """Memory for a rollout, once another one can be in transit."""
        if self._arena is None:
            while self._sent >= self._granted:
                self._hear()
            return allocate_framed(self._layout.num_bytes)
        while (buffer := self._take(self._arena)) is None:
            self._sockets.send(BUFFER, TicketRequested(actor=self._actor, held_version=0))
            self._hear()
        return buffer

    def _take(self, arena: Arena) -> np.ndarray | None:
        """A slot, if one becomes free within a moment."""
        buffer = arena.take(self._index)
        if buffer is not None:
            return buffer
        deadline_s = time.perf_counter() + LINGER_S
        while buffer is None and time.perf_counter() < deadline_s:
            buffer = arena.take(self._index)
        return buffer

    def _describe(self, num_messages: int) -> RolloutInfo:
        return RolloutInfo(
            actor=self._index,
            epoch=0,
            sequence=self._sent,
            ticket=self._sent,
            version_min=0,
            version_max=0,
            num_env_steps=num_messages,
            total_env_steps=self._sent,
            start_s=0.0,
            end_s=0.0,
        )

    def receive(self, target: np.ndarray, count: int) -> None:
        left = count
        while left:
            message = next(self._arrivals)
            if isinstance(message, WireError):
                raise message
            if isinstance(message, TicketRequested):
                self._grant(index_of(message.actor))
            if not isinstance(message, RolloutArrived):
                continue
            info = message.info
            for one in self._messages(message.rollout.buffer, info.num_env_steps):
                np.copyto(target, one)
            left -= info.num_env_steps
            actor = info.actor
            del message, one  # which frees its slot
            self._taken[actor] += 1
            if self._arena is None and self._taken[actor] % self._grants == 0:
                self._grant(actor)

    def _arrive(self) -> Iterator[AnyMessage | WireError]:
        """Accepts every message; holds none back."""
        while True:
            yield from (item[1] for item in self._sockets.receive(None))

    def _grant(self, actor: int) -> None:
        """Called when everything that was taken is free again."""
        ticket = TicketGranted(ticket=self._taken[actor] + self._window, min_version=0)
        self._sockets.send(f"actor-{actor}", ticket)

    def close(self) -> None:
        self._sockets.close()


if __name__ == "__main__":
    keep_freed_memory()  # as every role does
    play(Channel)
