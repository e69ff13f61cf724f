"""The fixed-size header in front of every raw buffer.

    magic  schema  kind  layout digest  payload bytes  destination  kind's own fields ...  checksum
    4s     H       H     Q              Q              20s          (see below)            I

The destination is the role that the frame is for, since a process can run several: its address, or
`takers` for weights, which are for all roles of a process that take any.

One frame is this header and the buffer, nothing else; if the buffer is in shared memory, it is only
the header. A frame is refused before anything is allocated or interpreted unless magic,
schema, digest, size and checksum are exactly as agreed. The checksum covers the header only: ipc
cannot corrupt a frame, and TCP frames are authenticated. A small message is MessagePack behind the
fields up to the destination, without the rest.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Any, TypeAlias

from engine.errors import WireError
from engine.rollout import RolloutInfo, SamplesInfo

Buffer: TypeAlias = bytes | bytearray | memoryview

MAGIC = b"TJ\x00\x01"
SCHEMA = 2

KIND_MESSAGE = 0
KIND_ROLLOUT = 1
KIND_WEIGHTS = 2
KIND_BATCH = 3
KIND_MODEL = 4
KIND_MERGED = 5
KIND_SAMPLES = 6
KIND_PRIORITIES = 7
KIND_SLOT = 8
"""A rollout in shared memory: this header names the slot, and no payload follows."""

KIND_BOARD = 9
"""Weights in shared memory: this header names the learner, and no payload follows."""

KIND_SEQUENCED = 10
"""A sequenced message: its number takes the place of the digest, its session that of the size."""

KIND_PACKED = 11
"""A packed rollout (`engine.wire.packing`): the header says its size as it was before."""

_PREFIX = struct.Struct("<4sHHQQ20s")
PREFIX_BYTES = _PREFIX.size
MAX_DESTINATION = 20
_ROLLOUT = struct.Struct("<IIQQqqqIQdd")
_PARAMETERS = struct.Struct("<qIq")
_BATCH = struct.Struct("<qI")
_SAMPLES = struct.Struct("<qQddd")
_SLOT = struct.Struct("<I")
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = 128
"""Two cache lines; the unused rest is zero."""


def pack_rollout(
    to: str,
    info: RolloutInfo,
    held_version: int,
    digest: int,
    num_bytes: int,
    slot: int | None = None,
    *,
    is_packed: bool = False,
) -> bytes:
    """Header of a rollout; `held_version` is the newest weights version of its actor.

    With `slot`, the header of a rollout in this slot of the host's arena.
    """
    kind = KIND_PACKED if is_packed else KIND_ROLLOUT if slot is None else KIND_SLOT
    return _seal(
        _prefix(kind, to, digest, num_bytes)
        + _ROLLOUT.pack(*_values(info, held_version))
        + _SLOT.pack(slot or 0)
    )


def unpack_rollout(frame: Buffer, digest: int, num_bytes: int) -> tuple[RolloutInfo, int]:
    """Reads and checks a rollout's header.

    Returns:
        The description and the actor's newest weights version.

    Raises:
        WireError: Not a rollout of this layout.
    """
    kind = kind_of(frame)
    if kind not in (KIND_SLOT, KIND_PACKED):
        kind = KIND_ROLLOUT
    _check(frame, kind, digest, num_bytes)
    return _rollout_info(_ROLLOUT.unpack_from(frame, _PREFIX.size))


def slot_of(frame: Buffer) -> int | None:
    """The slot of the rollout, if it is not in the frame itself. The frame was unpacked before."""
    if kind_of(frame) != KIND_SLOT:
        return None
    return int(_SLOT.unpack_from(frame, _PREFIX.size + _ROLLOUT.size)[0])


def write_rollout(memory: mmap.mmap, at: int, info: RolloutInfo, held_version: int) -> None:
    """Describes a rollout in front of it, in memory that only members of the run map."""
    _ROLLOUT.pack_into(memory, at, *_values(info, held_version))


def _values(info: RolloutInfo, held_version: int) -> tuple[int | float, ...]:
    """Fields in the order of `_ROLLOUT`."""
    return (
        info.actor,
        info.epoch,
        info.sequence,
        info.ticket,
        info.version_min,
        info.version_max,
        held_version,
        info.num_env_steps,
        info.total_env_steps,
        info.start_s,
        info.end_s,
    )


def read_rollout(memory: mmap.mmap, at: int) -> tuple[RolloutInfo, int]:
    """Reads what `write_rollout` wrote: the description and the actor's newest weights version."""
    return _rollout_info(_ROLLOUT.unpack_from(memory, at))


def _rollout_info(fields: tuple[Any, ...]) -> tuple[RolloutInfo, int]:
    """Raises WireError if they contradict each other."""
    info = RolloutInfo(
        actor=fields[0],
        epoch=fields[1],
        sequence=fields[2],
        ticket=fields[3],
        version_min=fields[4],
        version_max=fields[5],
        num_env_steps=fields[7],
        total_env_steps=fields[8],
        start_s=fields[9],
        end_s=fields[10],
    )
    if not 0 <= fields[4] <= fields[5]:
        raise WireError(f"behaviour versions {info.version_min}..{info.version_max} are impossible")
    return info, fields[6]


def pack_parameters(
    kind: int, to: str, version: int, group: int, answered: int, digest: int, num_bytes: int
) -> bytes:
    """Header of a parameter tensor: weights, a group's model, or a merged one.

    `group` and `answered` are those of `ModelOffered`, and 0 on others.
    """
    fields = _PARAMETERS.pack(version, group, answered)
    return _seal(_prefix(kind, to, digest, num_bytes) + fields)


def unpack_parameters(
    frame: Buffer, kind: int, digest: int, num_bytes: int
) -> tuple[int, int, int]:
    """Returns (version, group, answered). Raises WireError as above."""
    _check(frame, kind, digest, num_bytes)
    version, group, answered = _PARAMETERS.unpack_from(frame, _PREFIX.size)
    if version < 0:
        raise WireError(f"weights version {version} is impossible")
    return version, group, answered


def pack_batch(to: str, batch: int, num_rollouts: int) -> bytes:
    """Header of a batch, whose rollouts follow as frames of their own."""
    return _seal(_prefix(KIND_BATCH, to, 0, 0) + _BATCH.pack(batch, num_rollouts))


def unpack_batch(frame: Buffer) -> tuple[int, int]:
    """Returns (batch number, number of rollout frames). Raises WireError as above."""
    _check(frame, KIND_BATCH, 0, 0)
    batch, num_rollouts = _BATCH.unpack_from(frame, _PREFIX.size)
    return batch, num_rollouts


def pack_samples(to: str, batch: int, info: SamplesInfo, digest: int, num_bytes: int) -> bytes:
    """Header of samples drawn from a replay store."""
    return _seal(
        _prefix(KIND_SAMPLES, to, digest, num_bytes)
        + _SAMPLES.pack(batch, info.env_steps, info.drawn_s, info.age_mean_s, info.age_max_s)
    )


def unpack_samples(frame: Buffer, digest: int, num_bytes: int) -> tuple[int, SamplesInfo]:
    """Returns (batch number, description). Raises WireError as above."""
    _check(frame, KIND_SAMPLES, digest, num_bytes)
    batch, env_steps, drawn_s, mean_s, max_s = _SAMPLES.unpack_from(frame, _PREFIX.size)
    info = SamplesInfo(env_steps=env_steps, drawn_s=drawn_s, age_mean_s=mean_s, age_max_s=max_s)
    return batch, info


def pack_priorities(to: str, digest: int, num_bytes: int) -> bytes:
    """Header of priorities."""
    return _seal(_prefix(KIND_PRIORITIES, to, digest, num_bytes))


def check_priorities(frame: Buffer, digest: int, num_bytes: int) -> None:
    """Raises WireError as above."""
    _check(frame, KIND_PRIORITIES, digest, num_bytes)


def pack_message_prefix(to: str) -> bytes:
    """The prefix of a MessagePack message."""
    return _prefix(KIND_MESSAGE, to, 0, 0)


def pack_sequence_prefix(to: str, session: int, number: int) -> bytes:
    """The prefix of a sequenced MessagePack message."""
    return _prefix(KIND_SEQUENCED, to, number, session)


def unpack_sequence_prefix(frame: Buffer) -> tuple[int, int]:
    """Returns (session, number)."""
    _, _, _, number, session, _ = _PREFIX.unpack_from(frame)
    return session, number


def is_message_prefix(frame: Buffer) -> bool:
    """Whether only the destination differs from the prefix of every message."""
    magic, schema, kind, digest, num_bytes, _ = _PREFIX.unpack_from(frame)
    return (magic, schema, kind, digest, num_bytes) == (MAGIC, SCHEMA, KIND_MESSAGE, 0, 0)


def kind_of(frame: Buffer) -> int:
    """The kind of a frame.

    Raises:
        WireError: Too short, another magic, or another schema version.
    """
    if len(frame) < _PREFIX.size:
        raise WireError(f"a frame of {len(frame)} bytes has no header")
    magic, schema, kind, _, _, _ = _PREFIX.unpack_from(frame)
    if magic != MAGIC:
        raise WireError("the frame does not begin like one of TianJi's")
    if schema != SCHEMA:
        raise WireError(f"wire schema {schema}, this side speaks {SCHEMA}")
    return int(kind)


def destination_of(frame: Buffer) -> str:
    """The role that a frame is for.

    Raises:
        WireError: As `kind_of`, or the destination is not text.
    """
    kind_of(frame)
    name: bytes = _PREFIX.unpack_from(frame)[5].rstrip(b"\0")
    if not name.isascii():
        raise WireError("the frame's destination is no address")
    return name.decode("ascii")


def _prefix(kind: int, to: str, digest: int, num_bytes: int) -> bytes:
    name = to.encode("ascii")
    if len(name) > MAX_DESTINATION:
        raise WireError(f"the address {to!r} is longer than {MAX_DESTINATION} characters")
    return _PREFIX.pack(MAGIC, SCHEMA, kind, digest, num_bytes, name)


def _seal(fields: bytes) -> bytes:
    body = fields.ljust(HEADER_BYTES - _CHECKSUM.size, b"\0")
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _check(frame: Buffer, kind: int, digest: int, num_bytes: int) -> None:
    found = kind_of(frame)
    if found != kind:
        raise WireError(f"frame of kind {found} where {kind} was expected")
    expected = HEADER_BYTES + (0 if kind in (KIND_SLOT, KIND_BOARD) else num_bytes)
    if len(frame) != expected and not (
        kind == KIND_PACKED and HEADER_BYTES < len(frame) < expected
    ):
        raise WireError(f"frame of {len(frame)} bytes, expected {expected}")
    end = HEADER_BYTES - _CHECKSUM.size
    if _CHECKSUM.unpack_from(frame, end)[0] != zlib.crc32(memoryview(frame)[:end]):
        raise WireError("the header's checksum is wrong")
    _, _, _, theirs, size, _ = _PREFIX.unpack_from(frame)
    if theirs != digest or size != num_bytes:
        raise WireError("the sender lays its arrays out differently; its experiment differs")
