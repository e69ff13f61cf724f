"""Large frames in chunks, where a connection is encrypted.

ZeroMQ encrypts a chunk of a message as a whole before it sends its first byte, and its peer
decrypts it as a whole after the last byte has come; meanwhile the link idles. In chunks of a frame,
one is encrypted and another decrypted while a third is on its way. The chunks of a message arrive
together or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.wire import header
from engine.wire.header import Buffer

CHUNK_BYTES = 2**20


def split(frames: Sequence[Buffer], chunk_bytes: int = CHUNK_BYTES) -> list[Buffer]:
    """Chunks of each frame that is larger than one, the last of them smaller; nothing is copied.

    Only raw buffers are split, whose header says how large they are together.
    """
    chunks: list[Buffer] = []
    for frame in frames:
        num_bytes = len(frame)
        if num_bytes <= chunk_bytes or header.frame_bytes_of(frame) != num_bytes:
            chunks.append(frame)
            continue
        view = memoryview(frame)
        chunks += [view[at : at + chunk_bytes] for at in range(0, num_bytes, chunk_bytes)]
    return chunks


def join(
    chunks: Sequence[Buffer], max_frame_bytes: int, chunk_bytes: int = CHUNK_BYTES
) -> list[Buffer]:
    """Frames out of their chunks. A frame that was not split stays where it is.

    Args:
        chunks: What arrived. Chunks that are no whole frame are left as they are: whoever decodes
            them refuses them for their size.
        max_frame_bytes: More is never allocated for a frame, whatever its header says.
        chunk_bytes: As they were split.

    Raises:
        WireError: A chunk that a frame should begin with does not begin like one.
    """
    frames: list[Buffer] = []
    at = 0
    while at < len(chunks):
        count, num_bytes = 1, len(chunks[at])
        if num_bytes == chunk_bytes:
            num_bytes = header.frame_bytes_of(chunks[at])
            count = -(-num_bytes // chunk_bytes)
        own = chunks[at : at + count]
        is_whole = num_bytes <= max_frame_bytes and sum(map(len, own)) == num_bytes
        frames += [_whole(own, num_bytes)] if count > 1 and is_whole else own
        at += len(own)
    return frames


def _whole(chunks: Sequence[Buffer], num_bytes: int) -> Buffer:
    frame = np.empty(num_bytes, np.uint8)
    end = 0
    for chunk in chunks:
        begin, end = end, end + len(chunk)
        frame[begin:end] = np.frombuffer(chunk, np.uint8)
    return frame.data
