"""An environment role: steps environments for actors in other processes."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Decides for the environments of one actor, or of several that act for different agents.

    Every step is taken once, in order, as soon as all its actors have chosen. A repeated request
    means that the first, or its answer, was lost in transit.

    Args:
        index: Its number.
        actors: Addresses of those that act in it.
    """

    def __init__(self, index: int, actors: Sequence[str]) -> None:
        self.address = f"environment-{index}"
        self._requested: dict[str, StepRequested | None] = dict.fromkeys(actors)
        """The newest request of each actor."""
        self._taken: StepTaken | None = None
        """The newest answer; others of its actors can have requested the next step already."""
        self._is_stopping = False

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event.

        | event | commands |
        |---|---|
        | Start, TimerFired | none |
        | StepRequested | StepEnvironment once all request it; Send(StepTaken) if it was taken |
        | EnvironmentStepped | Send(StepTaken) to all its actors |
        | Stop | Send(Stopped) |
        | Exit | Quit |

        Raises:
            RuntimeError: It is no event for an environment, or from an actor of another one.
        """
        match event:
            case Start() | TimerFired():
                return []
            case StepRequested(actor=actor) if actor in self._requested:
                return [] if self._is_stopping else self._asked(event)
            case EnvironmentStepped(taken=taken):
                self._taken = taken
                return [Send(actor, taken) for actor in self._requested]
            case Stop():
                self._is_stopping = True
                return [Send(COORDINATOR, Stopped(address=self.address, counters=Counters()))]
            case Exit():
                return [Quit()]
        raise RuntimeError(f"{self.address} cannot handle {event!r:.200}")

    def _asked(self, request: StepRequested) -> list[Command]:
        if self._taken is not None and self._taken.number == request.number:
            return [Send(request.actor, self._taken)]
        before, self._requested[request.actor] = self._requested[request.actor], request
        if before is not None and before.number == request.number:
            return []  # the others have not chosen yet, or the step is being taken
        wanted = [item for item in self._requested.values() if item is not None]
        is_complete = len(wanted) == len(self._requested)
        if not is_complete or any(item.number != request.number for item in wanted):
            return []
        self._taken = None
        return [StepEnvironment(request.number, tuple(item.action for item in wanted))]
