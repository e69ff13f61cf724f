"""Starts the command line as a user would, and looks into the hosts of a lab."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.paths import REPOSITORY
from tianji_cli.connectors.piped.program import NAME as KEEPER
from tianji_cli.lab import Lab

SHORT = ("-s", "stop.return_threshold=null", "-s", "learner.compile=off")
SLOWED = ("-s", "env.step_latency_ms=8")
"""However fast the machine, a few thousand env steps then take longer than leaving a run alone."""


def wait_until(is_so: Callable[[], object], within_s: float, what: str) -> None:
    """Looks again and again, until it is so."""
    end_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end_s, f"not within {within_s} s: {what}"
        time.sleep(0.1)


def other_python() -> Path | None:
    """An interpreter of another minor release, if this machine has one that works."""
    others = [minor for minor in range(8, 16) if minor != sys.version_info.minor]
    found = [shutil.which(f"python3.{minor}") for minor in others]
    beside = Path(sys.base_prefix).parent
    found += [str(path) for m in others for path in beside.glob(f"3.{m}.*/bin/python3.{m}")]
    for path in filter(None, found):
        if not subprocess.run([path, "-c", "0"], capture_output=True, check=False).returncode:
            return Path(path).resolve()
    return None


@dataclass
class RunFiles:
    """The files of a run, which may not be there yet."""

    run_dir: Path

    def rows(self, table: str) -> list[dict[str, Any]]:
        path = self.run_dir / "trace" / f"{table}.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.run_dir / "summary.json").read_text()))

    def kinds(self) -> list[str]:
        return [row["kind"] for row in self.rows("events")]


@dataclass
class Command(RunFiles):
    """A running `tianji`."""

    process: subprocess.Popen[str]
    errors: Path
    code: int | None = None

    def wait(self, within_s: float) -> int:
        try:
            self.code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still running after {within_s} s:\n{self.said}") from None
        return self.code

    @property
    def said(self) -> str:
        return self.errors.read_text()

    def wait_for_training(self, updates: int = 3, within_s: float = 60.0) -> None:
        """Until traces that came over SSH while the run goes on say that it learns."""

        def is_training() -> bool:
            assert self.process.poll() is None, self.said
            return len(self.rows("consumption")) >= updates

        wait_until(is_training, within_s, f"training\n{self.said}")


@dataclass
class Bench:
    """A lab, and a place for results."""

    lab: Lab
    results: Path
    started: list[Command] = field(default_factory=list)

    @property
    def hosts(self) -> list[str]:
        return [host.name for host in self.lab.hosts]

    def tianji(
        self,
        *arguments: str,
        run: str = "",
        inventory: Path | None = None,
        home: Path | None = None,
    ) -> Command:
        """Starts a command; `up` gets the lab's inventory."""
        words = [sys.executable, "-m", "tianji_cli.main", *arguments]
        if arguments[0] == "up":
            words += [str(inventory or self.lab.inventory), "--name", run]
        if arguments[0] != "check":
            words += ["--results", str(self.results)]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
        if home is not None:
            env["HOME"] = str(home)
        errors = self.results / f"{run or arguments[0]}-{len(self.started)}.stderr"
        with errors.with_suffix(".stdout").open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
                cwd=self.results,
                start_new_session=True,
                text=True,
            )
        command = Command(self.results / run, process, errors)
        self.started.append(command)
        return command

    def out(self, command: Command) -> str:
        return command.errors.with_suffix(".stdout").read_text()

    def address(self, name: str) -> str:
        return next(host.address for host in self.lab.hosts if host.name == name)

    def can_reach(self, one: str, other: str) -> bool:
        """Whether a TCP connection from one host to another's sshd opens within a second."""
        target = f": </dev/tcp/{self.address(other)}/22"
        return self.lab.exec(one, ["timeout", "1", "bash", "-c", target]).returncode == 0

    def processes(self, host: str, part: str = "") -> list[tuple[int, str]]:
        """What runs on a host, in its own numbering; only commands that contain `part`.

        Keepers are left out: like sshd's own processes they belong to a connection, not to a run.
        """
        rows = [(p.pid, p.command) for p in self.lab.processes(host) if part in p.command]
        return [(pid, command) for pid, command in rows if KEEPER not in command]

    def keepers(self, host: str) -> list[int]:
        """The keepers on a host: each carries the commands and files of one connection."""
        return [p.pid for p in self.lab.processes(host) if KEEPER in p.command]

    def pid_of(self, run_dir: Path, address: str) -> int:
        """The pid of a role, as its host's state file says."""
        for path in sorted((run_dir / "state").glob("*.json")):
            state = json.loads(path.read_text())
            if address in state["roles"]:
                return int(state["roles"][address]["pid"])
        raise AssertionError(f"no state names {address}")

    def role_pid(self, host: str, run: str, address: str) -> int:
        """The pid of a role, asked on its host."""
        done = self.lab.exec(host, ["cat", f"/root/.tianji/runs/{run}@{host}/state/{host}.json"])
        return int(json.loads(done.stdout)["roles"][address]["pid"])

    def supervisor_pid(self, host: str) -> int:
        ((pid, _),) = self.processes(host, "-m engine.supervision.supervisor")
        return pid

    def is_alive(self, host: str, pid: int) -> bool:
        return any(number == pid for number, _ in self.processes(host))

    def kill(self, host: str, pid: int, number: int = signal.SIGKILL) -> None:
        """Signals a process on a host, and proves that it was there."""
        assert self.is_alive(host, pid)
        done = self.lab.exec(host, ["kill", f"-{int(number)}", str(pid)])
        assert done.returncode == 0, done.stderr

    def reset_connections(self, host: str) -> int:
        """Resets what goes between a host's roles and others, as a firewall does that restarts.

        Returns:
            How many packets were answered by a reset.
        """
        rule = "iptables -w -{} INPUT ! -i lo -p tcp --{} 29500:29599 -j REJECT"
        rule += " --reject-with tcp-reset"
        on, off = ([rule.format(do, side) for side in ("sport", "dport")] for do in "ID")
        count = "iptables -w -nvxL INPUT | awk '/tcp-reset/ {n += $1} END {print n}'"
        script = "; ".join(["set -e", *on, "sleep 0.3", count, *off])
        done = self.lab.exec(host, ["sh", "-c", script])
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def assert_nothing_left(self, within_s: float = 5.0, hosts: list[str] | None = None) -> None:
        """No process, no socket, no temporary file of a run on any host."""
        for host in hosts or self.hosts:
            wait_until(
                lambda host=host: not self.processes(host),
                within_s,
                f"{host} is empty, but runs {self.processes(host)}",
            )
            wait_until(lambda host=host: not self.keepers(host), within_s, f"no keeper on {host}")
            listed = self.lab.exec(host, ["ls", "-A", "/tmp", "/root/.tianji"]).stdout
            assert "tianji-" not in listed, listed
            runs = self.lab.exec(host, ["sh", "-c", "ls -A /root/.tianji/runs 2>/dev/null"]).stdout
            assert not runs.split(), f"{host}: {runs}"

    def forget_runs(self) -> None:
        """Ends and removes what an earlier test could not, so that it fails no other."""
        for host in self.hosts:
            if left := [str(pid) for pid, _ in self.processes(host, "engine.")]:
                self.lab.exec(host, ["kill", "-KILL", *left])
                wait_until(lambda host=host: not self.processes(host), 10, f"{host} is empty")
            self.lab.exec(host, ["sh", "-c", "rm -rf /root/.tianji/runs/* /tmp/tianji-*"])


def limits(*hosts: str) -> Iterator[str]:
    for host in hosts:
        yield from ("--limit", host)
