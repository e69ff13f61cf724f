"""The records that every system's driver writes (`drivers/recorder.py`), read back while it runs.

Pure decoding apart from `RawFeed`, which reads growing files. `t` is CLOCK_MONOTONIC in seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from engine.errors import RunFailedError


class _Raw(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    t: float
    source: str = ""
    """The file that it came from: one process."""


class Steps(_Raw, frozen=True, kw_only=True, tag="steps"):
    """Env steps of one process so far."""

    total: int
    agent_total: int | None = None
    """Of a team: how many agents acted in each, added up."""


class EpisodeEnd(_Raw, frozen=True, kw_only=True, tag="episode"):
    """A finished training episode."""

    episode_return: float
    length: int


class TrainedTotals(_Raw, frozen=True, kw_only=True, tag="trained"):
    """Totals of what the learner has consumed so far."""

    env_steps: int
    samples: int
    updates: int


class Phase(_Raw, frozen=True, kw_only=True, tag="phase"):
    """A moment in the life of the system."""

    name: str


CLAIMED, RECEIVED = "claimed", "received"
"""Kinds of events that a system's own count becomes."""


class Claimed(_Raw, frozen=True, kw_only=True, tag="claimed"):
    """The system's own count of env steps so far.

    Attributes:
        is_received: They are counted on arrival, and the number in transit is unbounded.
    """

    env_steps: int
    is_received: bool = False


RawRecord: TypeAlias = Steps | EpisodeEnd | TrainedTotals | Phase | Claimed
_DECODER = msgspec.json.Decoder(RawRecord)


class GarbageError(RunFailedError):
    """A driver wrote something that is not a record: its figures cannot be used."""


class Feed(Protocol):
    """Source of the records of a system."""

    def poll(self) -> list[RawRecord]:
        """New records, in order within each process.

        Raises:
            GarbageError: A complete line is not a record.
        """
        ...


def decode(line: bytes, source: str) -> RawRecord:
    """One line of one file.

    Raises:
        GarbageError: It is not a record.
    """
    try:
        record: RawRecord = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        shown = line[:120].decode("utf-8", "replace")
        raise GarbageError(f"{source} holds {shown!r}, which is not a record: {error}") from error
    return msgspec.structs.replace(record, source=source)


class RawFeed:
    """Follows `<directory>/*.jsonl`, one file per process.

    Args:
        directory: May still be empty.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offsets: dict[Path, int] = {}

    def poll(self) -> list[RawRecord]:
        return [
            decode(line, path.stem)
            for path in sorted(self._directory.glob("*.jsonl"))
            for line in self._new_lines(path)
        ]

    def _new_lines(self, path: Path) -> list[bytes]:
        """Complete lines only: the last one may still be being written."""
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offsets[path] = self._offsets.get(path, 0) + end
        return data[:end].splitlines()
