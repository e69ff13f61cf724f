"""A lab whose first host has TianJi, as the machine of a cluster on which users log in."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.paths import REPOSITORY
from tests.helpers.ssh_kit import wait_until
from tianji_cli.lab import Lab

HOME_OF_TIANJI = "/opt/tianji"
RESULTS = "/root/results"
PARTS = ("engine", "tianji_cli", "experiments", "inventories")


@dataclass
class LabKit:
    """A lab, used from its first host."""

    lab: Lab

    @property
    def hosts(self) -> list[str]:
        return [host.name for host in self.lab.hosts]

    @property
    def first(self) -> str:
        return self.hosts[0]

    def install(self, host: str) -> None:
        """Copies TianJi to a host."""
        key, known = self.lab.paths.key, self.lab.paths.known_hosts
        address = self.address(host)
        pack = ["tar", "-c", "--exclude=__pycache__", "-C", str(REPOSITORY), *PARTS]
        options = ["-i", str(key), "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]
        script = f"mkdir -p {HOME_OF_TIANJI} && tar -x -C {HOME_OF_TIANJI}"
        packed = subprocess.run(pack, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["ssh", *options, f"root@{address}", script], input=packed, check=True)

    def address(self, host: str) -> str:
        return next(item.address for item in self.lab.hosts if item.name == host)

    def write(self, host: str, path: str, text: str) -> None:
        """Writes a small file on a host."""
        script = 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"'
        done = self.lab.exec(host, ["sh", "-c", script, "write", path, text])
        assert done.returncode == 0, done.stderr

    def read(self, host: str, path: str) -> str:
        """A text file on a host; empty if there is none."""
        return self.lab.exec(host, ["cat", path]).stdout

    def tianji_line(self, *arguments: str) -> str:
        """The line of a script that runs `tianji` on the first host."""
        return f"COLUMNS=200 {self.python_line('-m', 'tianji_cli.main', *arguments)}"

    def python_line(self, *arguments: str) -> str:
        """The line of a script that runs Python there, which finds TianJi."""
        return f"PYTHONPATH={HOME_OF_TIANJI} {shlex.join([sys.executable, *arguments])}"

    def tianji(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs `tianji` on the first host, in the home directory, to its end."""
        script = f"cd && exec env {self.tianji_line(*arguments)}"
        return self.lab.exec(self.first, ["sh", "-c", script], timeout_s=timeout_s)

    def seen_from_here(self, host: str, path: str) -> Path:
        """Where a file that a host wrote lies on this machine."""
        return Path(self.lab.load().plan.host(host).disk, "upper", path.lstrip("/"))

    def processes(self, host: str) -> list[tuple[int, str]]:
        """What runs on a host besides the cluster's own daemons."""
        return [(process.pid, process.command) for process in self.lab.processes(host)]

    def assert_nothing_left(self, within_s: float = 10.0, hosts: Sequence[str] = ()) -> None:
        """No process, no temporary file and no part of a run on any host."""
        for host in hosts or self.hosts:
            wait_until(
                lambda host=host: not self.processes(host),
                within_s,
                f"{host} is empty, but runs {self.processes(host)}",
            )
            listed = self.lab.exec(host, ["ls", "-A", "/tmp"]).stdout
            assert "tianji-" not in listed, listed
            runs = self.lab.exec(host, ["sh", "-c", "ls -A /root/.tianji/runs 2>/dev/null"]).stdout
            assert not runs.split(), f"{host}: {runs}"
