"""Large frames in chunks, where a connection is encrypted.

ZeroMQ encrypts each part of a message as a whole before it sends its first byte, and its peer
decrypts it as a whole after the last byte has arrived; in the meantime the link idles. With chunks,
one is encrypted and another decrypted while a third is in transit. The chunks of a message arrive
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

    Only raw buffers are split; their header has the total size.
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
    """Joins chunks to frames. A frame that was not split is not copied.

    Args:
        chunks: As received. Chunks that make no whole frame are left unchanged: the decoder refuses
            them for their size.
        max_frame_bytes: Never allocates more for a frame, whatever its header says.
        chunk_bytes: Size of a chunk.

    Raises:
        WireError: The first chunk of a frame has no valid header.
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
