"""Where the servers of a run listen on this host, and what earlier runs left there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from engine.errors import PreflightError
from engine.runtime.identity import ProcessId, identify, is_alive
from engine.runtime.ports import find_free_ports

PREFIX = "tianji-"
MAX_SOCKET_PATH = 107
"""What a Unix socket address can hold on Linux, less its final zero."""
_LONGEST_NAME = "s99"


class Endpoints:
    """Endpoints of one supervisor; its Unix sockets live in a directory that only its user reads.

    Attributes:
        directory: Of the Unix sockets, None if there are none.
    """

    def __init__(self) -> None:
        self.directory: Path | None = None

    def reserve(self, count: int, listen: tuple[str, int, int] | None) -> list[str]:
        """Finds `count` endpoints on which nobody listens.

        Args:
            count: How many.
            listen: Address and half-open range of TCP ports; None for Unix sockets.

        Raises:
            PreflightError: Too few ports are free, or the temporary directory's path is too long.
        """
        if count == 0:
            return []
        if listen is None:
            directory = self._make_directory()
            return [f"ipc://{directory}/s{number}" for number in range(count)]
        address, first, end = listen
        text = f"[{address}]" if ":" in address else address
        ports = find_free_ports(address, range(first, end), count)
        return [f"tcp://{text}:{port}" for port in ports]

    def _make_directory(self) -> Path:
        sweep_stale()
        own = identify(os.getpid())
        assert own is not None
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_own_prefix()}{own.pid}-{own.started}-"))
        if len(str(self.directory / _LONGEST_NAME)) > MAX_SOCKET_PATH:
            raise PreflightError(
                f"paths of Unix sockets may have {MAX_SOCKET_PATH} characters, these have more",
                where=str(self.directory),
                fix="set TMPDIR to a shorter directory",
            )
        return self.directory

    def release(self) -> None:
        """Removes the directory."""
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None


def _own_prefix() -> str:
    """Names of socket directories of this PID namespace: elsewhere a pid is somebody else."""
    namespace = Path("/proc/self/ns/pid")
    return f"{PREFIX}{namespace.stat().st_ino if namespace.exists() else 0}-"


def sweep_stale() -> list[Path]:
    """Removes socket directories of this user whose supervisor is gone (it was killed).

    Returns:
        What was removed.
    """
    removed = []
    prefix = _own_prefix()
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*-*-*"):
        pid, _, rest = path.name[len(prefix) :].partition("-")
        started = rest.partition("-")[0]
        if not (pid.isdecimal() and started.isdecimal()):
            continue
        if path.stat().st_uid == os.getuid() and not is_alive(ProcessId(int(pid), int(started))):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed
