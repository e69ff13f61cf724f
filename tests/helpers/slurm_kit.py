"""A real Slurm on the hosts of a lab: munged and slurmd on each, slurmctld on the first.

The first host is also where users log in: only there TianJi is installed.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.lab_kit import RESULTS, LabKit
from tests.helpers.slurm_conf import CGROUP_CONF, GRES_CONF, NODE_UP, slurm_conf
from tests.helpers.ssh_kit import RunFiles, wait_until

DAEMONS = ("munged", "slurmd", "slurmctld", "slurmscriptd")
"""In the order in which they need each other; the last is a part of the one before it."""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL")


@dataclass
class Job(RunFiles):
    """A batch job and the run in it, whose directory on the first host is looked at from here.

    Attributes:
        kit: The Slurm it was given to.
        number: Its id.
    """

    kit: SlurmKit
    number: str

    @property
    def said(self) -> str:
        return self.kit.read(self.kit.first, f"/root/{self.number}.out")

    @property
    def state(self) -> str:
        return self.kit.state(self.number)

    def wait(self, within_s: float) -> str:
        """Its last state; nothing of the job runs any more."""
        wait_until(
            lambda: self.state in ENDED, within_s, f"job {self.number} {self.state}\n{self.said}"
        )
        return self.state

    def wait_for_training(self, updates: int = 3, within_s: float = 60.0) -> None:
        def is_training() -> bool:
            assert self.state not in ENDED, self.said
            return len(self.rows("consumption")) >= updates

        wait_until(is_training, within_s, f"training\n{self.said}")


@dataclass
class SlurmKit(LabKit):
    """The Slurm of a lab."""

    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def start(self) -> None:
        """Configures and starts everything, and waits until all nodes are idle."""
        key = base64.b64encode(os.urandom(512)).decode()
        addresses = {host.name: host.address for host in self.lab.hosts}
        for host in self.hosts:
            self.write(host, "/etc/munge/munge.key", key)
            self.write(host, "/etc/slurm/slurm.conf", slurm_conf(addresses))
            self.write(host, "/etc/slurm/cgroup.conf", CGROUP_CONF)
            self.write(host, "/etc/slurm/gres.conf", GRES_CONF)
        for host in self.hosts:
            self.start_node(host)
        self.await_idle()
        self.install(self.first)

    def start_node(self, host: str) -> None:
        """Starts the daemons of a host, as its init system would after a boot."""
        role = "controller" if host == self.first else "node"
        script = f"exec >/run/node-up.log 2>&1\n{NODE_UP}"  # daemons keep what they are given
        done = self.lab.exec(host, ["sh", "-c", script, "node-up", role])
        assert done.returncode == 0, self.read(host, "/run/node-up.log")

    def await_idle(self, within_s: float = 60.0) -> None:
        """Until every node can take jobs; one that was down returns to service."""

        def are_idle() -> bool:
            lines = self.call("sinfo", "--noheader", "-N", "--partition=main", "--format=%N %T")
            states = dict(line.split() for line in lines.split("\n") if line)
            for name, state in states.items():
                if state.startswith(("down", "drain")):
                    # It may have returned by itself in the meantime, which scontrol refuses to do.
                    resume = ["scontrol", "update", f"NodeName={name}", "State=RESUME"]
                    self.lab.exec(self.first, resume)
            return list(states.values()) == ["idle"] * len(self.hosts)

        wait_until(are_idle, within_s, "all nodes are idle")

    def call(self, *words: str, timeout_s: float = 60.0) -> str:
        """The output of a program of Slurm on the first host."""
        done = self.lab.exec(self.first, [*words], timeout_s=timeout_s)
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, script: str, *options: str, run: str = "") -> Job:
        """Gives a batch script to Slurm.

        Args:
            script: Its lines, without the first.
            options: Of `sbatch`.
            run: The run that the script starts, whose results go to `RESULTS`.
        """
        path = f"/root/job-{next(self._numbers)}.sh"
        self.write(self.first, path, f"#!/bin/sh\n{script}\n")
        number = self.call("sbatch", "--parsable", "--output=/root/%j.out", *options, path)
        return Job(self.seen_from_here(self.first, f"{RESULTS}/{run}"), self, number)

    def up(
        self,
        *arguments: str,
        run: str,
        options: Sequence[str] = ("--nodes=4",),
        before: str = "true",
    ) -> Job:
        """A job that becomes `tianji up --slurm`.

        Args:
            arguments: Of `up`.
            run: Its name.
            options: Of `sbatch`; the first host must be among its nodes.
            before: A line of the script that is run first.
        """
        line = self.tianji_line("up", "--slurm", *arguments, "--name", run, "--results", RESULTS)
        return self.submit(f"{before}\nexec env {line}", *options, run=run)

    def kill_up(self) -> None:
        """Kills the command of a job, which is the only one that runs on the first host."""
        (pid,) = [
            pid
            for pid, command in self.processes(self.first)
            if "tianji_cli.main up" in command and not command.startswith("srun")
        ]
        done = self.lab.exec(self.first, ["kill", "-KILL", str(pid)])
        assert done.returncode == 0, done.stderr

    def role_pid(self, host: str, run: str, address: str) -> int:
        """The pid of a role, as its host's state file says."""
        text = self.read(host, f"/root/.tianji/runs/{run}@{host}/state/{host}.json")
        return int(json.loads(text)["roles"][address]["pid"])

    def record(self, job: str) -> Mapping[str, str]:
        """What Slurm says of a job; empty once it has forgotten it."""
        done = self.lab.exec(self.first, ["scontrol", "--oneliner", "show", "job", job])
        return dict(re.findall(r"(\w+)=(\S*)", done.stdout))

    def state(self, job: str) -> str:
        """Its state, such as `RUNNING`; `COMPLETING` while a process of it is left."""
        return self.record(job).get("JobState", "FORGOTTEN")

    def processes(self, host: str) -> list[tuple[int, str]]:
        """What runs on a host besides Slurm's daemons."""
        return [
            (process.pid, process.command)
            for process in self.lab.processes(host)
            if _name_of(process.command) not in DAEMONS
        ]

    def forget(self) -> None:
        """Ends all jobs, brings back dead hosts, removes what is left, for the next test."""
        for status in self.lab.status():
            if status.state == "dead":
                self.lab.start(status.name)
            if status.is_cut:
                self.lab.heal(status.name)
        for host in self.hosts:
            self.start_node(host)
        self.call("scancel", "--quiet", "--user=root")
        wait_until(lambda: not self.call("squeue", "--noheader"), 60, "no job is left")
        for host in self.hosts:
            if left := [str(pid) for pid, _ in self.processes(host)]:
                self.lab.exec(host, ["kill", "-KILL", *left])
            self.lab.exec(host, ["sh", "-c", "rm -rf /root/.tianji/runs/* /tmp/tianji-*"])
        self.lab.exec(self.first, ["rm", "-rf", RESULTS])
        self.await_idle()

    def stop(self) -> None:
        """Ends every daemon by its id, those that others need last, and waits until it is gone."""
        for name in reversed(DAEMONS[:-1]):
            for host in self.hosts:
                if pids := self._daemons(host, name):
                    self.lab.exec(host, ["kill", *pids])
            for host in self.hosts:
                wait_until(
                    lambda host=host, name=name: not self._daemons(host, name),
                    20,
                    f"{name} has ended on {host}, where {self.lab.processes(host)} run",
                )

    def _daemons(self, host: str, name: str) -> list[str]:
        return [str(p.pid) for p in self.lab.processes(host) if _name_of(p.command) == name]


def _name_of(command: str) -> str:
    """The program of a command line; Slurm's name their purpose, as `: slurmscriptd` does."""
    return Path(command.removeprefix(": ").split()[0]).name.rstrip(":")
