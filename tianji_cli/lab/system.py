"""Runs this machine's own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from engine.errors import PreflightError, RunFailedError
from tianji_cli.lab.network import NetworkCommand

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMAND_TIMEOUT_S = 20.0
NETNS_DIRECTORY = Path("/run/netns")
"""Where ip-netns(8) keeps the names of network namespaces."""


def search_path() -> str:
    """The user's PATH, then where root's tools are even if the user's PATH does not say so."""
    return os.pathsep.join(filter(None, (os.environ.get("PATH"), _SYSTEM_PATH)))


def find_program(name: str) -> str | None:
    """Absolute path of a program, or None."""
    return shutil.which(name, path=search_path())


def require_program(name: str) -> str:
    """Absolute path of a program; PreflightError if it is missing."""
    path = find_program(name)
    if path is None:
        raise PreflightError(f"the program {name!r} is missing", where="this machine")
    return path


def attempt(command: NetworkCommand) -> subprocess.CompletedProcess[str]:
    """Runs a command, whatever its exit status."""
    return subprocess.run(
        command.argv,
        input=command.stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        env={**os.environ, "PATH": search_path(), "LC_ALL": "C"},
        check=False,
    )


def perform(command: NetworkCommand) -> str:
    """Runs a command and returns its standard output.

    Raises:
        RunFailedError: It failed; its output is in the error.
    """
    done = attempt(command)
    if done.returncode != 0:
        words = " ".join(command.argv)
        said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise RunFailedError(f"`{words}` failed: {said}", where="this machine")
    return done.stdout


def perform_all(commands: Sequence[NetworkCommand]) -> None:
    """Runs commands in order; the first that fails raises RunFailedError."""
    for command in commands:
        perform(command)


def mount_points() -> tuple[str, ...]:
    """Where file systems are mounted, as this process sees it."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return tuple(_unescape(line.split(" ")[4]) for line in lines)


def _unescape(field: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, character)
    return field


def boot_id() -> str:
    """Identifies the boot of the machine; process ids are not valid across boots."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
