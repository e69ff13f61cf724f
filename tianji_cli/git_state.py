"""Which commit a checkout is at; read by lists of results, so nothing heavy is imported here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec


class GitState(msgspec.Struct, frozen=True, kw_only=True):
    """Of the directory that TianJi was installed from; nulls outside a checkout."""

    commit: str | None
    dirty: bool | None


def git_state(directory: Path) -> GitState:
    """Commit and cleanliness of a checkout."""
    if not (directory / ".git").exists():
        return GitState(commit=None, dirty=None)
    commit = _git(directory, "rev-parse", "HEAD")
    changes = _git(directory, "status", "--porcelain")
    return GitState(commit=commit or None, dirty=None if changes is None else bool(changes))


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
