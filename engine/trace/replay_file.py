"""Reads saved replay stores without torch, and without trusting them.

    replay-0/v0000000120.json                        what the store was, and which files it is in
    replay-0/v0000000120-<16 digits>.safetensors     priorities, ages, and a batch under way
    replay-0/s000000000640-<16 digits>.rollouts      rollouts 640, 641, ...: compressed

Buffer 0 writes this beside the checkpoints of its learner; for a resumed run both are needed. A
saved store exists once its JSON does. Files of rollouts never change, so stores that are saved one
after the other share them. All names follow from numbers and checksums in the JSON, so no file
names the path of another.

A file of rollouts is 4 bytes of magic and, for each rollout, 4 bytes with the size of what follows,
then its bytes in a zlib stream.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from engine.errors import ConfigError
from engine.progress import Count, LimiterState
from engine.trace.checkpoint_file import Hex, open_regular
from engine.trace.sealed_json import SealedFormat
from engine.trace.tensor_file import refuse_strange

SCHEMA_VERSION = 1
MAX_INFO_BYTES = 1 << 22
SEGMENT_BYTES = 1 << 25
"""Rollouts of one file, before compression."""
MAX_SEGMENT_BYTES = 1 << 32
"""Of one file: a single rollout is never split."""
REPLAYS = "replay-*"
_MAGIC = b"TJR1"
_SIZE = struct.Struct("<I")
_CHUNK_BYTES = 1 << 20

Number = Annotated[int, Meta(ge=0, lt=10**12)]
Digits = Annotated[str, Meta(pattern=r"^[0-9]{1,40}$")]


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of rollouts.

    Attributes:
        first: Number of its first rollout.
        count: Rollouts in it; older ones of them need not be in the store any more.
        num_bytes, sha256: Of the file.
    """

    first: Number
    count: Annotated[int, Meta(ge=1, le=1 << 25)]
    num_bytes: Annotated[int, Meta(ge=1, le=MAX_SEGMENT_BYTES)]
    sha256: Hex

    @property
    def name(self) -> str:
        return f"s{self.first:012d}-{self.sha256[:16]}.rollouts"

    @property
    def end(self) -> int:
        """Number of the first rollout after it."""
        return self.first + self.count


class RandomState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """State of NumPy's PCG64, whose integers are too large for JSON."""

    state: Digits
    increment: Digits
    has_uint32: Annotated[int, Meta(ge=0, le=1)]
    uinteger: Annotated[int, Meta(ge=0, lt=2**32)]


class DrawnBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch that was drawn and not trained on yet; its samples are among the tensors."""

    env_steps: Count
    age_mean_s: float
    age_max_s: float


class ReplayInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON part of a saved replay store.

    Attributes:
        version: Of the weights of the checkpoint that it belongs to.
        buffer: Number of the buffer.
        env_steps_consumed: Of the whole run, and of those that it resumed; None if other groups
            consume too.
        limiter: What was inserted and drawn.
        num_envs: Of an actor.
        layout: Digest of the layout of a rollout; `samples_layout` of a batch.
        rollout_bytes: Of one rollout.
        num_rollouts: Rollouts ever stored; the next one gets this number.
        num_kept: Those still in the store, the newest.
        random: Of the sampler.
        batch: The batch under way, if there is one.
        segments: Files of rollouts, the oldest first.
        num_bytes, sha256: Of the tensors' file.
        info_sha256: Of all the other fields, as msgspec encodes them in their order.
    """

    schema_version: int = SCHEMA_VERSION
    version: Annotated[int, Meta(ge=0, lt=10**10)]
    buffer: Count
    env_steps_consumed: Count | None = None
    limiter: LimiterState
    num_envs: Count
    layout: Digits
    samples_layout: Digits
    rollout_bytes: Annotated[int, Meta(ge=1, le=MAX_SEGMENT_BYTES)]
    num_rollouts: Number
    num_kept: Number
    random: RandomState
    batch: DrawnBatch | None = None
    segments: list[Segment]
    num_bytes: Count
    sha256: Hex
    info_sha256: str = ""

    def sealed(self) -> ReplayInfo:
        """The same with its own checksum."""
        bare = msgspec.structs.replace(self, info_sha256="")
        digest = hashlib.sha256(msgspec.json.encode(bare)).hexdigest()
        return msgspec.structs.replace(bare, info_sha256=digest)

    @property
    def name(self) -> str:
        """Of the JSON file."""
        return f"v{self.version:010d}.json"

    @property
    def tensors_name(self) -> str:
        """Of the file with the tensors."""
        return f"v{self.version:010d}-{self.sha256[:16]}.safetensors"

    @property
    def sizes(self) -> dict[str, int]:
        """All its files but the JSON, with their sizes in bytes."""
        return {self.tensors_name: self.num_bytes, **{s.name: s.num_bytes for s in self.segments}}

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the same files."""
        return {self.tensors_name: self.sha256, **{s.name: s.sha256 for s in self.segments}}


_FORMAT = SealedFormat(
    type=ReplayInfo,
    noun="a saved replay store",
    oldest=SCHEMA_VERSION,
    newest=SCHEMA_VERSION,
    max_bytes=MAX_INFO_BYTES,
    fix="use the release that wrote it, or -s checkpoint.replay=false",
)


def replay_directory(checkpoints: Path, buffer: int) -> Path:
    """Where buffer number `buffer` saves its store, in `checkpoints/` of a run."""
    return checkpoints / f"replay-{buffer}"


def read_replay_info(path: Path) -> ReplayInfo:
    """Reads the JSON of a saved store.

    Raises:
        ConfigError: It is not such a file, or a release with another format wrote it.
    """
    with open_regular(path) as file:
        return replay_info_of(file.read(MAX_INFO_BYTES + 1), path.name, str(path))


def replay_info_of(data: bytes, name: str, where: str) -> ReplayInfo:
    """Parses the JSON of a saved store; `name` is its file's name, errors name `where`.

    Raises:
        ConfigError: As `read_replay_info`.
    """
    info = _FORMAT.parse(data, name, where)
    _check_numbers(info, where)
    return info


def _check_numbers(info: ReplayInfo, where: str) -> None:
    """Raises ConfigError unless the files hold every rollout of the store, in order."""
    expected = info.num_rollouts - info.num_kept
    is_first = True
    for segment in info.segments:
        if segment.end <= expected or not (segment.first == expected or is_first):
            raise ConfigError("its files of rollouts do not follow each other", where=where)
        if is_first and segment.first > expected:
            break
        is_first, expected = False, segment.end
    if expected != info.num_rollouts:
        raise ConfigError("its files do not hold all its rollouts", where=where)


def verify_replay(path: Path) -> ReplayInfo:
    """Reads the JSON of a saved store and verifies its other files.

    Raises:
        ConfigError: A file is missing, not a regular file, truncated or damaged; or a priority is
            not finite.
    """
    info = read_replay_info(path)
    sizes = info.sizes
    for name, checksum in info.checksums.items():
        file = path.with_name(name)
        digest = hashlib.sha256()
        with open_regular(file, sizes[name]) as opened:
            while chunk := opened.read(_CHUNK_BYTES):
                digest.update(chunk)
            if digest.hexdigest() != checksum:
                raise ConfigError("its checksum does not match", where=str(file))
            if name == info.tensors_name:
                opened.seek(0)
                refuse_strange(opened, info.num_bytes, file)
    return info


def read_segment(path: Path, segment: Segment, rollout_bytes: int) -> Iterator[bytes]:
    """The rollouts of one file, in order; no more memory is used than for one of them.

    Args:
        path: The file.
        segment: What the JSON says of it.
        rollout_bytes: Of one rollout.

    Raises:
        ConfigError: It is damaged.
    """
    digest = hashlib.sha256()

    def read(num_bytes: int) -> bytes:
        data = file.read(num_bytes)
        if len(data) < num_bytes:
            raise ConfigError("it ends too early", where=str(path))
        digest.update(data)
        return data

    with open_regular(path, segment.num_bytes) as file:
        if read(len(_MAGIC)) != _MAGIC:
            raise ConfigError("not a file of rollouts", where=str(path))
        left = segment.num_bytes - len(_MAGIC)
        for _ in range(segment.count):
            size = _SIZE.unpack(read(_SIZE.size))[0]
            left -= _SIZE.size + size
            if left < 0:
                raise ConfigError("it ends too early", where=str(path))
            yield _decompressed(read(size), rollout_bytes, path)
        if left or digest.hexdigest() != segment.sha256:
            raise ConfigError("its checksum does not match", where=str(path))


def _decompressed(data: bytes, num_bytes: int, path: Path) -> bytes:
    """Exactly this many bytes."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, num_bytes + 1)
    except zlib.error as error:
        raise ConfigError(f"a rollout is damaged: {error}", where=str(path)) from error
    if len(found) != num_bytes or not stream.eof:
        raise ConfigError(f"a rollout is not {num_bytes} bytes long", where=str(path))
    return found


def packed(rollouts: Iterable[bytes]) -> Iterator[bytes]:
    """The contents of a file of rollouts, piece by piece."""
    yield _MAGIC
    for rollout in rollouts:
        data = zlib.compress(rollout, 1)
        yield _SIZE.pack(len(data))
        yield data


def tidy_replays(directory: Path, keep: int) -> None:
    """Removes all saved stores but the newest `keep`, and unfinished files left by crashes."""
    paths = sorted(directory.glob("v*.json"))
    for old in paths[:-keep]:
        old.unlink()
    wanted: set[str] = set()
    for path in paths[-keep:]:
        try:
            wanted |= set(read_replay_info(path).sizes)
        except ConfigError:
            continue  # its files cannot be known
    for pattern in ("v*.safetensors", "s*.rollouts"):
        for file in directory.glob(pattern):
            if file.name not in wanted:
                file.unlink()
    for temporary in directory.glob(".*.tmp"):
        temporary.unlink()
