"""Checks whether this machine can run a lab, before anything is created."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from engine.errors import ConfigError, PreflightError
from tianji_cli.lab.network import NetworkCommand
from tianji_cli.lab.system import attempt, find_program

WHERE = "this machine"
PACKAGES = {
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "tc": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "util-linux",
    "umount": "util-linux",
    "pivot_root": "util-linux",
}
"""Programs that every lab needs, and the Debian packages that hold them."""

NAMESPACES = ("--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child=KILL")
"""Arguments of unshare(1) that make a host, network aside."""

CLOCKS = ("--time", "--monotonic", "1000", "--boottime", "1000")


def check_machine(
    *,
    platform: str = sys.platform,
    user_id: int | None = None,
    find: Callable[[str], str | None] = find_program,
) -> None:
    """Checks for everything that each lab needs.

    Args:
        platform: As `sys.platform` says.
        user_id: Effective user id; None asks the system.
        find: Path of a program, or None.

    Raises:
        PreflightError: Something is missing; names it, and the command that installs it.
    """
    if platform != "linux":
        raise PreflightError(
            f"a lab needs Linux (namespaces), and this is {platform}",
            where=WHERE,
            fix="run it in a Linux virtual machine",
        )
    if (os.geteuid() if user_id is None else user_id) != 0:
        raise PreflightError(
            "a lab needs root (it makes network namespaces and mounts)",
            where=WHERE,
            fix="sudo tianji lab ..., or be root in a privileged container",
        )
    missing = [name for name in PACKAGES if find(name) is None]
    if missing:
        packages = sorted({PACKAGES[name] for name in missing})
        raise PreflightError(
            f"missing programs: {', '.join(missing)}",
            where=WHERE,
            fix=f"apt-get install --no-install-recommends {' '.join(packages)}",
        )


def check_namespaces() -> bool:
    """Tries the namespaces once.

    Returns:
        Whether each host can have its own clock origin.

    Raises:
        PreflightError: They are not allowed here.
    """
    trial = ("unshare", "--net", *NAMESPACES)
    if attempt(NetworkCommand((*trial, *CLOCKS, "true"))).returncode == 0:
        return True
    done = attempt(NetworkCommand((*trial, "true")))
    if done.returncode != 0:
        raise PreflightError(
            f"namespaces cannot be made here: {done.stderr.strip()}",
            where=WHERE,
            fix="use a virtual machine or a privileged container (docker run --privileged)",
        )
    return False


def check_shared(paths: tuple[str, ...]) -> None:
    """Raises ConfigError for a directory that is to be shared and is not there."""
    for path in paths:
        if not Path(path).is_dir():
            raise ConfigError("no such directory", where=f"--share {path}")


def check_directory(directory: Path) -> None:
    """Raises PreflightError for a directory that a lab cannot use, or that holds other things."""
    if any(character in str(directory) for character in "\n\\"):
        raise PreflightError(
            "the path holds characters that mount(8) escapes", where=directory.name
        )
    if directory.is_dir() and any(directory.iterdir()):
        raise PreflightError(
            "the directory is not empty, and a lab removes what is in it",
            where=str(directory),
            fix="choose another --dir",
        )
