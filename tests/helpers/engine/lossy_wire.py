"""Roles, and between them a wire that keeps the order and, when it breaks, loses what it held."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import pytest

from engine.messages import COORDINATOR, Report
from engine.roles.commands import Command, Role, Send, Wake
from engine.roles.events import Event, TimerFired
from engine.trace.records import Record

MAX_TURNS = 50_000


class Wire:
    """One order in which messages arrive and connections break.

    Args:
        roles: By address.
        perform: What a body does with a command: the events that come of it.
        seed: Of that order.
        breaks: How probable it is at each turn that a connection breaks.
        keeps: Connections that never do, by who sends and who receives.

    Attributes:
        num_lost: Messages.
        records: What the roles have reported.
    """

    def __init__(
        self,
        roles: dict[str, Role],
        perform: Callable[[str, Command], list[Event]],
        seed: int,
        breaks: float,
        keeps: Callable[[str, str], bool] = lambda sender, receiver: False,
    ) -> None:
        self.roles = roles
        self.now_s = 0.0
        self.num_lost = 0
        self.records: list[Record] = []
        self._perform = perform
        self._choose = random.Random(seed)
        self._breaks, self._keeps = breaks, keeps
        self._links: dict[tuple[str, str], deque[Event]] = {}
        self._wakes: dict[str, float] = {}
        self._num_lost_roles = 0

    def handle(self, name: str, event: Event) -> None:
        """Gives an event to a role; what it says is under way then."""
        for command in self.roles[name].handle(event, self.now_s):
            match command:
                case Send(to=to, message=message) if to in self.roles:
                    self.send(name, to, message)
                case Send(to=to, message=Report(records=records)) if to == COORDINATOR:
                    self.records += records
                case Send():
                    pass
                case Wake(after_s=after_s):
                    self._wakes[name] = self.now_s + after_s
                case _:
                    for result in self._perform(name, command):
                        self.handle(name, result)

    def send(self, sender: str, receiver: str, message: Event) -> None:
        """Hands a message to the connection between two."""
        self._links.setdefault((sender, receiver), deque()).append(message)

    def lose_role(self, name: str) -> None:
        """A role is gone, and with it what it had not yet brought away: the end of what it said.

        The rest arrives as from somebody else, since another may take its place.
        """
        del self.roles[name]
        self._wakes.pop(name, None)
        self._num_lost_roles += 1
        for sender, receiver in [link for link in self._links if name in link]:
            messages = self._links.pop((sender, receiver))
            if sender == name:
                said = deque(list(messages)[: self._choose.randint(0, len(messages))])
                self._links[f"{name}, lost {self._num_lost_roles}", receiver] = said

    def run(self, is_over: Callable[[], bool]) -> None:
        """Goes on until something holds."""
        for _ in range(MAX_TURNS):
            if is_over():
                return
            self._turn()
        pytest.fail("it does not get on")

    def _turn(self) -> None:
        """A message arrives, or a timer fires if none is under way; a connection may break."""
        full = [link for link, messages in self._links.items() if messages]
        if not full:
            name = min(self._wakes, key=self._wakes.__getitem__)
            self.now_s = max(self.now_s, self._wakes.pop(name))
            self.handle(name, TimerFired())
            return
        sender, receiver = self._choose.choice(full)
        if self._choose.random() < self._breaks and not self._keeps(sender, receiver):
            self._lose(sender, receiver)
            self._lose(receiver, sender)
        else:
            self.handle(receiver, self._links[sender, receiver].popleft())

    def _lose(self, sender: str, receiver: str) -> None:
        """Loses what was handed to the connection; what still waits for it is sent later."""
        messages = self._links.get((sender, receiver), deque())
        for _ in range(self._choose.randint(0, len(messages))):
            messages.popleft()
            self.num_lost += 1
