"""Makes one actor a bad peer; imported through `modules: [sabotage]`, told how by $SABOTAGE.

After its rollouts 5, 10 and 15 the actor also sends what no actor would: real frames on its real
connection. What it did is in its log, so that a test can see that it happened.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import zmq

from engine.messages import AnyMessage, RolloutArrived
from engine.wire.header import HEADER_BYTES, Buffer
from engine.wire.sockets import Sockets

SABOTEUR = "actor-1"
OFFENCES = (5, 10, 15)
WORD = "sabotage:"

_send = Sockets.send
_first: list[list[bytes]] = []
_count = 0


def _flipped(frames: list[bytes], limit: int) -> list[bytes]:
    at = HEADER_BYTES // 2
    return [frames[0][:at] + bytes([frames[0][at] ^ 1]) + frames[0][at + 1 :], *frames[1:]]


def _cut(frames: list[bytes], limit: int) -> list[bytes]:
    return [frames[0][: len(frames[0]) // 2], *frames[1:]]


def _random(frames: list[bytes], limit: int) -> list[bytes]:
    return [os.urandom(200)]


def _oversized(frames: list[bytes], limit: int) -> list[bytes]:
    return [frames[0], bytes(limit + 1)]


def _again(frames: list[bytes], limit: int) -> list[bytes]:
    return frames


def _replayed(frames: list[bytes], limit: int) -> list[bytes]:
    return _first[0]


KINDS: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "flipped": _flipped,
    "cut": _cut,
    "random": _random,
    "oversized": _oversized,
    "again": _again,
    "replayed": _replayed,
}


def _sabotaged(self: Sockets, to: str, message: AnyMessage) -> bool:
    global _count
    is_rollout = self.address == SABOTEUR and isinstance(message, RolloutArrived)
    if not is_rollout:
        return _send(self, to, message)
    peer = self._routes.get(to, to)
    # Whole, as over a network: between roles of one host only a header would travel.
    encoded: list[Buffer] = self._codec.encode(message, to, shares_memory=False)
    frames = [bytes(frame) for frame in encoded]
    _count += 1
    _first[:] = _first or [frames]
    client = self._out.clients[peer]
    client.send_multipart(frames, zmq.DONTWAIT)
    if _count in OFFENCES:
        name = os.environ["SABOTAGE"]
        bad = KINDS[name](frames, self._codec.max_frame_bytes)
        client.send_multipart(bad, zmq.DONTWAIT)
        print(WORD, name, [len(frame) for frame in bad], flush=True)
    return True


Sockets.send = _sabotaged  # type: ignore[method-assign]
