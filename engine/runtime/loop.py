"""The one loop of every process: wait, decode, handle, perform.

It runs the roles of one process (`engine.runtime.worker`), or all roles of a run without any
sockets (`engine.runtime.inline`). Roles of one process call each other through its inbox; nothing
is serialised. It waits in one poll on sockets and timers; a loop without sockets sleeps until its
next timer.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from engine.clock import RunClock
from engine.errors import WireError
from engine.messages import (
    COORDINATOR,
    TAKERS,
    TAKES_WEIGHTS,
    AnyMessage,
    Probe,
    ProbeAnswered,
    Report,
    Start,
    role_of,
)
from engine.roles.commands import (
    Command,
    InsertRollout,
    Quit,
    Role,
    Send,
    StartRun,
    StepEnvironment,
    Update,
    UpdateFromSamples,
    Wake,
)
from engine.roles.events import Event, TimerFired
from engine.runtime.reports import Reports
from engine.timing import OFF, SENDING, WAITING, Sections
from engine.wire.sockets import Sockets
from engine.wording import plural

SLICE_S = 0.01
"""Longest time that a busy executor runs before messages are polled again."""

REFUSALS_SAID = 20
"""So many refused frames are logged as they come."""
REFUSAL_EVERY_S = 5.0
"""How often one is logged after these."""

WORK = (Update, UpdateFromSamples, InsertRollout, StepEnvironment)
"""Commands that are progress of a run; others, such as saving, are not."""


def _send_nowhere(to: str, message: AnyMessage) -> None:
    """What is for no role of a process without sockets is for nobody."""


class Executor(Protocol):
    """Performs a role's own commands."""

    @property
    def is_busy(self) -> bool:
        """Whether a command is running that `advance` continues."""
        ...

    def perform(self, command: Command) -> list[Event]: ...

    def advance(self, budget_s: float) -> list[Event]: ...

    def close(self) -> None: ...


class LoopClock:
    """The run's timeline in this process; starts over when the run starts.

    Args:
        offset_ns: This host's monotonic clock minus that of the coordinator's host.
    """

    def __init__(self, offset_ns: int = 0) -> None:
        self._offset_ns = offset_ns
        self._clock = RunClock.start_now()

    def restart(self, origin_ns: int) -> None:
        """Sets time zero, given on the coordinator's monotonic clock."""
        self._clock = RunClock(origin_ns + self._offset_ns)

    @property
    def origin_ns(self) -> int:
        return self._clock.origin_ns - self._offset_ns

    def now_s(self) -> float:
        return self._clock.now_s()


@dataclass
class RoleInstance:
    """A role and its executor in this process."""

    role: Role
    executor: Executor
    wake_at_s: float | None = field(default=None)


class Loop:
    """Runs roles until all of them have quit.

    Args:
        hosted: By address.
        clock: The run's timeline, shared with the executors.
        sockets: To the other processes; None if there are none.
        is_orphan: Polled; True ends the process.
        sections: Where its time is counted.
    """

    def __init__(
        self,
        hosted: dict[str, RoleInstance],
        clock: LoopClock,
        sockets: Sockets | None,
        is_orphan: Callable[[], bool] = lambda: False,
        sections: Sections = OFF,
    ) -> None:
        self._hosted = hosted
        self._clock = clock
        self._sockets = sockets
        self._send_out = sections.timed(SENDING, sockets.send) if sockets else _send_nowhere
        self._reports = Reports(self._send_out)
        self._sleep = sections.timed(WAITING, time.sleep)
        self._is_orphan = is_orphan
        self._inbox: deque[tuple[str, Event]] = deque()
        self._turns = deque(hosted)
        self._woke_at_s = time.monotonic()
        self._longest_turn_s = 0.0
        self._work = 0
        self._num_refused = self._num_unsaid = 0
        self._silent_until_s = 0.0

    def post(self, to: str, event: Event) -> None:
        """Adds an event to the inbox of a role in this process."""
        self._inbox.append((to, event))

    def run(self) -> None:
        """Handles all posted events and those that follow from them. What roles have reported is
        sent also if one of them fails."""
        try:
            while self._hosted:
                self._drain_inbox()
                if self._is_orphan():
                    return
                self._receive()
                self._fire_timers()
                self._drain_inbox()  # what came in is begun without asking for more
                self._advance_executors()
        finally:
            self._reports.send()

    def close(self) -> None:
        """Closes the executors of roles that have not quit."""
        for item in self._hosted.values():
            item.executor.close()

    def _drain_inbox(self) -> None:
        while self._inbox:
            address, event = self._inbox.popleft()
            hosted = self._hosted.get(address)
            if hosted is None:
                continue  # it has quit
            if isinstance(event, Start):
                self._clock.restart(event.origin_ns)
            self._perform(address, hosted.role.handle(event, self._clock.now_s()))

    def _perform(self, address: str, commands: list[Command]) -> None:
        hosted = self._hosted[address]
        for command in commands:
            match command:
                case Send(to=to, message=message):
                    self._send(to, message)
                case Wake(after_s=after_s):
                    hosted.wake_at_s = time.monotonic() + after_s
                case StartRun():
                    self._start_run(command)
                case Quit():
                    hosted.executor.close()
                    del self._hosted[address]
                case _:
                    self._work += isinstance(command, WORK)
                    for event in hosted.executor.perform(command):
                        self.post(address, event)

    def _start_run(self, command: StartRun) -> None:
        if not command.is_under_way:
            self._clock.restart(time.monotonic_ns() - round(command.elapsed_s * 1e9))
        for address in command.addresses:
            self._send(address, Start(origin_ns=self._clock.origin_ns))

    def _send(self, to: str, message: AnyMessage) -> None:
        if to in self._hosted:
            self.post(to, message)
        elif isinstance(message, Report):
            self._reports.add(message)
        else:
            if to == COORDINATOR:
                self._reports.send()
            self._send_out(to, message)

    def _receive(self) -> None:
        timeout_s = self._timeout_s()
        if self._sockets is None:
            if timeout_s:
                self._sleep(timeout_s)
            return
        turn_s = time.monotonic() - self._woke_at_s
        self._longest_turn_s = max(self._longest_turn_s, turn_s)
        for to, message in self._sockets.receive(timeout_s):
            if isinstance(message, WireError):
                self._refused(message)
                continue
            if isinstance(message, Probe):
                self._answer(message, self._sockets)
                continue
            for address in self._recipients(to):
                self.post(address, message)
        self._woke_at_s = time.monotonic()

    def _refused(self, error: WireError) -> None:
        """Logs it; of a flood, one every few seconds and how many came since."""
        now_s = time.monotonic()
        self._num_refused += 1
        self._num_unsaid += 1
        if self._num_refused > REFUSALS_SAID and now_s < self._silent_until_s:
            return
        since = (
            "" if self._num_unsaid == 1 else f" (since then: {plural(self._num_unsaid, 'frame')})"
        )
        print(f"refused a frame: {error}{since}", file=sys.stderr, flush=True)
        self._num_unsaid, self._silent_until_s = 0, now_s + REFUSAL_EVERY_S

    def _answer(self, probe: Probe, sockets: Sockets) -> None:
        """Answers the watchdog: this loop runs, and how much work it did."""
        answer = ProbeAnswered(
            process=sockets.address,
            number=probe.number,
            longest_turn_s=self._longest_turn_s,
            work=self._work,
        )
        sockets.send(COORDINATOR, answer)

    def _recipients(self, to: str) -> list[str]:
        """The roles here that a frame is for: one, or all that take weights."""
        if to == TAKERS:
            return [address for address in self._hosted if role_of(address) in TAKES_WEIGHTS]
        return [to] if to in self._hosted else []

    def _timeout_s(self) -> float | None:
        if self._inbox or not self._hosted:
            return 0.0
        if any(item.executor.is_busy for item in self._hosted.values()):
            return 0.0
        wakes = [item.wake_at_s for item in self._hosted.values() if item.wake_at_s is not None]
        wake_at_s = min(*wakes, self._reports.due_s, math.inf)
        return None if wake_at_s == math.inf else max(0.0, wake_at_s - time.monotonic())

    def _fire_timers(self) -> None:
        now_s = time.monotonic()
        self._reports.send_if_due(now_s)
        for address, item in self._hosted.items():
            if item.wake_at_s is not None and item.wake_at_s <= now_s:
                item.wake_at_s = None
                self.post(address, TimerFired())

    def _advance_executors(self) -> None:
        """Runs busy executors; without sockets there is nothing to poll in between."""
        budget_s = SLICE_S if self._sockets is not None else float("inf")
        for _ in range(len(self._turns)):
            if self._inbox:
                return
            address = self._turns[0]
            self._turns.rotate(-1)  # rotates, so that each is first in turn
            item = self._hosted.get(address)
            if item is not None and item.executor.is_busy:
                self._work += 1
                for event in item.executor.advance(budget_s):
                    self.post(address, event)
