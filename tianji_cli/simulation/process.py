"""A simulated process: the loop of `engine.runtime.loop`, in simulated time.

It handles one event after the other, performs the commands of its real roles in order, and when
nothing is to be done collects on. It is one thread: while it computes, everything else waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from engine.messages import (
    COORDINATOR,
    TAKES_WEIGHTS,
    AnyMessage,
    Report,
    RolloutArrived,
    WeightsArrived,
    role_of,
)
from engine.roles.commands import Command, Role, Send, Wake
from engine.roles.events import Event, TimerFired
from tianji_cli.simulation.timeline import Cores, Timeline

Done = Callable[[Iterable[Event]], None]
"""Called at the end of some work, with the events that it gives."""


class Performer(Protocol):
    """Does what a role commands, in simulated time."""

    @property
    def is_busy(self) -> bool:
        """Whether it collects or evaluates, in between everything else."""
        ...

    def perform(self, process: SimulatedProcess, command: Command, done: Done) -> None:
        """Performs a command, and then calls `done`, at once or later."""
        ...

    def advance(self, process: SimulatedProcess, done: Done) -> None:
        """Does some of what it is busy with."""
        ...


class Surroundings(Protocol):
    """Where a process is."""

    timeline: Timeline

    def send(self, sender: SimulatedProcess, to: str, message: AnyMessage, at_s: float) -> None:
        """Sends a message to a role elsewhere."""
        ...

    def tell(self, report: Report) -> None:
        """Tells the coordinator."""
        ...


class SimulatedProcess:
    """One process.

    Args:
        name, host: As planned.
        world: Where it sends to.
        cores: Of its host.
        devices: GPUs of its host; None if it has none.
        weight: Its share of a core where these are short, as the kernel counts.
        send_s: What it costs to send weights to another process.
        store_s: What it costs to take in a rollout.

    Attributes:
        busy_s: How long it has computed or waited for a core.
        met_s: How long it has waited for others in sums of gradients.
    """

    def __init__(
        self,
        name: str,
        host: str,
        world: Surroundings,
        cores: Cores,
        devices: Cores | None,
        *,
        weight: float,
        send_s: float,
        store_s: float,
    ) -> None:
        self.name, self.host = name, host
        self.busy_s = self.met_s = 0.0
        self._world, self._timeline = world, world.timeline
        self._cores, self._devices, self._weight = cores, devices, weight
        self._send_s, self._store_s = send_s, store_s
        self._roles: dict[str, tuple[Role, Performer]] = {}
        self._busy: dict[str, None] = {}
        """Roles that collect or evaluate, the one whose turn it is first."""
        self._inbox: deque[tuple[str, Event]] = deque()
        self._commands: deque[tuple[str, Command]] = deque()
        self._newest: dict[str, WeightsArrived] = {}
        """Weights that wait in the inbox, of which only the latest count."""
        self._wakes_s: dict[str, float] = {}
        self._timers: set[str] = set()
        self._owes_s = 0.0
        """Time spent sending, which is made up for after the commands of an event."""
        self._is_occupied = False
        self.is_alone = True
        """Whether what it collects is not interrupted for others: it has no other role."""

    def add(self, role: Role, performer: Performer) -> None:
        """Gives it a role."""
        self._roles[role.address] = (role, performer)
        self.is_alone = len(self._roles) == 1

    @property
    def addresses(self) -> list[str]:
        """Its roles."""
        return list(self._roles)

    @property
    def takers(self) -> list[str]:
        """Roles that take weights."""
        return [address for address in self._roles if role_of(address) in TAKES_WEIGHTS]

    def deliver(self, to: str, event: Event) -> None:
        """An event is here."""
        self._enter(to, event)
        self._go_on()

    def _enter(self, to: str, event: Event) -> None:
        if isinstance(event, WeightsArrived):
            waits = to in self._newest
            self._newest[to] = event
            if waits:
                return
        self._inbox.append((to, event))

    def compute(
        self, wall_s: float, share: float, then: Callable[[], None], *, on_device: bool = False
    ) -> None:
        """Occupies the thread, and a core for a share of the time, or a GPU."""
        pool = self._devices if on_device and self._devices is not None else self._cores
        began_s = self._timeline.now_s
        self._is_occupied = True

        def end() -> None:
            self.busy_s += self._timeline.now_s - began_s
            self._is_occupied = False
            then()
            self._go_on()

        pool.start(wall_s, share, self._weight, end)

    def block(self, join: Callable[[Callable[[], None]], None], then: Callable[[], None]) -> None:
        """Occupies the thread, and no core, until what it joins lets it go."""
        self._is_occupied = True
        began_s = self._timeline.now_s

        def end() -> None:
            self.met_s += self._timeline.now_s - began_s
            self._is_occupied = False
            then()
            self._go_on()

        join(end)

    def _go_on(self) -> None:
        while not self._is_occupied:
            if self._commands:
                self._perform(*self._commands.popleft())
            elif self._owes_s:
                owed_s, self._owes_s = self._owes_s, 0.0
                self.compute(owed_s, 1.0, _nothing)
            elif self._inbox:
                self._take(*self._inbox.popleft())
            elif not self._advance():
                return

    def _take(self, to: str, event: Event) -> None:
        if isinstance(event, WeightsArrived):
            event = self._newest.pop(to)
        if isinstance(event, RolloutArrived) and self._store_s:
            self.compute(self._store_s, 1.0, partial(self._handle, to, event))
        else:
            self._handle(to, event)

    def _handle(self, to: str, event: Event) -> None:
        role, _ = self._roles[to]
        self._commands.extend((to, c) for c in role.handle(event, self._timeline.now_s))

    def _perform(self, address: str, command: Command) -> None:
        match command:
            case Send(to=to, message=message):
                self._send(to, message)
            case Wake(after_s=after_s):
                self._wake(address, self._timeline.now_s + after_s)
            case _:
                _, performer = self._roles[address]
                performer.perform(self, command, partial(self._post, address))

    def _post(self, address: str, events: Iterable[Event]) -> None:
        for event in events:
            self._enter(address, event)
        if self._roles[address][1].is_busy:
            self._busy[address] = None

    def _send(self, to: str, message: AnyMessage) -> None:
        if to == COORDINATOR:
            if isinstance(message, Report):
                self._world.tell(message)
        elif to in self._roles:
            self._enter(to, message)
        else:
            if isinstance(message, WeightsArrived):
                self._owes_s += self._send_s
            self._world.send(self, to, message, self._timeline.now_s + self._owes_s)

    def _wake(self, address: str, time_s: float) -> None:
        self._wakes_s[address] = time_s
        if address not in self._timers:
            self._timers.add(address)
            self._timeline.at(time_s, partial(self._ring, address))

    def _ring(self, address: str) -> None:
        """The timer of a role; it may have been set to a later time meanwhile."""
        time_s = self._wakes_s[address]
        if time_s > self._timeline.now_s:
            self._timeline.at(time_s, partial(self._ring, address))
            return
        self._timers.discard(address)
        self.deliver(address, TimerFired())

    def _advance(self) -> bool:
        """Does some of what is collected, in turn; False if there is nothing."""
        address = next(iter(self._busy), None)
        if address is None:
            return False
        del self._busy[address]
        self._roles[address][1].advance(self, partial(self._post, address))
        return True


def _nothing() -> None:
    """There is nothing to do after messages were sent."""
