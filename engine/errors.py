"""Every error that a user can meet, with the exit code that a command ends with.

TianJiError
├── RunFailedError          1   a role died, or the run broke its own promises
├── ConfigError             2   a file, key or value that cannot be used
├── PreflightError          3   the machine is not ready: ports, disk, missing programs
├── HostUnreachableError    4
├── DeadlineError           5   something did not happen in time
├── VersionMismatchError    6
├── CleanupError            7   something of the run is left
└── WireError               -   a frame that must not be decoded; never ends a process by itself

With `--strict`, a benchmark in which something is missing, censored or failed ends with 8; who
interrupts a command gets 130.
"""

from __future__ import annotations

EXIT_INCOMPLETE = 8
EXIT_INTERRUPTED = 130


class TianJiError(Exception):
    """Something failed; says what, where, why, and what to do next.

    Args:
        what: One sentence without its full stop: what failed and why.
        where: File, key, host or role that it concerns; empty if there is no better place.
        fix: The next thing to do or type; empty if there is none.
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
    """A frame whose size, magic, schema, layout or content is not what both sides agreed on."""
