"""Ten minutes of faults in a random order, on a lab of real hosts.

    python tests/faults/random_faults.py --seed 1 --out DIR          on actors and links
    python tests/faults/random_faults.py --seed 1 --out DIR --severe on everything
    python tests/faults/random_faults.py --replay DIR/schedule.json --out DIR2

`schedule.json` and `faults.jsonl` in DIR say what was planned, and what was done with which proof;
`outcome.json` what came of it. Needs what `tianji lab` needs.
"""

from __future__ import annotations

import argparse
import heapq
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from faults.schedule import (  # noqa: E402
    Planned,
    Schedule,
    make_schedule,
    read_schedule,
    write_schedule,
)
from ssh_kit import REPOSITORY, Bench, Command, wait_until  # noqa: E402

from tianji_cli.analysis.check import rebuild_counters  # noqa: E402
from tianji_cli.analysis.convergence import threshold_crossing  # noqa: E402
from tianji_cli.analysis.examine import examine_runs  # noqa: E402
from tianji_cli.analysis.history import check_history  # noqa: E402
from tianji_cli.analysis.run import load_run  # noqa: E402
from tianji_cli.lab import Lab  # noqa: E402
from tianji_cli.run_dir import RunPaths  # noqa: E402

NUM_HOSTS = 4
THRESHOLD = 475.0
SETTINGS = (
    *("-s", "learner.compile=off", "-s", "stop.env_steps=null", "-s", "stop.return_threshold=null"),
    *("-s", f"actors={NUM_HOSTS - 1}", "-s", "env.step_latency_ms=8", "-s", "restarts=1000"),
    *("-s", "checkpoint.every_s=5"),
)
PATIENCE_S = 15.0
"""For an actor that is on its way back; until then it is tried again now and then."""
RETRY_S = 0.5


class NotNow(Exception):
    """What a fault is meant for is not there at this moment."""


@dataclass
class Chaos:
    """Does what a schedule says to one run after another.

    Attributes:
        bench: The lab and where runs go.
        schedule: What is to happen.
        log: Where every fault is written down with its proof.
    """

    bench: Bench
    schedule: Schedule
    log: Path
    began_s: float = field(default_factory=time.monotonic)
    seen: set[int] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    _agenda: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)

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
        """Performs what is due until the run has ended or nothing is left to do."""
        for planned in self.schedule.faults:
            if planned.number not in self.seen:
                self._plan(planned.at_s, planned, command)
        while self._agenda and command.process.poll() is None:
            at_s, _, act = self._agenda[0]
            if at_s > self.elapsed_s:
                time.sleep(min(0.2, at_s - self.elapsed_s))
                continue
            heapq.heappop(self._agenda)
            act()

    def recover(self) -> None:
        """Makes every host as it was, whatever was still to be undone."""
        self._agenda.clear()
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
            self._agenda, (at_s, planned.number, lambda: self._perform(planned, command))
        )

    def _perform(self, planned: Planned, command: Command) -> None:
        """Does it, or tries again soon; never waits, as others have to be undone in time."""
        try:
            proof = self._do(planned, command)
            self.done[planned.kind] += 1
        except NotNow as error:
            if self.elapsed_s < planned.at_s + PATIENCE_S:
                self._plan(self.elapsed_s + RETRY_S, planned, command)
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
        heapq.heappush(self._agenda, (self.elapsed_s + planned.for_s, -planned.number, act))

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
                return self._kill_first(host, "-m engine.runtime.supervisor")
            case "kill-nursery":
                return self._kill_first(host, "-m engine.runtime.nursery")
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

    def _kill(self, host: str, name: str, pid: int) -> str:
        self.bench.kill(host, pid)
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
        self.bench.kill(host, pid, signal.SIGSTOP)
        stat = self.lab.exec(host, ["cat", f"/proc/{pid}/stat"]).stdout
        state = stat.rpartition(") ")[2][:1]

        def go_on() -> None:
            if self.bench.is_alive(host, pid):
                self.bench.kill(host, pid, signal.SIGCONT)

        self._undo(planned, go_on)
        return self._prove(state == "T", f"{name}, process {pid} on {host}, is in state {state}")

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
        done = self.lab.exec(host, ["cat", f"/root/.tianji/runs/{run}/state/{host}.json"])
        try:
            return int(json.loads(done.stdout)["roles"][role]["pid"])
        except (ValueError, KeyError):
            return 0  # it has ended, or is being started


def judge(command: Command) -> dict[str, object]:
    """What a run's files say of it; asserts what must hold of every run."""
    run = load_run(RunPaths(command.run_dir))
    history = check_history(run)
    assert not history, f"{command.run_dir.name}: {history[:5]}"
    found: dict[str, object] = {"run": command.run_dir.name, "exit_code": command.code}
    if run.summary is not None:
        summary = run.summary
        wrong = rebuild_counters(run)
        assert not wrong, f"{command.run_dir.name}: {wrong[:5]}"
        (examined,) = examine_runs([RunPaths(command.run_dir)])
        crossing = threshold_crossing(examined.curves.episodes, THRESHOLD)
        found |= {
            "status": summary.status,
            "error": (summary.error or "").splitlines()[:1],
            "wall_s": round(summary.wall_s, 1),
            "env_steps_collected": summary.env_steps_collected,
            "env_steps_consumed": summary.env_steps_consumed,
            "env_steps_dropped": summary.env_steps_dropped,
            "env_steps_in_flight": summary.env_steps_in_flight,
            "lag_max": summary.lag.max,
            "restarts": summary.restarts,
            "return_mean": summary.return_mean,
            "threshold_at_s": crossing.t_s if crossing else None,
            "threshold_at_env_steps": crossing.env_steps if crossing else None,
        }
    return found


def hit_actors_and_links(chaos: Chaos) -> dict[str, object]:
    """One run, that none of the faults may end."""
    seconds = chaos.schedule.seconds
    settings = (*SETTINGS, "-s", f"stop.seconds={seconds + 20:.0f}")
    command = chaos.bench.tianji("up", *settings, run="random")
    command.wait_for_training()
    chaos.began_s = time.monotonic()
    chaos.pursue(command)
    assert command.process.poll() is None, f"it ended early:\n{command.said}"
    chaos.recover()
    assert command.wait(120) == 0, command.said
    found = judge(command)
    assert found["status"] == "ok"
    chaos.bench.assert_nothing_left(within_s=30)
    return {"runs": [found]}


def hit_everything(chaos: Chaos) -> dict[str, object]:
    """Runs that go on from each other, as each ends by name."""
    runs: list[dict[str, object]] = []
    settings = (*SETTINGS, "-s", "stop.seconds=100000")
    origin: tuple[str, ...] = ()
    at_s = 0.0
    while not chaos.is_over:
        command = chaos.bench.tianji("up", *origin, *settings, run=f"random-{len(runs)}")
        command.wait_for_training()
        chaos.began_s = time.monotonic() - at_s  # the schedule waits while no run is under way
        chaos.pursue(command)
        at_s = chaos.elapsed_s
        if chaos.is_over and command.process.poll() is None:
            command.process.send_signal(signal.SIGINT)
        command.wait(120)
        chaos.recover()
        runs.append(end_of(command, chaos))
        if list(command.run_dir.glob("checkpoints/v*.json")):
            origin = ("--resume", command.run_dir.name)
    return {"runs": runs}


def end_of(command: Command, chaos: Chaos) -> dict[str, object]:
    """A run has ended: by name, in good order, or with its command; `down` leaves nothing."""
    was_killed = command.code == -signal.SIGKILL
    if not was_killed:
        assert command.code in (0, 1, 7, 130), f"exit code {command.code}:\n{command.said}"
        if command.code == 1:
            names = ("learner-0", "buffer-0", "coordinator", "nursery", "tj")
            assert any(name in command.said for name in names), command.said
    down = chaos.bench.tianji("down", command.run_dir.name)
    assert down.wait(90) == 0, down.said
    chaos.bench.assert_nothing_left(within_s=40)
    return {**judge(command), "said": command.said.strip().splitlines()[-3:]}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--faults", type=int, default=125)
    parser.add_argument("--severe", action="store_true")
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args(arguments)
    wanted.out.mkdir(parents=True)
    hide = [REPOSITORY / "engine", REPOSITORY / "tianji_cli"]
    with Lab.up(hosts=NUM_HOSTS, directory=wanted.out / "lab", hide=hide) as lab:
        hosts = [host.name for host in lab.hosts][1:]
        schedule = (
            read_schedule(wanted.replay)
            if wanted.replay
            else make_schedule(
                wanted.seed, wanted.seconds, wanted.faults, hosts, is_severe=wanted.severe
            )
        )
        write_schedule(wanted.out / "schedule.json", schedule)
        results = wanted.out / "results"
        results.mkdir()
        chaos = Chaos(Bench(lab, results), schedule, wanted.out / "faults.jsonl")
        try:
            outcome = (hit_everything if wanted.severe else hit_actors_and_links)(chaos)
        finally:
            for command in chaos.bench.started:
                if command.process.poll() is None:
                    command.process.kill()
                    command.process.wait()
    outcome |= {
        "seed": schedule.seed,
        "seconds": round(chaos.elapsed_s, 1),
        "faults": chaos.done.total(),
        "kinds": dict(chaos.done),
        "skipped": dict(chaos.skipped),
    }
    (wanted.out / "outcome.json").write_text(json.dumps(outcome, indent=2) + "\n")
    print(json.dumps(outcome, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
