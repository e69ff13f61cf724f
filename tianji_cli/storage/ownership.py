"""Records which runs, benchmarks and studies this user started on this machine.

A results directory can come from anywhere, and its files name hosts, programs and directories. So
what this user starts is recorded outside of it: the checksum of its document, in
`~/.local/state/tianji/begun`. A document whose checksum is there is the user's own, wherever its
directory is now; for any other the user is asked first (`tianji_cli.storage.consent`).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

import msgspec

from engine.errors import ConfigError

STATE_VARIABLE = "XDG_STATE_HOME"
_NAME = "begun"
_MAX_BYTES = 1 << 26
"""Size limit of the file: one line per run, a million of them."""


def state_directory() -> Path | None:
    """The user's state directory; None for a user without a home."""
    given = os.environ.get(STATE_VARIABLE, "")
    if os.path.isabs(given):
        return Path(given) / "tianji"
    try:
        return Path.home() / ".local" / "state" / "tianji"
    except (RuntimeError, KeyError):
        return None


def checksum_of(document: bytes, but: Collection[str] = (), only: Collection[str] = ()) -> str:
    """The checksum of a JSON object, independent of the order of its keys.

    Args:
        document: Its bytes.
        but: Keys whose values can change.
        only: The keys that count; all of them by default.

    Raises:
        ConfigError: It is not a JSON object.
    """
    try:
        whole = msgspec.json.decode(document, type=dict[str, object])
        kept = {k: v for k, v in whole.items() if k not in but and (not only or k in only)}
        return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"not a document of this program: {error}") from error


def note_own(checksum: str) -> bool:
    """Records that a document of this checksum is this user's own, or agreed to.

    Returns:
        False if it cannot be recorded: the user will be asked again.
    """
    directory = state_directory()
    if directory is None:
        return False
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(directory.stat(), stat.S_IFDIR):
            return False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(directory / _NAME, flags, 0o600)
        try:
            os.write(descriptor, f"{checksum}\n".encode())  # one write, so lines stay complete
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def is_own(checksum: str) -> bool:
    """Whether a document of this checksum was recorded."""
    directory = state_directory()
    if directory is None:
        return False
    try:
        descriptor = os.open(directory / _NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not _is_private(found, stat.S_IFREG):
            return False
        return checksum.encode() in file.read(min(found.st_size, _MAX_BYTES)).split()


def _is_private(found: os.stat_result, kind: int) -> bool:
    """Whether no other user can have written it."""
    others = stat.S_IWGRP | stat.S_IWOTH
    is_ours = found.st_uid == os.getuid() and not found.st_mode & others
    return is_ours and stat.S_IFMT(found.st_mode) == kind
