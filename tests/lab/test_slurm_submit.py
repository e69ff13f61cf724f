"""Runs that are submitted to a real Slurm, followed and ended from its login node.

`/dev` of this machine is the same in all hosts of the lab: it stands in for a shared disk.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers.histories import check_histories
from tests.helpers.lab_kit import RESULTS
from tests.helpers.slurm_kit import Job, SlurmKit
from tests.helpers.ssh_kit import SHORT, wait_until

pytestmark = pytest.mark.lab

ENDLESS = (
    *SHORT,
    *("-s", "stop.env_steps=null", "-s", "stop.seconds=240", "-s", "actors=3"),
    *("-s", "env.step_latency_ms=2"),
)
LEARNS = (*SHORT, "-s", "stop.env_steps=null", "-s", "stop.return_threshold=150", "-s", "actors=3")
ONE_CPU = ("--nodes=4", "--cpus-per-task=1")


@dataclass
class LoginNode:
    """Where the user submits runs and follows them.

    Attributes:
        slurm: The cluster.
        results: The results directory, as all nodes see it or as each node has its own.
        place: The first host's results, as seen from here.
    """

    slurm: SlurmKit
    results: str
    place: Path
    jobs: dict[str, Job] = field(default_factory=dict)

    def tianji(self, *words: str, code: int = 0) -> str:
        """What a command prints, on both streams."""
        done = self.slurm.tianji(*words, "--results", self.results, timeout_s=120.0)
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def submit(self, run: str, *words: str) -> Job:
        said = self.tianji("up", "--slurm", "--submit", "--name", run, *words)
        number = json.loads((self.place / run / "job.json").read_text())["job"]
        assert f"submitted run {run} as Slurm job {number}" in said
        self.jobs[run] = Job(self.place / run, self.slurm, number)
        return self.jobs[run]

    def status(self, run: str) -> str:
        return self.tianji("status", run, "--trust")

    def job_log(self, run: str) -> str:
        path = self.place / run / "job.log"
        return path.read_text() if path.exists() else ""

    def wait_for_training(self, job: Job, run: str, updates: int = 3) -> None:
        wait_until(
            lambda: (
                len(Job(self.place / run, self.slurm, job.number).rows("consumption")) >= updates
            ),
            90,
            f"{run} trains: {job.state}\n{self.job_log(job.run_dir.name)}",
        )


@pytest.fixture
def login(slurm: SlurmKit) -> Iterator[LoginNode]:
    """All nodes have TianJi, and share the results directory."""
    for host in slurm.hosts:
        if not slurm.read(host, "/opt/tianji/tianji_cli/main.py"):
            slurm.install(host)
    shared = tempfile.mkdtemp(prefix="tianji-shared-", dir="/dev")
    try:
        yield LoginNode(slurm, shared, Path(shared))
        slurm.call("scancel", "--quiet", "--full", "--signal=KILL", "--user=root")
        slurm.call("scancel", "--quiet", "--user=root")
        wait_until(lambda: not slurm.call("squeue", "--noheader"), 60, "no job writes any more")
        check_histories(Path(shared))
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def checkpoint_version(run_dir: Path) -> int:
    """Of the newest one; 0 before there is any."""
    names = (path.stem for path in (run_dir / "checkpoints").glob("v*.json"))
    return max((int(name.removeprefix("v")) for name in names), default=0)


def assert_interrupted(job: Job) -> None:
    """It was ended with its last checkpoint, and its books balance."""
    summary = job.summary
    assert summary["status"] == "interrupted", job.summary
    taken = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == taken + summary["env_steps_in_flight"]
    assert checkpoint_version(job.run_dir) == job.rows("consumption")[-1]["version"] + 1


def test_two_jobs_are_submitted_followed_and_ended(login: LoginNode) -> None:
    """One by `down`, the other by plain `scancel`, which sends SIGTERM to every process of it."""
    one = login.submit("one", *ENDLESS, *ONE_CPU, "--time=10")
    two = login.submit("two", *ENDLESS, *ONE_CPU, "--time=10")
    waiting = login.submit("waiting", *ENDLESS, "--nodes=4", "--sbatch=exclusive")
    for name, job in (("one", one), ("two", two)):
        login.wait_for_training(job, name)
    assert f"Slurm job {waiting.number} is waiting" in login.status("waiting")
    said = login.status("one")
    assert f"Slurm job {one.number} is running on tj[1-4]" in said
    for word in ("run one: running", "learner-0", "actor-2"):
        assert word in said
    logs = login.tianji("logs", "two")
    assert "job | " in logs
    assert f"learner-0@{login.slurm.first} | " in logs

    assert "it was cancelled" in login.tianji("down", "waiting")
    said = login.tianji("down", "one", "--trust")
    assert "has ended: interrupted" in said
    assert "killed" not in said
    assert_interrupted(one)
    assert two.state == "RUNNING"

    login.slurm.call("scancel", two.number)
    assert two.wait(30) == "CANCELLED"
    assert_interrupted(two)
    said = login.status("two")
    assert "it was cancelled (CANCELLED)" in said
    assert "tianji up --slurm --resume two" in said
    login.slurm.assert_nothing_left()


def test_a_job_that_is_requeued_goes_on_elsewhere_to_the_threshold(login: LoginNode) -> None:
    slurm = login.slurm
    first, second, *others = slurm.hosts
    job = login.submit(
        "run", *LEARNS, "-s", "env.step_latency_ms=1", "--nodes=2", "--sbatch", "comment=a b"
    )
    login.wait_for_training(job, "run")
    for host in (first, second):
        slurm.call("scontrol", "update", f"NodeName={host}", "State=DRAIN", "Reason=test")
    slurm.call("scontrol", "requeue", job.number)
    wait_until(lambda: job.state == "PENDING", 40, "it waits again")
    assert_interrupted(job)
    assert "is waiting again, after it was requeued" in login.status("run")
    slurm.call("scontrol", "update", f"JobId={job.number}", "StartTime=now")
    assert job.wait(240) == "COMPLETED", login.job_log("run")
    said = login.job_log("run")
    assert "resumes run from version" in said
    again = Job(login.place / "run-2", slurm, job.number)
    assert (again.summary["status"], again.summary["stop_reason"]) == ("ok", "return_threshold")
    assert again.summary["env_steps_consumed"] > job.summary["env_steps_consumed"]
    manifest = json.loads((login.place / "run-2/manifest.json").read_text())
    assert [host["name"] for host in manifest["inventory"]["hosts"]] == others
    assert "run run-2: ended" in login.status("run")
    login.tianji("down", "run-2", "--trust")
    slurm.assert_nothing_left()


def test_the_time_limit_ends_it_with_a_checkpoint(login: LoginNode) -> None:
    """A limit of a minute is too short for a warning: SIGTERM comes twice, at the limit."""
    job = login.submit("run", *ENDLESS, "--nodes=4", "--time=1")
    login.wait_for_training(job, "run")
    assert job.wait(150) in ("TIMEOUT", "FAILED")
    assert_interrupted(job)
    said = login.status("run")
    assert "has ended" in said
    login.slurm.assert_nothing_left()


@pytest.mark.slow
def test_a_job_that_is_preempted_goes_on_later(login: LoginNode) -> None:
    slurm = login.slurm
    job = login.submit("run", *ENDLESS, "--nodes=4")
    login.wait_for_training(job, "run")
    urgent = slurm.submit("sleep 5", "--partition=urgent", "--nodes=4", "--exclusive")
    assert urgent.wait(60) == "COMPLETED"
    assert_interrupted(job)
    slurm.call("scontrol", "update", f"JobId={job.number}", "StartTime=now")
    login.wait_for_training(job, "run-2")
    assert "restarted 1 x" in login.status("run-2")
    assert "has ended: interrupted" in login.tianji("down", "run", "--trust")
    slurm.assert_nothing_left()


@pytest.mark.slow
def test_the_node_of_the_script_fails_and_the_job_goes_on_without_it(login: LoginNode) -> None:
    """`up` dies with it; the others end their parts; Slurm starts the job again elsewhere."""
    slurm = login.slurm
    first, second, *_ = slurm.hosts
    wanted = ("--nodes=2", "--sbatch", f"exclude={first}", "-s", "checkpoint.every_s=1")
    job = login.submit("run", *ENDLESS, *wanted)
    login.wait_for_training(job, "run")
    wait_until(lambda: checkpoint_version(job.run_dir) > 1, 30, "a checkpoint")
    slurm.lab.kill(second)
    wait_until(lambda: job.state == "PENDING", 90, "Slurm has noticed, and starts it again")
    slurm.call("scontrol", "update", f"JobId={job.number}", "StartTime=now")
    login.wait_for_training(job, "run-2")
    assert "resumes run from version" in login.job_log("run")
    said = login.tianji("down", "run", "--trust", code=7)
    assert f"{second}: not asked" in said
    slurm.assert_nothing_left(hosts=[host for host in slurm.hosts if host != second])
    slurm.lab.start(second)
    slurm.start_node(second)
    slurm.await_idle()
    assert f"{second}: nothing is left" in login.tianji("down", "run", "--trust")
    slurm.assert_nothing_left()


@pytest.mark.slow
def test_results_that_are_not_shared_come_to_the_login_node(login: LoginNode) -> None:
    """While the job runs, by a step of it; when it is over, by a short job on its node."""
    slurm = login.slurm
    first = slurm.first
    login.results, login.place = RESULTS, slurm.seen_from_here(first, RESULTS)
    elsewhere = ("--nodes=2", "--sbatch", f"exclude={first}")
    job = login.submit("run", *ENDLESS, *elsewhere)
    wait_until(lambda: job.state == "RUNNING", 60, "it runs")
    wait_until(lambda: "learner-0" in login.status("run"), 60, "its files come")
    assert "job | " in login.tianji("logs", "run", "job")
    assert "has ended: interrupted" in login.tianji("down", "run", "--trust")
    assert_interrupted(job)

    short = login.submit("short", *SHORT, "-s", "stop.env_steps=3000", *elsewhere)
    assert short.wait(90) == "COMPLETED"
    assert "run short: ended" in login.status("short")
    assert short.summary["status"] == "ok"
    slurm.assert_nothing_left()
