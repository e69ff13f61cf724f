"""The interface of all connectors: a host for commands and files, and a started supervisor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

MAX_DEPTH = 3
MAX_FILES = 20_000
"""Most files of one host's part of a run: two logs for each of thousands of roles."""


def with_environment(command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The command line that starts a command with these variables added to its environment.

    env(1) treats leading words with `=` as variables, and a path can contain `=`; so a shell is in
    between.
    """
    variables = [f"{name}={value}" for name, value in env.items()]
    return ["env", *variables, "sh", "-c", 'exec "$0" "$@"', *command]


@dataclass(frozen=True)
class Completed:
    """A command that ended.

    Attributes:
        code: Exit code; -1 if a signal ended it.
        stdout, stderr: Its output.
    """

    code: int
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        """The end of its output, for errors; standard error if there is any."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return "".join(f"\n    {line}" for line in lines[-10:])


class AccessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The connection to a host; `address` is its remote end."""

    user: str
    endpoint: str
    address: str = ""
    host_key: str = ""
    key: str = ""
    jump: str = ""


class Connection(Protocol):
    """A supervisor that was started on a host.

    Attributes:
        host: Its name in the inventory.
        to_supervisor, from_supervisor: Descriptors of its standard input and output.
    """

    host: str
    to_supervisor: int
    from_supervisor: int

    def close_input(self) -> None:
        """Ends its standard input, which ends the run there."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Waits for it to end. False if it has not."""
        ...

    def error_output(self) -> str:
        """Its standard error."""
        ...

    def close(self) -> None:
        """Closes all descriptors, which ends its streams. It cannot be used after this."""
        ...


class Node(Protocol):
    """A host that can be reached.

    Every method can raise `HostUnreachableError`, and `PreflightError` if the host refuses.

    Attributes:
        name: In the inventory.
        is_remote: Whether files must be copied there and back.
        access: The connection.
    """

    name: str
    is_remote: bool
    access: AccessFacts

    def expand(self, path: str) -> str:
        """An absolute path; `~` is the user's home there."""
        ...

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        """Runs a command to its end.

        Raises:
            DeadlineError: It takes longer.
        """
        ...

    def spawn(
        self, command: Sequence[str], env: Mapping[str, str], directory: str | None = None
    ) -> Connection:
        """Starts a command whose standard streams stay open."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Writes a file; its directory must exist."""
        ...

    def exists(self, path: str) -> bool: ...

    def read(self, path: str, offset: int = 0, max_bytes: int = -1) -> bytes:
        """A file from `offset` to its end, or this many bytes; empty if there is none."""
        ...

    def walk(self, root: str) -> dict[str, int]:
        """The files below a directory, links left out: relative path and size in bytes.

        No run is deeper than `MAX_DEPTH` or has more files than `MAX_FILES`: anything beyond is
        not looked at.
        """
        ...

    def close(self) -> None:
        """Closes all connections, which ends their commands unless detached."""
        ...
