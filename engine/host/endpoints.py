"""The endpoints of a run's servers on this host: TCP ports, or Unix sockets in a directory
that only its user can change.

    $TMPDIR/tianji-<uid>/tianji-<PID namespace>-<pid>-<start time>-<random>/s0

Other users can create any name in a shared temporary directory; they cannot remove ours (sticky
bit), nor write into a directory of mode 0700. If another user has taken its name, the directory is
made in `$XDG_RUNTIME_DIR`, or else gets a random name. `$XDG_RUNTIME_DIR` is not the first choice,
since it is removed when its user logs out, and detached runs outlive that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engine.errors import PreflightError
from engine.host.ports import listen_on
from engine.host.process_identity import ProcessId, is_alive

PREFIX = "tianji-"
MAX_SOCKET_PATH = 107
"""Longest path of a Unix socket on Linux, without its final zero."""
_LONGEST_NAME = "s9999"
_TRIES = 20
"""Attempts: each time another run can have removed the empty parent directory."""


def make_socket_dir() -> Path:
    """A new directory for the sockets of this process; removes those of killed supervisors.

    Raises:
        PreflightError: It cannot be made, or its path is too long.
    """
    sweep_stale()
    own = ProcessId.of(os.getpid())
    assert own is not None
    prefix = f"{_namespace_prefix()}{own.pid}-{own.started}-"
    too_long: list[Path] = []
    for _ in range(_TRIES):
        for home in _homes():
            with contextlib.suppress(OSError):
                directory = Path(tempfile.mkdtemp(prefix=prefix, dir=home))
                if _fits(directory):
                    return directory
                remove_socket_dir(directory)
                too_long.append(directory)
        if too_long:
            break
    try:
        directory = Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:
        raise PreflightError(
            f"a directory for Unix sockets cannot be made: {error.strerror or error}",
            where=tempfile.gettempdir(),
            fix="free space or permissions there, or set TMPDIR to another directory",
        ) from error
    if _fits(directory):
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    raise PreflightError(
        f"paths of Unix sockets may have {MAX_SOCKET_PATH} characters, these have more",
        where=str((too_long or [directory])[0]),
        fix="set TMPDIR to a shorter directory",
    )


def remove_socket_dir(directory: Path) -> None:
    """Removes it, and the user's parent directory if it was the last one."""
    shutil.rmtree(directory, ignore_errors=True)
    if directory.parent in _known_homes():
        with contextlib.suppress(OSError):
            directory.parent.rmdir()


def sweep_stale() -> list[Path]:
    """Removes socket directories of this user whose supervisor is gone (it was killed).

    Other processes can remove them at the same time; errors are ignored.

    Returns:
        The removed directories.
    """
    removed = []
    for place in (*_known_homes(), Path(tempfile.gettempdir())):
        for path in _stale_in(place):
            remove_socket_dir(path)
            removed.append(path)
    return removed


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory / _LONGEST_NAME)) <= MAX_SOCKET_PATH


def _known_homes() -> list[Path]:
    """Possible parents of socket directories, existing or not, in order of preference."""
    homes = [Path(tempfile.gettempdir()) / f"{PREFIX}{os.getuid()}"]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        homes.append(Path(runtime) / PREFIX.rstrip("-"))
    return homes


def _homes() -> Iterator[Path]:
    """The parents that exist or can be made, and that only this user can enter."""
    for home in _known_homes():
        with contextlib.suppress(OSError):  # another user's, or no such parent: the next one
            with contextlib.suppress(FileExistsError):
                home.mkdir(mode=0o700)
            if _is_own(home):
                yield home


def _is_own(home: Path) -> bool:
    """Whether it is a directory (no link) of this user that no other user can enter.

    Raises:
        OSError: It does not exist.
    """
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.getuid():
            return False
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
    return True


def _namespace_prefix() -> str:
    """Names of socket directories of this PID namespace: pids of others mean other processes."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"{PREFIX}{namespace}-"


def _stale_in(place: Path) -> Iterator[Path]:
    """Socket directories of supervisors that are gone; no links, and only this user's."""
    prefix = _namespace_prefix()
    try:
        names = os.listdir(place)
    except OSError:
        return
    for name in names:
        pid, _, rest = name.removeprefix(prefix).partition("-")
        started = rest.partition("-")[0]
        if not (name.startswith(prefix) and pid.isdecimal() and started.isdecimal()):
            continue
        if _is_own_directory(place / name) and not is_alive(ProcessId(int(pid), int(started))):
            yield place / name


def _is_own_directory(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


__all__ = ["PREFIX", "Endpoints", "sweep_stale"]


class Endpoints:
    """Endpoints of one supervisor; its Unix sockets are in a directory that only its user can read.

    TCP ports have listening sockets from the start, which the servers inherit: a port that was
    only found free could be taken by the time its server starts.

    Attributes:
        directory: Of the Unix sockets, None if there are none.
        listeners: By endpoint, the listening descriptors of TCP endpoints.
    """

    def __init__(self) -> None:
        self.directory: Path | None = None
        self.listeners: dict[str, int] = {}

    def reserve(self, count: int, listen: tuple[str, int, int] | None) -> list[str]:
        """Takes `count` endpoints for exclusive use.

        Args:
            count: How many.
            listen: Address and half-open range of TCP ports; None for Unix sockets.

        Raises:
            PreflightError: Too few ports are free, or no directory for sockets can be made.
        """
        if count == 0:
            return []
        if listen is None:
            self.directory = make_socket_dir()
            return [f"ipc://{self.directory}/s{number}" for number in range(count)]
        address, first, end = listen
        text = f"[{address}]" if ":" in address else address
        found = []
        for listener in listen_on(address, range(first, end), count):
            found.append(f"tcp://{text}:{listener.getsockname()[1]}")
            self.listeners[found[-1]] = listener.detach()
        return found

    def release(self) -> None:
        """Closes the ports and removes the directory."""
        self.let_go()
        if self.directory is not None:
            remove_socket_dir(self.directory)
            self.directory = None

    def let_go(self) -> None:
        """Closes the ports here; the processes that inherited them keep listening."""
        for listener in self.listeners.values():
            os.close(listener)
        self.listeners.clear()
