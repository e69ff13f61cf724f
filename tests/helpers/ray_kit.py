"""A real Ray on the hosts of a lab: its head on the first, where TianJi is installed, too."""

from __future__ import annotations

import itertools
import secrets
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.helpers.lab_kit import RESULTS, LabKit
from tests.helpers.ssh_kit import RunFiles, wait_until

PORT = 6379
NUM_CPUS = 2
NUM_GPUS = 2
"""Of each node; Ray believes what it is told."""
JOBS_PORT = 8265
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_health_check_period_ms": "1000",  # by default a dead node is one for a quarter of a minute
    "RAY_health_check_failure_threshold": "3",
}
PATIENT = '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}'
PID_FILE = "/run/ray-start.pid"
LOG = "/run/ray-start.log"
_AWAIT_PROGRAM = """
import sys, time, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")

@ray.remote(num_cpus=0, max_retries=0)
def ping():
    return 1

def all_answer():
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if sorted(node["NodeManagerAddress"] for node in nodes) != sys.argv[2:]:
        return False
    ways = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    try:
        ray.get([ping.options(scheduling_strategy=way).remote() for way in ways], timeout=20)
    except ray.exceptions.RayError:
        return False  # a node that has died, which the head does not know yet
    return True

while not all_answer():
    time.sleep(0.2)
"""
_JOBS_PROGRAM = """
import os, sys
import ray.dashboard
from ray._raylet import GcsClient
address = sys.argv[1]
client = GcsClient(address=address)
session = os.path.realpath("/tmp/ray/session_latest")
host = address.partition(":")[0]
arguments = [
    f"--host={host}", "--port=8265", "--port-retries=0", "--temp-dir=/tmp/ray",
    f"--log-dir={session}/logs", f"--session-dir={session}", f"--gcs-address={address}",
    f"--cluster-id-hex={client.cluster_id.hex()}", f"--node-ip-address={host}",
    "--modules-to-load=JobHead,NodeHead",
]
program = os.path.join(os.path.dirname(ray.dashboard.__file__), "dashboard.py")
os.execv(sys.executable, [sys.executable, program, *arguments])
"""
_PARTS = ("tianji", "engine.", "ray::Carrier", "ray::Job", " -I -S -c ")
"""Of the command lines of all that is not Ray's own: commands, drivers, actors, keepers, roles."""
_PORTS = (
    "--node-manager-port=6380",
    "--object-manager-port=6381",
    "--runtime-env-agent-port=6382",
    "--dashboard-agent-listen-port=6383",
    "--dashboard-agent-grpc-port=6384",
    "--metrics-export-port=6385",
    "--min-worker-port=11000",
    "--max-worker-port=11999",
)


@dataclass
class Background(RunFiles):
    """A command on the first host, and the run that it starts.

    Attributes:
        kit: The Ray beside which it runs.
        place: Its files there: `.out`, `.err`, `.pid`, `.code`.
    """

    kit: RayKit
    place: str

    def _read(self, ending: str) -> str:
        return self.kit.read(self.kit.first, self.place + ending)

    @property
    def said(self) -> str:
        return self._read(".err")

    @property
    def out(self) -> str:
        return self._read(".out")

    @property
    def pid(self) -> int:
        return int(self._read(".pid"))

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        text = self._read(".code").strip()
        return int(text) if text else None

    def wait(self, within_s: float) -> int:
        """Its exit code, once it has ended."""
        wait_until(lambda: self.code is not None, within_s, f"it has ended\n{self.said}")
        assert self.code is not None
        return self.code

    def wait_for_training(self, updates: int = 3, within_s: float = 60.0) -> None:
        def is_training() -> bool:
            assert self.code is None, self.said
            return len(self.rows("consumption")) >= updates

        wait_until(is_training, within_s, f"training\n{self.said}")


@dataclass
class RayKit(LabKit):
    """The Ray of a lab."""

    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def cluster(self) -> str:
        return f"{self.address(self.first)}:{PORT}"

    def start(self) -> None:
        """Starts the cluster, and waits until all nodes are there."""
        token = secrets.token_hex(32)
        for host in self.hosts:
            self.write(host, "/root/.ray/auth_token", token)
            self.lab.exec(host, ["chmod", "600", "/root/.ray/auth_token"])
        for host in self.hosts:
            self.start_node(host)
        self.install(self.first)
        self.await_nodes()

    def start_node(self, host: str) -> None:
        """Starts a node's daemons, as children of one process."""
        address = self.address(host)
        words = [*RAY, "start", "--block", f"--node-ip-address={address}"]
        words += [
            f"--num-cpus={NUM_CPUS}",
            f"--num-gpus={NUM_GPUS}",
            "--object-store-memory=100000000",
        ]
        words += [*_PORTS, "--disable-usage-stats"]
        if host == self.first:
            words += ["--head", f"--port={PORT}", "--include-dashboard=false"]
        else:
            words += [f"--address={self.cluster}"]
        started = shlex.join(["env", *settings(), "setsid", *words])
        line = f"exec >{LOG} 2>&1; {started} </dev/null &"
        done = self.lab.exec(host, ["sh", "-c", f"{line} echo $! >{PID_FILE}"])
        assert done.returncode == 0, done.stderr

    def await_nodes(self, within_s: float = 60.0) -> None:
        """Waits until all nodes are there, and run what they are given."""
        addresses = sorted(self.address(host) for host in self.hosts)
        words = [*settings(), sys.executable, "-c", _AWAIT_PROGRAM, self.cluster, *addresses]
        wait_until(lambda: _listens(self.cluster), within_s, f"the head\n{self._logs()}")
        done = self.lab.exec(self.first, ["env", *words], timeout_s=within_s)
        assert done.returncode == 0, f"{done.stderr}{self._logs()}"

    def _logs(self) -> str:
        return "\n".join(self.read(host, LOG) for host in self.hosts)

    def inventory(self, text: str, name: str = "hosts") -> str:
        """Writes an inventory on the first host; its path there."""
        path = f"/root/{name}.yaml"
        self.write(self.first, path, text)
        return path

    def begin(self, line: str, run: str = "") -> Background:
        """Starts a line of shell on the first host, in the home directory.

        Args:
            line: What to run.
            run: The run that it starts, whose results go to `RESULTS`.
        """
        place = f"/root/command-{next(self._numbers)}"
        script = (
            f"cd; exec >{place}.out 2>{place}.err </dev/null\n"
            f"env {line} & echo $! >{place}.pid; wait $!; echo $? >{place}.code"
        )
        self.write(self.first, f"{place}.sh", script)
        done = self.lab.exec(
            self.first, ["sh", "-c", f"setsid sh {place}.sh >/dev/null 2>&1 </dev/null &"]
        )
        assert done.returncode == 0, done.stderr
        return Background(self.seen_from_here(self.first, f"{RESULTS}/{run}"), self, place)

    def up(self, inventory: str, *arguments: str, run: str) -> Background:
        """Starts `tianji up` there."""
        words = ("up", inventory, *arguments, "--name", run, "--results", RESULTS)
        return self.begin(self.tianji_line(*words), run)

    @contextmanager
    def jobs(self) -> Iterator[None]:
        """Serves `ray job submit`: the two modules of Ray's dashboard that are needed for it."""
        words = shlex.join([*settings(), sys.executable, "-c", _JOBS_PROGRAM, self.cluster])
        line = f"exec >/run/ray-jobs.log 2>&1; env {words} </dev/null &"
        done = self.lab.exec(self.first, ["sh", "-c", f"{line} echo $! >/run/ray-jobs.pid"])
        assert done.returncode == 0, done.stderr
        address = f"{self.address(self.first)}:{JOBS_PORT}"
        try:
            wait_until(lambda: _listens(address), 40, "jobs are served")
            yield
        finally:
            self.lab.exec(self.first, ["sh", "-c", "kill $(cat /run/ray-jobs.pid)"])
            wait_until(lambda: not _listens(address), 20, "jobs are not served any more")

    def submit(self, directory: str, line: str, run: str) -> Background:
        """Starts `ray job submit` there, which ends with the job."""
        options = shlex.join(["--working-dir", directory, "--runtime-env-json", PATIENT])
        return self.begin(f"{self.job_line('submit')} {options} -- env {line}", run)

    def job_line(self, action: str) -> str:
        """The line of a script that does something with jobs."""
        address = f"http://{self.address(self.first)}:{JOBS_PORT}"
        return shlex.join([*settings(), *RAY, "job", action, "--address", address])

    @contextmanager
    def open_cluster(self) -> Iterator[str]:
        """Another cluster, of the last host alone, that asks for no token; its address."""
        host = self.hosts[-1]
        address = f"{self.address(host)}:{PORT + 100}"
        words = ["RAY_AUTH_MODE=disabled", *RAY, "start", "--head", "--block", "--num-cpus=1"]
        words += [f"--node-ip-address={self.address(host)}", f"--port={PORT + 100}"]
        words += ["--include-dashboard=false", "--object-store-memory=80000000"]
        words += ["--disable-usage-stats", "--temp-dir=/tmp/open-ray"]
        line = f"exec >/run/open-ray.log 2>&1; env {shlex.join([*settings(), *words])} </dev/null &"
        done = self.lab.exec(host, ["sh", "-c", f"{line} echo $! >/run/open-ray.pid"])
        assert done.returncode == 0, done.stderr
        try:
            wait_until(lambda: _listens(address), 60, self.read(host, "/run/open-ray.log"))
            yield address
        finally:
            self.lab.exec(host, ["sh", "-c", "kill $(cat /run/open-ray.pid)"])
            wait_until(lambda: not _listens(address), 20, "the other cluster has ended")

    def processes(self, host: str) -> list[tuple[int, str]]:
        """What runs on a host besides Ray's daemons and its idle workers."""
        return [
            (process.pid, process.command)
            for process in self.lab.processes(host)
            if any(part in process.command for part in _PARTS)
        ]

    def kill(self, host: str, pid: int) -> None:
        """Kills a process at once, and proves that it was there."""
        assert any(process.pid == pid for process in self.lab.processes(host))
        done = self.lab.exec(host, ["kill", "-KILL", str(pid)])
        assert done.returncode == 0, done.stderr

    def forget(self) -> None:
        """Brings back dead hosts and removes what is left, for the next test."""
        is_whole = True
        for status in self.lab.status():
            if status.state == "dead":
                is_whole = False
                self.lab.start(status.name)
                self.start_node(status.name)
        for host in self.hosts:
            if left := [str(pid) for pid, _ in self.processes(host)]:
                self.lab.exec(host, ["kill", "-KILL", *left])
            self.lab.exec(host, ["sh", "-c", "rm -rf /root/.tianji/runs/* /tmp/tianji-*"])
        self.lab.exec(self.first, ["rm", "-rf", RESULTS])
        if not is_whole:
            self.await_nodes()

    def stop(self) -> None:
        """Ends the daemons of each node by the process that started them."""
        for host in reversed(self.hosts):
            self.lab.exec(host, ["sh", "-c", f"kill $(cat {PID_FILE})"])
            wait_until(
                lambda host=host: not self.lab.processes(host),
                30,
                f"Ray has ended on {host}, where {self.lab.processes(host)} run",
            )


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def settings() -> list[str]:
    """Ray's variables, for `env`."""
    return [f"{name}={text}" for name, text in ENV.items()]
