"""What a role is to those who run it."""

from __future__ import annotations

from typing import Protocol

from engine.roles.commands import Command
from engine.roles.events import Event


class Role(Protocol):
    """A state machine: it owns its state and decides; it waits for nothing."""

    @property
    def address(self) -> str: ...

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Takes one event in and says what to do.

        Raises:
            RuntimeError: The event is impossible in this state, so the program is wrong.
        """
        ...
