"""Profiles a process: a stopwatch that always runs in exactly one section.

Since it is never in two sections, nor in none, the sections of a role add up to its wall time.
Functions with their own section are wrapped once, when a process is set up; with `OFF` they are
returned unchanged, so without profiling there is no cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ENVIRONMENT = "environment"
INFERENCE = "inference"
RECORDING = "recording"
BATCHING = "batching"
UPDATING = "updating"
MEETING = "meeting"
MERGING = "merging"
WEIGHTS = "weights"
SENDING = "sending"
RECEIVING = "receiving"
SAVING = "saving"
TRACING = "tracing"
CONTROL = "control"
WAITING = "waiting"
OTHERS = "others"

SECTIONS = (
    ENVIRONMENT,
    INFERENCE,
    RECORDING,
    BATCHING,
    UPDATING,
    MERGING,
    WEIGHTS,
    SENDING,
    RECEIVING,
    SAVING,
    TRACING,
    CONTROL,
    MEETING,
    WAITING,
    OTHERS,
)
"""In display order; `docs/results-format.md` explains each."""
IDLE = (MEETING, WAITING, OTHERS)
"""Sections in which a role does no work itself."""

_SHARED = (RECEIVING, WAITING)
"""It is not known yet for which role of the process this is, so it counts for each of them."""


class Sections(Protocol):
    """The interface of a timer."""

    def timed(self, section: str, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, timed as `section`."""
        ...


class NoSections:
    """Times nothing."""

    def timed(self, section: str, function: Callable[P, R]) -> Callable[P, R]:
        return function


OFF = NoSections()


@dataclass(frozen=True)
class Reading:
    """Times of a role so far, in nanoseconds.

    Attributes:
        wall_ns: By section; they add up to the wall time since the stopwatch was started.
        cpu_ns: Processor time of the role's thread while it worked, or waited after that.
        process_cpu_ns: Processor time of all threads of its process.
    """

    wall_ns: dict[str, int]
    cpu_ns: int
    process_cpu_ns: int


class Stopwatch:
    """Counts the wall time of one thread by role and section. Starts in no role's `control`.

    Processor time is read only when another role starts to work, since that is a system call and
    sections change with every env step.

    Args:
        wall_ns, cpu_ns, process_cpu_ns: The clocks; tests give their own.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.perf_counter_ns,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
        process_cpu_ns: Callable[[], int] = time.process_time_ns,
    ) -> None:
        self._wall_ns, self._cpu_ns, self._process_cpu_ns = wall_ns, cpu_ns, process_cpu_ns
        self._bases: dict[str, int] = {"": 0}
        self._spent = [0] * len(SECTIONS)
        self._cpu_spent: dict[str, int] = {"": 0}
        self._owner = ""
        self._base = 0
        self._slot = SECTIONS.index(CONTROL)
        self._since_ns, self._cpu_since_ns = wall_ns(), cpu_ns()

    def add_role(self, role: str) -> None:
        self._bases[role] = len(self._spent)
        self._spent += [0] * len(SECTIONS)
        self._cpu_spent[role] = 0

    def give_turn(self, role: str) -> None:
        """Attributes the time from now on to this role."""
        if role != self._owner:
            self._settle_cpu()
            self._owner, self._base = role, self._bases[role]
        self._switch(self._base + _CONTROL)

    def timed(self, section: str, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, timed as `section` of the working role.

        If a function that it calls is timed as well, the inner section counts instead.
        """
        offset, is_shared = SECTIONS.index(section), section in _SHARED
        spent, wall_ns = self._spent, self._wall_ns

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            # `_switch` twice, inlined: this is called several times per env step.
            before, now_ns = self._slot, wall_ns()
            spent[before] += now_ns - self._since_ns
            self._slot = offset if is_shared else self._base + offset
            self._since_ns = now_ns
            try:
                return function(*args, **kwargs)
            finally:
                now_ns = wall_ns()
                spent[self._slot] += now_ns - self._since_ns
                self._slot, self._since_ns = before, now_ns

        return call

    def read(self, role: str) -> Reading:
        """The time of this role. Sections of no role and of all roles count as its own."""
        self._switch(self._slot)
        self._settle_cpu()
        base, count = self._bases[role], len(SECTIONS)
        own, shared = self._spent[base : base + count], self._spent[:count]
        wall_ns = {name: a + b for name, a, b in zip(SECTIONS, own, shared, strict=True)}
        wall_ns[OTHERS] = sum(self._spent) - sum(own) - sum(shared)
        return Reading(wall_ns, self._cpu_spent[role], self._process_cpu_ns())

    def _switch(self, slot: int) -> None:
        now_ns = self._wall_ns()
        self._spent[self._slot] += now_ns - self._since_ns
        self._slot, self._since_ns = slot, now_ns

    def _settle_cpu(self) -> None:
        now_ns = self._cpu_ns()
        self._cpu_spent[self._owner] += now_ns - self._cpu_since_ns
        self._cpu_since_ns = now_ns


_CONTROL = SECTIONS.index(CONTROL)
