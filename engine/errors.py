"""Every error that a user can see, with the exit code of the command.

TianJiError
├── RunFailedError          1   a role died, or the run broke a rule
├── ConfigError             2   a file, key or value that cannot be used
├── PreflightError          3   the machine is not ready: ports, disk, missing programs
├── HostUnreachableError    4
├── DeadlineError           5   something did not happen in time
├── VersionMismatchError    6
├── CleanupError            7   something of the run is left
└── WireError               -   a frame that must not be decoded; never ends a process by itself

With `--strict`, a benchmark with a missing, censored or failed cell ends with 8; an interrupted
command ends with 130.
"""

from __future__ import annotations

import errno
import os

EXIT_INCOMPLETE = 8
EXIT_INTERRUPTED = 130


class TianJiError(Exception):
    """An error with what failed and why, where, and what to do next.

    Args:
        what: One sentence without its full stop: what failed and why.
        where: File, key, host or role that it concerns; empty if there is no better place.
        fix: The next step or command; empty if there is none.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.fix})" if self.fix else ""
        return f"{place}{self.what}{advice}"


class RunFailedError(TianJiError):
    exit_code = 1


class ConfigError(TianJiError):
    exit_code = 2


class PreflightError(TianJiError):
    exit_code = 3


class HostUnreachableError(TianJiError):
    exit_code = 4


class DeadlineError(TianJiError):
    exit_code = 5


class VersionMismatchError(TianJiError):
    exit_code = 6


class CleanupError(TianJiError):
    exit_code = 7


class WireError(TianJiError):
    """A frame whose size, magic, schema, layout or content is not as both sides agreed."""


_OF_MACHINE = {
    errno.EMFILE: (
        "this process cannot open more files",
        "raise the limit: ulimit -n 65536",
    ),
    errno.ENFILE: (
        "this machine cannot open more files",
        "end programs that hold many open files, or raise fs.file-max",
    ),
    errno.ENOSPC: (
        "the disk is full: it has no free blocks or no free inodes",
        "free space there (df, df -i), or choose another disk",
    ),
    errno.EDQUOT: (
        "your disk quota is used up",
        "free space there (quota), or choose another disk",
    ),
    errno.EROFS: (
        "the file system is read-only",
        "choose another directory, or remount it read-write",
    ),
    errno.ENOMEM: ("this machine is out of memory", "end programs that use much memory"),
    errno.EAGAIN: (
        "this user cannot start more processes or threads",
        "end some, or raise the limit: ulimit -u",
    ),
    errno.EIO: ("the disk reports an input/output error", "see dmesg"),
    errno.ESTALE: ("the file server no longer has the directory", "cd into it again"),
}
_NO_THREAD = "can't start new thread"


def of_machine(error: BaseException) -> PreflightError | None:
    """Turns an exception caused by the machine into an error with a fix.

    Args:
        error: Anything that was raised; errors of other libraries that have an `errno`, and imports
            that failed for such a reason, count as well.

    Returns:
        None if it is not caused by the machine: then it is an error of the program.
    """
    if isinstance(error, OSError) and error.errno == errno.ENOENT and not _has_directory():
        return directory_is_gone()
    number = getattr(error, "errno", None)
    if isinstance(error, ImportError):
        number = next((n for n in _OF_MACHINE if os.strerror(n) in str(error)), None)
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        number = errno.EAGAIN
    if number not in _OF_MACHINE:
        return None
    what, fix = _OF_MACHINE[number]
    filename = getattr(error, "filename", None)
    where = os.fsdecode(filename) if isinstance(filename, str | bytes) else ""
    return PreflightError(what, where=where, fix=fix)


def directory_is_gone() -> PreflightError:
    """The error that the working directory was removed."""
    return PreflightError(
        "the working directory was removed, so relative paths cannot be resolved",
        fix="cd into a directory that exists",
    )


def _has_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
