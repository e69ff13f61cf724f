"""Frames with a payload: a header, then a buffer, without a copy where that is possible."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.wire.header import HEADER_BYTES, Buffer

SEGMENT_BYTES = 2**20
"""Frames to other hosts are sealed in segments of this size. A part of a message that takes longer
to arrive than heartbeats are waited for never does: this one needs 1 Mbit/s."""
TAG_BYTES = 16
"""What each segment grows by."""


def allocate_framed(num_bytes: int) -> npt.NDArray[np.uint8]:
    """A zeroed buffer, uint8 [num_bytes], with space for a header before it: no copy to send."""
    return np.zeros(HEADER_BYTES + num_bytes, np.uint8)[HEADER_BYTES:]


def join_frame(head: bytes, buffer: npt.NDArray[np.uint8]) -> Buffer:
    """Header and buffer as one frame; free if the buffer was allocated with room in front.

    An earlier frame of the same buffer may still be queued, and shares that room. So a buffer
    that is sent several times is sent under the same header each time.
    """
    room = buffer.base
    if isinstance(room, np.ndarray) and room.nbytes == HEADER_BYTES + buffer.nbytes:
        room[:HEADER_BYTES] = np.frombuffer(head, np.uint8)
        return room.data
    return head + buffer.tobytes()


def payload_of(frame: Buffer) -> npt.NDArray[np.uint8]:
    """The buffer of a frame, uint8; a view."""
    return np.frombuffer(frame, np.uint8, offset=HEADER_BYTES)
