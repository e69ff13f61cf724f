"""What every connector gives: two byte streams to a supervisor."""

from __future__ import annotations

from typing import Protocol


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
        """What it said on standard error."""
        ...
