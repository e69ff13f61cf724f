"""An environment role: steps environments for an actor in another process."""

from __future__ import annotations

from engine.messages import (
    COORDINATOR,
    Counters,
    Exit,
    Start,
    StepRequested,
    StepTaken,
    Stop,
    Stopped,
)
from engine.roles.commands import Command, Quit, Send, StepEnvironment
from engine.roles.events import EnvironmentStepped, Event, TimerFired


class EnvironmentRole:
    """Decides for the environments of one actor: every step is taken once, in order.

    A repeated request means that the first, or its answer, was lost in transit.

    Args:
        index: Its number, which is that of its actor.
    """

    def __init__(self, index: int) -> None:
        self.address = f"environment-{index}"
        self._actor = f"actor-{index}"
        self._requested: StepRequested | None = None
        self._taken: StepTaken | None = None
        """The answer to it, once there is one."""
        self._is_stopping = False

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event.

        | event | commands |
        |---|---|
        | Start, TimerFired | none |
        | StepRequested | StepEnvironment; if it was taken before, Send(StepTaken) again |
        | EnvironmentStepped | Send(StepTaken) |
        | Stop | Send(Stopped) |
        | Exit | Quit |
        """
        match event:
            case Start() | TimerFired():
                return []
            case StepRequested():
                return [] if self._is_stopping else self._asked(event)
            case EnvironmentStepped(taken=taken):
                self._taken = taken
                return [Send(self._actor, taken)]
            case Stop():
                self._is_stopping = True
                return [Send(COORDINATOR, Stopped(address=self.address, counters=Counters()))]
            case Exit():
                return [Quit()]
        raise RuntimeError(f"{self.address} cannot handle {type(event).__name__}")

    def _asked(self, request: StepRequested) -> list[Command]:
        if self._requested is None or request.number != self._requested.number:
            self._requested, self._taken = request, None
            return [StepEnvironment(request)]
        return [] if self._taken is None else [Send(self._actor, self._taken)]
