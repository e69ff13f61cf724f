"""Chooses one of a run's checkpoints: the newest, the best, or the one of a version.

The best has the largest mean return of those that are there; of equal ones, the newest. Checkpoints
without a return come last. With compute groups, those of all groups are compared: all started with
the same weights and were merged. Only the first group has evaluations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from engine.errors import ConfigError
from engine.trace.checkpoint_file import CheckpointInfo, rank_of, read_info, verify
from engine.wording import plural

Which: TypeAlias = Literal["last", "best"] | int
"""An integer is a version."""

GROUPS = "group-*"
"""Directories of the checkpoints of compute groups."""
_VERSION = re.compile(r"v?([0-9]{1,10})(\.json)?")
_MAX_LISTED = 10


@dataclass(frozen=True)
class ChosenCheckpoint:
    """A checkpoint whose files are complete, match their checksum and are finite.

    Attributes:
        path: Its JSON file.
        info: What that says.
        refused: Why each one that would have come before it was refused.
    """

    path: Path
    info: CheckpointInfo
    refused: tuple[str, ...]


def parse_which(text: str, where: str = "--checkpoint") -> Which:
    """`best`, `last`, or a version: `120`, `v120`, `v0000000120.json`.

    Raises:
        ConfigError: It is something else.

    >>> parse_which("best"), parse_which("v0000000120.json")
    ('best', 120)
    """
    if text in ("last", "best"):
        return "last" if text == "last" else "best"
    if found := _VERSION.fullmatch(text):
        return int(found[1])
    raise ConfigError(
        f"{text!r} names no checkpoint", where=where, fix="use best, last, or a version such as 120"
    )


def words_of(info: CheckpointInfo) -> str:
    """Such as `version 120, return 487.2 (evaluation)`."""
    known = info.known_return
    return f"version {info.version}" + (
        f", return {known.mean:.6g} ({known.judge})" if known else ", return unknown"
    )


def choose_checkpoint(
    checkpoints: Path, which: Which, also: Callable[[Path], object] | None = None
) -> ChosenCheckpoint:
    """Chooses among the checkpoints of a run and of its compute groups.

    Args:
        checkpoints: `checkpoints/` of a run; it need not exist.
        which: If that one is damaged, the next best or newest is taken; never another version.
        also: Raises ConfigError for one that lacks something else.

    Raises:
        ConfigError: There is none; the error lists those that there are.
    """
    refused: list[str] = []
    for path in _in_order(checkpoints, which, refused):
        try:
            info = verify(path)
            if also is not None:
                also(path)
            return ChosenCheckpoint(path, info, tuple(refused))
        except ConfigError as error:
            refused.append(str(error))
    raise _none(checkpoints, which, refused)


def group_of(path: Path) -> int:
    """The compute group that has written a checkpoint; 0 if there is only one."""
    _, has_number, number = path.parent.name.partition(GROUPS.removesuffix("*"))
    return int(number) if has_number and number.isdecimal() else 0


def _in_order(checkpoints: Path, which: Which, refused: list[str]) -> Iterable[Path]:
    """The wanted ones, the most wanted first; adds to `refused` those whose return is unreadable.
    Equal ones are in the order of their groups."""
    paths = _all_in(checkpoints)
    if which == "last":
        return sorted(paths, key=lambda path: path.name, reverse=True)
    if which != "best":
        paths = [path for path in paths if path.name == f"v{which:010d}.json"]
    infos = {}
    for path in paths:
        try:
            infos[path] = read_info(path)
        except ConfigError as error:
            refused.append(str(error))
    return sorted(infos, key=lambda path: rank_of(infos[path]), reverse=True)


def _all_in(checkpoints: Path) -> list[Path]:
    directories = (checkpoints, *sorted(checkpoints.glob(GROUPS)))
    return [path for directory in directories for path in sorted(directory.glob("v*.json"))]


def _none(checkpoints: Path, which: Which, refused: list[str]) -> ConfigError:
    reasons = "".join(f"\n    {text}" for text in refused)
    if not isinstance(which, int):
        what = f"no checkpoint is complete{reasons}" if refused else "no checkpoint is there"
        return ConfigError(what, where=str(checkpoints))
    if refused:
        what = f"the checkpoint of version {which} cannot be used{reasons}"
    else:
        what = f"there is no checkpoint of version {which}"
    listed = list(_listed(checkpoints, which))
    there = "".join(f"\n    {text}" for text in listed)
    return ConfigError(
        f"{what}\n  there {'are' if len(listed) > 1 else 'is'}:{there}" if listed else what,
        where=str(checkpoints),
        fix="choose one of these, or best or last" if listed else "",
    )


def _listed(checkpoints: Path, unwanted: int) -> Iterator[str]:
    """The newest ones of other versions that can be read, in words."""
    infos: dict[int, CheckpointInfo] = {}
    for path in _all_in(checkpoints):
        try:
            info = read_info(path)
        except ConfigError:
            continue
        if info.version != unwanted:
            infos[info.version] = max(info, infos.get(info.version, info), key=rank_of)
    newest = sorted(infos, reverse=True)
    yield from (words_of(infos[version]) for version in newest[:_MAX_LISTED])
    if len(newest) > _MAX_LISTED:
        yield f"and {plural(len(newest) - _MAX_LISTED, 'older one')}"
