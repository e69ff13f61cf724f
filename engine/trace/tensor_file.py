"""Reads the tensors of a checkpoint without torch, and without executing code from the file.

A safetensors file is 8 bytes that give the size of a header, the header in JSON, and all values.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
from msgspec import Meta

from engine.errors import ConfigError

MAX_HEADER_BYTES = 1 << 20
PREFIX = struct.Struct("<Q")
_CHUNK_BYTES = 1 << 20
_EXPONENT: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0000000000000),
    "F32": ("<u4", 0x7F800000),
    "BF16": ("<u2", 0x7F80),
    "F16": ("<u2", 0x7C00),
}
"""All its bits are set in what is infinite or no number."""

Size = Annotated[int, Meta(ge=0, le=2**62)]


class TensorInfo(msgspec.Struct, forbid_unknown_fields=True):
    """What a safetensors header says of one tensor."""

    dtype: str
    shape: list[Size]
    data_offsets: tuple[Size, Size]


def read_header(prefix: bytes, rest: bytes, num_bytes: int, file: Path) -> dict[str, TensorInfo]:
    """The tensors by name.

    Args:
        prefix: The first 8 bytes.
        rest: What follows, as much as the header needs or more.
        num_bytes: Of the whole file.
        file: For errors.

    Raises:
        ConfigError: It is none.
    """
    size = header_size(prefix, num_bytes, file)
    try:
        return msgspec.json.decode(memoryview(rest)[:size], type=dict[str, TensorInfo])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"not a file of tensors: {error}", where=str(file)) from error


def header_size(prefix: bytes, num_bytes: int, file: Path) -> int:
    """Bytes of the header. Raises ConfigError if it cannot be."""
    size: int = PREFIX.unpack(prefix)[0] if len(prefix) == PREFIX.size else 0
    if not 2 <= size <= min(MAX_HEADER_BYTES, num_bytes - PREFIX.size):
        raise ConfigError(f"a header of {size} bytes is impossible", where=str(file))
    return size


def refuse_strange(opened: BinaryIO, num_bytes: int, where: Path) -> None:
    """Makes sure that every number is one.

    Args:
        opened: The file, at its beginning.
        num_bytes: Its size.
        where: For errors.

    Raises:
        ConfigError: One is infinite or NaN, or it is no file of tensors.
    """
    prefix = opened.read(PREFIX.size)
    size = header_size(prefix, num_bytes, where)
    header = read_header(prefix, opened.read(size), num_bytes, where)
    begin = PREFIX.size + size
    for name, info in header.items():
        kind = _EXPONENT.get(info.dtype)
        first, last = info.data_offsets
        if not first <= last <= num_bytes - begin:
            raise ConfigError(f"the tensor {name!r} lies outside of the file", where=str(where))
        if kind is None:
            continue
        opened.seek(begin + first)
        for offset in range(first, last, _CHUNK_BYTES):
            if is_strange(opened.read(min(_CHUNK_BYTES, last - offset)), *kind):
                raise ConfigError(
                    f"the tensor {name!r} holds numbers that are not finite", where=str(where)
                )


def is_strange(data: bytes, kind: str, exponent: int) -> bool:
    """Whether any of these numbers has all bits of its exponent set."""
    import numpy as np  # not needed by those who only name what there is

    values = np.frombuffer(data, kind, len(data) // np.dtype(kind).itemsize)
    return bool(((values & exponent) == exponent).any())
