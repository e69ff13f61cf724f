"""The directory of a supervisor's Unix sockets, which only its user can change.

    $TMPDIR/tianji-<uid>/tianji-<PID namespace>-<pid>-<start time>-<random>/s0

Other users can plant any name in a shared temporary directory; they cannot take one away (its
sticky bit), nor put anything into a directory of mode 0700. Where the name of that is taken by
somebody else, `$XDG_RUNTIME_DIR` serves, and without that a directory of a random name. It is not
the first choice, as it is removed when its user logs out, which detached runs outlive.
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
from engine.host.process_identity import ProcessId, identify, is_alive

PREFIX = "tianji-"
MAX_SOCKET_PATH = 107
"""What a Unix socket address can hold on Linux, less its final zero."""
_LONGEST_NAME = "s9999"
_TRIES = 20
"""Each time another run may have removed the directory of both, as it was empty."""


def make_socket_dir() -> Path:
    """A new directory for the sockets of this process; removes those of killed supervisors.

    Raises:
        PreflightError: It cannot be made, or its path is too long.
    """
    sweep_stale()
    own = identify(os.getpid())
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
    """Removes it, and the user's directory of all of them if it was the last one."""
    shutil.rmtree(directory, ignore_errors=True)
    if directory.parent in _known_homes():
        with contextlib.suppress(OSError):
            directory.parent.rmdir()


def sweep_stale() -> list[Path]:
    """Removes socket directories of this user whose supervisor is gone (it was killed).

    Others may remove them at the same time; nothing that is met there is an error.

    Returns:
        What was removed.
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
    """Where socket directories may be, there or not, the first choice first."""
    homes = [Path(tempfile.gettempdir()) / f"{PREFIX}{os.getuid()}"]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        homes.append(Path(runtime) / PREFIX.rstrip("-"))
    return homes


def _homes() -> Iterator[Path]:
    """Those that can be had and are this user's alone."""
    for home in _known_homes():
        with contextlib.suppress(OSError):  # a planted name, or no such parent: the next one
            with contextlib.suppress(FileExistsError):
                home.mkdir(mode=0o700)
            if _is_own(home):
                yield home


def _is_own(home: Path) -> bool:
    """Whether it is a directory (no link) of this user that no other user can enter.

    Raises:
        OSError: There is nothing that could be looked at.
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
    """Socket directories there of supervisors that are gone; no links, and none of others."""
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
