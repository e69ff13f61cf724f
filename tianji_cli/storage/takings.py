"""The files of a run that each host is allowed to hand over, by name and size. Pure.

A host can be compromised, and its file names are untrusted. So each is compared with what that
host's roles write: its own logs and state; traces and summary where the coordinator is;
checkpoints where a learner is, in that learner's directory. Everything else stays where it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.files import ASIDE, LOG_CAP_BYTES
from engine.trace.records import RECORD_TYPES, table_of

MAX_LOG_BYTES = 4 * LOG_CAP_BYTES
"""A supervisor truncates logs at a quarter of this."""
MAX_STATE_BYTES = 1 << 24
MAX_SUMMARY_BYTES = 1 << 20
MAX_TRACE_BYTES = 1 << 34
"""Size limit of one table: ten times the largest ever written."""
MAX_TENSOR_BYTES = 1 << 34
MAX_REPLAY_BYTES = 1 << 38
"""Of one saved replay store, before compression."""
MAX_LOGS = 8192
MAX_CHECKPOINTS = 100

_PROCESS = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"
_TABLES = "|".join(map(table_of, RECORD_TYPES))
_TABLE = re.compile(rf"trace/({_TABLES})\.jsonl")
_INFO = re.compile(r"checkpoints/((group-\d{1,6})/)?v\d{10}\.json")
_REPLAY = re.compile(r"checkpoints/replay-\d{1,6}/v\d{10}\.json")


@dataclass(frozen=True)
class Share:
    """A host's part of a run, as far as it determines accepted files.

    Attributes:
        host: Its name in the inventory.
        is_head: Whether the coordinator is there.
        learners: Learners there; None if unknown, for runs of an earlier release.
        buffers: Buffers there.
    """

    host: str
    is_head: bool
    learners: tuple[int, ...] | None = None
    buffers: tuple[int, ...] = ()

    @property
    def checkpoint_directories(self) -> frozenset[str] | None:
        """Checkpoint directories of its learners; None: any."""
        if self.learners is None:
            return None
        groups = {f"checkpoints/group-{index}" for index in self.learners}
        return frozenset(groups | ({"checkpoints"} if 0 in self.learners else set()))

    @property
    def replay_directories(self) -> frozenset[str]:
        """Directories of the saved replay stores of its buffers."""
        return frozenset(f"checkpoints/replay-{index}" for index in self.buffers)


@dataclass(frozen=True)
class Takings:
    """The files of a host to copy, by path, with their size in bytes.

    Attributes:
        growing: Only ever appended to.
        replaced: Replaced as a whole.
        checkpoints: The JSON files of checkpoints, the newest of each directory, oldest first.
        replays: Likewise of saved replay stores.
    """

    growing: dict[str, int]
    replaced: dict[str, int]
    checkpoints: tuple[str, ...]
    replays: tuple[str, ...] = ()


def takings_of(there: Mapping[str, int], share: Share) -> Takings:
    """Selects from the files that a host lists.

    Args:
        there: Relative path and size in bytes.
        share: What is accepted from it.
    """
    log = re.compile(rf"logs/{re.escape(share.host)}/{_PROCESS}\.log({re.escape(ASIDE)})?")
    growing: dict[str, int] = {}
    replaced: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    stores: dict[str, list[str]] = {}
    for name, size in sorted(there.items()):
        if log.fullmatch(name):
            kept = replaced if name.endswith(ASIDE) else growing
            if len(kept) < MAX_LOGS:
                kept[name] = min(size, MAX_LOG_BYTES)
        elif name == f"state/{share.host}.json":
            replaced[name] = min(size, MAX_STATE_BYTES)
        elif share.is_head and name == "summary.json":
            replaced[name] = min(size, MAX_SUMMARY_BYTES)
        elif share.is_head and _TABLE.fullmatch(name):
            growing[name] = min(size, MAX_TRACE_BYTES)
        elif _INFO.fullmatch(name):
            directory = name.rpartition("/")[0]
            allowed = share.checkpoint_directories
            if allowed is None or directory in allowed:
                names.setdefault(directory, []).append(name)
        elif _REPLAY.fullmatch(name) and name.rpartition("/")[0] in share.replay_directories:
            stores.setdefault(name.rpartition("/")[0], []).append(name)
    return Takings(growing, replaced, _newest(names), _newest(stores))


def _newest(names: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Of each directory."""
    return tuple(name for found in names.values() for name in found[-MAX_CHECKPOINTS:])
