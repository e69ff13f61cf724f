"""Does to a run on lab hosts what a schedule says, and proves each fault."""

from __future__ import annotations

import heapq
import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.schedule import Planned, Schedule
from tests.helpers.ssh_kit import Bench, Command, wait_until
from tianji_cli.lab import Lab

PATIENCE_S = 15.0
"""For an actor that is on its way back; until then it is tried again now and then."""
RETRY_S = 0.5

Timer = tuple[float, int, Callable[[], None]]
"""When, from the beginning; a number that tells timers apart; what is done then."""


class NotNow(Exception):
    """What a fault is meant for is not there at this moment."""


@dataclass
class Chaos:
    """Does what a schedule says to one run after another.

    Attributes:
        bench: The lab and where runs go.
        schedule: What is to happen.
        log: Where every fault is written down with its proof.
        late_s: By how much faults come later than planned, as earlier ones took long.
    """

    bench: Bench
    schedule: Schedule
    log: Path
    began_s: float = field(default_factory=time.monotonic)
    late_s: float = 0.0
    seen: set[int] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    _timers: list[Timer] = field(default_factory=list)
    _undos: list[Timer] = field(default_factory=list)

    @property
    def lab(self) -> Lab:
        return self.bench.lab

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began_s

    @property
    def is_over(self) -> bool:
        """Whether every fault was done or skipped."""
        return len(self.seen) == len(self.schedule.faults)

    def pursue(self, command: Command) -> None:
        """Performs what is due until the run has ended or nothing is left to do.

        A late fault makes all later ones as late: on a slow machine two would else add up.
        """
        for planned in self.schedule.faults:
            if planned.number not in self.seen:
                self._plan(planned.at_s, planned, command)
        while (timers := self._next_timers()) and command.process.poll() is None:
            left_s = self._left_s(timers)
            if left_s > 0:
                time.sleep(min(0.2, left_s))
                continue
            if timers is self._timers:
                self.late_s -= left_s
            _, _, act = heapq.heappop(timers)
            act()

    def _left_s(self, timers: list[Timer]) -> float:
        """Until the first of them; undoing is never put off."""
        due_s = timers[0][0] + (self.late_s if timers is self._timers else 0.0)
        return due_s - self.elapsed_s

    def _next_timers(self) -> list[Timer]:
        """Those with what comes next. Undoing precedes faults that are due, or a host would be cut
        until all of them were done."""
        undos, faults = self._undos, self._timers
        if undos and (not faults or self._left_s(undos) <= max(0.0, self._left_s(faults))):
            return undos
        return faults

    def recover(self) -> None:
        """Makes every host as it was, whatever was still to be undone."""
        self._timers.clear()
        self._undos.clear()
        for host in self.lab.status():
            if host.state == "dead":
                self.lab.start(host.name)
            if host.state == "frozen":
                self.lab.thaw(host.name)
            if host.is_cut and host.state != "dead":
                self.lab.heal(host.name)
            self.lab.free(host.name)

    def _plan(self, at_s: float, planned: Planned, command: Command) -> None:
        heapq.heappush(
            self._timers, (at_s, planned.number, lambda: self._perform(planned, command))
        )

    def _perform(self, planned: Planned, command: Command) -> None:
        """Does it, or tries again soon; never waits, as others have to be undone in time."""
        try:
            proof = self._do(planned, command)
            self.done[planned.kind] += 1
        except NotNow as error:
            at_s = self.elapsed_s - self.late_s
            if at_s < planned.at_s + PATIENCE_S:
                self._plan(at_s + RETRY_S, planned, command)
                return
            proof = f"skipped: {error}"
            self.skipped[planned.kind] += 1
        self.seen.add(planned.number)
        self._write(planned, proof)

    def _write(self, planned: Planned, proof: str) -> None:
        row = {"t_s": round(self.elapsed_s, 2), "number": planned.number, "kind": planned.kind,
               "target": planned.target, "for_s": planned.for_s, "proof": proof}  # fmt: skip
        with self.log.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _undo(self, planned: Planned, act: Callable[[], None]) -> None:
        heapq.heappush(self._undos, (self.elapsed_s + planned.for_s, planned.number, act))

    def _do(self, planned: Planned, command: Command) -> str:
        """Performs a fault; returns what proves that it happened."""
        host = planned.target
        if host and self._state(host) == "dead":
            raise NotNow(f"{host} is dead")
        match planned.kind:
            case "kill-actor":
                return self._kill(host, *self._actor_on(host, command))
            case "stop-actor":
                return self._stop(planned, command)
            case "cut-host":
                return self._cut(planned, host)
            case "freeze-host":
                self._require("up", host)
                self.lab.freeze(host)
                self._undo(planned, lambda: self.lab.thaw(host))
                return self._prove(self._state(host) == "frozen", f"{host} is frozen")
            case "fill-host":
                self.lab.fill(host)
                self._undo(planned, lambda: self.lab.free(host))
                is_full = next(h.is_full for h in self.lab.status() if h.name == host)
                return self._prove(is_full, f"{host} has no room")
            case "kill-learner" | "kill-buffer":
                role = f"{planned.kind.removeprefix('kill-')}-0"
                return self._kill(self.bench.hosts[0], role, self._pid_of_role(role, command))
            case "kill-coordinator":
                pid = self._pid_of_role("coordinator", command)
                return self._kill(self.bench.hosts[0], "coordinator", pid)
            case "kill-supervisor":
                return self._kill_first(host, "-m engine.supervision.supervisor")
            case "kill-forkserver":
                return self._kill_first(host, "-m engine.runtime.forkserver")
            case "kill-controller":
                command.process.kill()
                code = command.process.wait(5)
                return self._prove(code == -signal.SIGKILL, "the command was killed")
            case "crash-host":
                self._require("up", host)
                self.lab.crash(host)
                return self._prove(self._state(host) == "dead", f"{host} has no power")
            case "cut-head":
                head = self.bench.hosts[0]
                self.lab.cut(head)
                reached = self.bench.can_reach(self.bench.hosts[1], head)
                return self._prove(not reached, f"{head} is not reached")

    def _signal(self, host: str, name: str, pid: int, number: int) -> None:
        done = self.lab.exec(host, ["kill", f"-{int(number)}", str(pid)])
        if done.returncode != 0:
            raise NotNow(f"{name}, process {pid} on {host}, has just ended")

    def _kill(self, host: str, name: str, pid: int) -> str:
        self._signal(host, name, pid, signal.SIGKILL)
        wait_until(lambda: not self.bench.is_alive(host, pid), 5, f"{name} is dead")
        return f"{name}, process {pid} on {host}, is gone"

    def _kill_first(self, host: str, part: str) -> str:
        found = self.bench.processes(host, part)
        if not found:
            raise NotNow(f"{host} runs none")
        return self._kill(host, part, found[0][0])

    def _stop(self, planned: Planned, command: Command) -> str:
        host = planned.target
        name, pid = self._actor_on(host, command)
        self._signal(host, name, pid, signal.SIGSTOP)

        def go_on() -> None:
            self.lab.exec(host, ["kill", f"-{int(signal.SIGCONT)}", str(pid)])

        def is_stopped() -> bool:  # it runs until its core hears of the signal
            stat = self.lab.exec(host, ["cat", f"/proc/{pid}/stat"]).stdout
            if not stat:
                raise NotNow(f"{name}, process {pid} on {host}, has just ended")
            return stat.rpartition(") ")[2][:1] == "T"

        self._undo(planned, go_on)
        wait_until(is_stopped, 5, f"{name} is stopped")
        return f"{name}, process {pid} on {host}, is stopped"

    def _cut(self, planned: Planned, host: str) -> str:
        self._require("up", host)
        self.lab.cut(host)
        self._undo(planned, lambda: self.lab.heal(host))
        reached = self.bench.can_reach(self.bench.hosts[0], host)
        return self._prove(not reached, f"{host} is not reached")

    def _prove(self, is_so: bool, proof: str) -> str:
        assert is_so, f"the fault did not happen: {proof}"
        return proof

    def _state(self, name: str) -> str:
        return next(host.state for host in self.lab.status() if host.name == name)

    def _require(self, state: str, host: str) -> None:
        if (found := self._state(host)) != state:
            raise NotNow(f"{host} is {found}")

    def _actor_on(self, host: str, command: Command) -> tuple[str, int]:
        """The actor of a host, if it is there and not frozen with it."""
        rows = command.rows("events")
        there = {row["role"] for row in rows if row["kind"] == "joined" and row["host"] == host}
        for role in sorted(role for role in there if role.startswith("actor-")):
            pid = self._pid(host, command.run_dir.name, role)
            if pid and self._state(host) in ("up", "cut") and self.bench.is_alive(host, pid):
                return role, pid
        raise NotNow(f"no living actor on {host}")

    def _pid_of_role(self, role: str, command: Command) -> int:
        host = self.bench.hosts[0]
        pid = self._pid(host, command.run_dir.name, role)
        if not pid or not self.bench.is_alive(host, pid):
            raise NotNow(f"no living {role} on {host}")
        return pid

    def _pid(self, host: str, run: str, role: str) -> int:
        done = self.lab.exec(host, ["cat", f"/root/.tianji/runs/{run}@{host}/state/{host}.json"])
        try:
            return int(json.loads(done.stdout)["roles"][role]["pid"])
        except (ValueError, KeyError):
            return 0  # it has ended, or is being started
