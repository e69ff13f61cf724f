"""Counts weights that are queued for a peer with a slow link."""

from __future__ import annotations

from collections import deque
from typing import Protocol

MAX_IN_FLIGHT_BYTES = 64 * 2**20
"""Weights that may wait for one peer. Beyond this it misses versions, which newer ones supersede,
and asks again if it needs one. Frames of less than 64 KiB are not counted, since ZeroMQ copies them
and is done with them at once; as many as its high-water mark lets wait are no more than this."""
MIN_IN_FLIGHT = 4
"""Even if a frame is larger than that."""


class Tracker(Protocol):
    """The state of one sent frame."""

    @property
    def done(self) -> bool:
        """Whether it has left this process, or was dropped with its connection."""
        ...


class InFlightWeights:
    """Counts frames that were sent to each peer and have not left yet.

    Args:
        frame_bytes: Size of the weights.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._most = max(MIN_IN_FLIGHT, MAX_IN_FLIGHT_BYTES // frame_bytes)
        self._sent: dict[str, deque[Tracker]] = {}

    def has_room(self, peer: str) -> bool:
        """Whether another frame may be sent to this peer."""
        sent = self._sent.get(peer)
        while sent and sent[0].done:  # frames leave in the order of sending
            sent.popleft()
        return sent is None or len(sent) < self._most

    def add(self, peer: str, tracker: Tracker) -> None:
        """Records a sent frame."""
        if not tracker.done:
            self._sent.setdefault(peer, deque()).append(tracker)
