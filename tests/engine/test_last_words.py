"""Who is told twice to stop stops once, and says its last word again."""

from __future__ import annotations

from typing import cast

from engine.messages import COORDINATOR, Counters, Exit, Stop, Stopped
from engine.roles.commands import Command, Quit, Send, Wake
from engine.roles.events import Event
from engine.runtime.loop import Body, Hosted, Loop, LoopClock


class NoBody:
    """Has nothing to do."""

    is_busy = False

    def close(self) -> None:
        """Nothing to release."""


class Worker:
    """Says its last word as soon as it is told to stop."""

    def __init__(self) -> None:
        self.num_stops = 0

    def handle(self, event: Event, now_s: float) -> list[Command]:
        if isinstance(event, Exit):
            return [Quit()]
        self.num_stops += 1
        counters = Counters(collected=self.num_stops)
        return [Send(COORDINATOR, Stopped(address="actor-0", counters=counters))]


class Forgetful:
    """A coordinator that hears only the third last word."""

    def __init__(self) -> None:
        self.heard: list[Stopped] = []

    def handle(self, event: Event, now_s: float) -> list[Command]:
        if isinstance(event, Stopped):
            self.heard.append(event)
        if len(self.heard) < 3:
            return [Send("actor-0", Stop()), Wake(60.0)]
        return [Send("actor-0", Exit()), Quit()]


def test_who_is_told_again_to_stop_repeats_its_last_word():
    worker, coordinator = Worker(), Forgetful()
    body = cast("Body", NoBody())
    hosted = {"actor-0": Hosted(worker, body), COORDINATOR: Hosted(coordinator, body)}
    loop = Loop(hosted, LoopClock(), sockets=None)
    loop.post("actor-0", Stop())
    loop.run()
    assert worker.num_stops == 1
    assert [word.counters.collected for word in coordinator.heard] == [1, 1, 1]
