"""What a turn of a process's loop does, in its order."""

from __future__ import annotations

from collections.abc import Iterator

from engine.messages import AnyMessage, Exit, TicketGranted
from engine.roles.commands import CollectRollout, Command, Quit
from engine.roles.events import Event
from engine.runtime.loop import Loop, LoopClock, RoleInstance


class Collector:
    """Role and executor in one: a ticket starts work that one call of `advance` ends."""

    address = "actor-0"

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.is_busy = False

    def handle(self, event: Event, now_s: float) -> list[Command]:
        return [CollectRollout(event.ticket)] if isinstance(event, TicketGranted) else [Quit()]

    def perform(self, command: Command) -> list[Event]:
        self.is_busy = True
        return []

    def advance(self, budget_s: float) -> list[Event]:
        self.log.append("advance")
        self.is_busy = False
        return []

    def close(self) -> None:
        pass


class Post:
    """Sockets that bring one message each time they are asked."""

    address = "actor-0"

    def __init__(self, log: list[str], messages: list[AnyMessage]) -> None:
        self.log, self.messages = log, messages

    def send(self, to: str, message: AnyMessage) -> bool:
        return True

    def receive(self, timeout_s: float | None) -> Iterator[tuple[str, AnyMessage]]:
        self.log.append("receive")
        yield "actor-0", self.messages.pop(0)


def test_what_came_in_is_begun_before_more_is_asked_for():
    log: list[str] = []
    actor = Collector(log)
    post = Post(log, [TicketGranted(ticket=0, min_version=0), Exit()])
    Loop({"actor-0": RoleInstance(actor, actor)}, LoopClock(), post).run()
    assert log == ["receive", "advance", "receive"]
