"""The interface of a role to the runtime that runs it."""

from __future__ import annotations

from typing import Protocol

from engine.roles.commands import Command
from engine.roles.events import Event


class Role(Protocol):
    """A state machine: it owns its state, decides, and never blocks."""

    @property
    def address(self) -> str: ...

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event.

        Args:
            event: A message, the result of a command, or a timer.
            now_s: On the run's timeline.

        Returns:
            The commands that the runtime performs, in this order.

        Raises:
            RuntimeError: The role does not take this event: an error of the program.
        """
        ...
