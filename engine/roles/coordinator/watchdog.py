"""The watchdog: finds processes that are alive but make no progress, and runs that make none.

Liveness is checked elsewhere (`liveness.py`): a process that died, or whose host went silent, is
known within seconds. The watchdog periodically asks every process whether its event loop still
runs. One that only waits for others answers at once; one that hangs in an environment's step, in an
update or under SIGSTOP does not. The process that went silent first is reported first: the others
possibly only wait for it.

Pure, like the coordinator that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.messages import Probe, ProbeAnswered
from engine.spec import WatchdogSpec

PROBE_S = 5.0
"""Period of probes. A process that has not answered is not asked again."""
PATIENCE = 5.0
"""A process is allowed this multiple of its longest loop iteration so far, up to `MAX_PATIENCE`
times `stuck_s`: slow environments raise no alarm."""
MAX_PATIENCE = 10.0


@dataclass
class _Watched:
    heard_s: float
    asked_s: float = 0.0
    number: int = 0
    is_asked: bool = False
    longest_turn_s: float = 0.0
    work: int = -1
    is_stuck: bool = False


@dataclass(frozen=True)
class Silence:
    """A process that has not answered for `seconds`, and when it was heard last."""

    process: str
    seconds: float
    heard_s: float


class Watchdog:
    """Watches the processes of a run.

    Args:
        spec: The time limits.
        roles_of: The kinds of roles of each process, such as `actor`.
    """

    def __init__(self, spec: WatchdogSpec, roles_of: Mapping[str, frozenset[str]]) -> None:
        self._spec = spec
        self._counts = {
            process for process, kinds in roles_of.items() if kinds - {"evaluator", "reducer"}
        }
        """Processes whose work is the run's progress; evaluating the same weights is not."""
        self._watched: dict[str, _Watched] = {}
        self._worked_s = 0.0

    def start(self, now_s: float) -> None:
        """The run begins."""
        self._watched.clear()
        self._worked_s = now_s

    def probes(self, living: Iterable[str], now_s: float) -> list[tuple[str, Probe]]:
        """The processes to probe now.

        Args:
            living: Running processes; all others are forgotten.
            now_s: On the run's timeline.
        """
        known, self._watched = self._watched, {}
        for process in living:
            self._watched[process] = known.get(process) or _Watched(heard_s=now_s)
        asked = []
        for process, item in self._watched.items():
            is_due = item.number == 0 or now_s - item.heard_s >= PROBE_S
            if is_due and not item.is_asked:
                item.number += 1
                item.is_asked, item.asked_s = True, now_s
                asked.append((process, Probe(number=item.number)))
        return asked

    def answered(self, answer: ProbeAnswered, now_s: float) -> bool:
        """Handles an answer; True if that process had been reported as stuck."""
        item = self._watched.get(answer.process)
        if item is None or answer.number != item.number:
            return False
        if answer.process in self._counts and answer.work != item.work:
            self._worked_s = now_s
        was_stuck = item.is_stuck
        item.heard_s, item.is_asked, item.is_stuck = now_s, False, False
        item.longest_turn_s, item.work = answer.longest_turn_s, answer.work
        return was_stuck

    def newly_stuck(self, now_s: float) -> list[Silence]:
        """Processes that became stuck since the last call; the longest silence first."""
        found = []
        for process, item in self._watched.items():
            silence_s = now_s - item.asked_s
            if item.is_asked and not item.is_stuck and silence_s > self._limit_s(item):
                item.is_stuck = True
                found.append(Silence(process, silence_s, item.heard_s))
        return sorted(found, key=lambda silence: silence.heard_s)

    def is_stuck(self, process: str) -> bool:
        """Whether a process was reported and has not answered since."""
        return process in self._watched and self._watched[process].is_stuck

    def longest_turn_s(self, process: str) -> float:
        """The longest loop iteration of a process; 0 if it is stuck."""
        item = self._watched.get(process)
        return 0.0 if item is None or item.is_stuck else item.longest_turn_s

    def _limit_s(self, item: _Watched) -> float:
        if self._spec.stuck_s is None:
            return float("inf")
        patient_s = min(PATIENCE * item.longest_turn_s, MAX_PATIENCE * self._spec.stuck_s)
        return max(self._spec.stuck_s, patient_s)

    def stalled(self, now_s: float) -> str | None:
        """Why the run must end, if no process made progress for too long."""
        limit_s = self._spec.stalled_s
        if limit_s is None or not self._watched or now_s - self._worked_s <= limit_s:
            return None
        silent = sorted(
            (item.heard_s, process) for process, item in self._watched.items() if item.is_asked
        )
        words = f"no process has done any work for {now_s - self._worked_s:.0f} s"
        if not silent:
            return f"{words}, though all of them answer"
        names = ", ".join(process for _, process in silent)
        return f"{words}; silent, the longest first: {names}"
