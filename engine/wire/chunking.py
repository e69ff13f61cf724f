"""Large frames in parts, where a connection is encrypted.

ZeroMQ encrypts a part of a message as a whole before it sends its first byte, and its peer decrypts
it as a whole after the last byte has come; meanwhile the link idles. In parts of a frame, one is
encrypted and another decrypted while a third is on its way. The parts of a message arrive together
or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.wire import header
from engine.wire.header import Buffer

PART_BYTES = 2**20


def cut(frames: Sequence[Buffer], part_bytes: int = PART_BYTES) -> list[Buffer]:
    """Parts of each frame that is larger than one, the last of them smaller; nothing is copied.

    Only raw buffers are cut, whose header says how large they are together.
    """
    parts: list[Buffer] = []
    for frame in frames:
        num_bytes = len(frame)
        if num_bytes <= part_bytes or header.frame_bytes_of(frame) != num_bytes:
            parts.append(frame)
            continue
        view = memoryview(frame)
        parts += [view[at : at + part_bytes] for at in range(0, num_bytes, part_bytes)]
    return parts


def join(
    parts: Sequence[Buffer], max_frame_bytes: int, part_bytes: int = PART_BYTES
) -> list[Buffer]:
    """Frames out of their parts. A frame that was not cut stays where it is.

    Args:
        parts: What arrived. Parts that are no whole frame are left as they are: whoever decodes
            them refuses them for their size.
        max_frame_bytes: More is never allocated for a frame, whatever its header says.
        part_bytes: As they were cut.

    Raises:
        WireError: A part that a frame should begin with does not begin like one.
    """
    frames: list[Buffer] = []
    at = 0
    while at < len(parts):
        count, num_bytes = 1, len(parts[at])
        if num_bytes == part_bytes:
            num_bytes = header.frame_bytes_of(parts[at])
            count = -(-num_bytes // part_bytes)
        own = parts[at : at + count]
        is_whole = num_bytes <= max_frame_bytes and sum(map(len, own)) == num_bytes
        frames += [_whole(own, num_bytes)] if count > 1 and is_whole else own
        at += len(own)
    return frames


def _whole(parts: Sequence[Buffer], num_bytes: int) -> Buffer:
    frame = np.empty(num_bytes, np.uint8)
    end = 0
    for part in parts:
        begin, end = end, end + len(part)
        frame[begin:end] = np.frombuffer(part, np.uint8)
    return frame.data
