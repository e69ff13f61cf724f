"""The faults of a host, on nodes of a real Slurm, and where others of the same run are behind SSH.

What is behind SSH alone is in `test_faults.py` and `test_sessions.py`, this machine in
`tests/processes/test_faults.py`, Ray in `test_ray.py`.
"""

from __future__ import annotations

import signal
import sys
import time

import pytest

from tests.helpers.fault_rows import Witness
from tests.helpers.slurm_kit import Job, SlurmKit
from tests.helpers.ssh_kit import SHORT, SLOWED, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.connectors.piped.program import NAME as KEEPER
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab

ENDLESS = (*SHORT, *SLOWED, "-s", "stop.env_steps=null", "-s", "stop.seconds=150", "-s", "actors=3")
WORDS = {"slurm": "on Slurm", "mixed": "the learner on Slurm, actors over SSH"}
CONNECTORS = ["slurm", pytest.param("mixed", marks=pytest.mark.slow)]


def training(slurm: SlurmKit, connector: str, run: str, *settings: str) -> Job:
    """A run of four hosts that trains already: the learner on the first, an actor on each other."""
    inventory, options = [], ["--nodes=4"]
    if connector == "mixed":
        inventory, options = [behind_ssh(slurm)], ["--nodes=1", f"--nodelist={slurm.first}"]
    job = slurm.up(*inventory, *ENDLESS, *settings, run=run, options=options)
    job.wait_for_training()
    return job


def behind_ssh(slurm: SlurmKit) -> str:
    """An inventory of all hosts but the first; its path there."""
    slurm.write(slurm.first, "/root/key", slurm.lab.paths.key.read_text())
    slurm.write(slurm.first, "/root/known", slurm.lab.paths.known_hosts.read_text())
    slurm.lab.exec(slurm.first, ["chmod", "600", "/root/key"])
    lines = [
        f"  {host}: {{ssh_host: {slurm.address(host)}, key: /root/key, known_hosts: /root/known,"
        f" python: {sys.executable}}}\n"
        for host in slurm.hosts[1:]
    ]
    slurm.write(slurm.first, "/root/mixed.yaml", "hosts:\n" + "".join(lines))
    return "/root/mixed.yaml"


def role_on(job: Job, host: str) -> str:
    """The only role of a host. Tables come here one after the other, so this one can be late."""

    def roles() -> list[str]:
        joined = [row for row in job.rows("events") if row["kind"] == "joined"]
        return [str(row["role"]) for row in joined if row["host"] == host]

    wait_until(roles, 30, f"a role has joined on {host}\n{job.said}")
    (role,) = roles()
    return role


def kill(slurm: SlurmKit, host: str, pid: int) -> float:
    """Kills a process of a host, and proves that it was there; returns when."""
    assert pid in [number for number, _ in slurm.processes(host)]
    killed_s = time.monotonic()
    done = slurm.lab.exec(host, ["kill", f"-{int(signal.SIGKILL)}", str(pid)])
    assert done.returncode == 0, done.stderr
    return killed_s


def pid_of(slurm: SlurmKit, host: str, part: str) -> int:
    """The only process of a host with these words in its command line, or the last of those that
    have become one another."""
    return max(pid for pid, command in slurm.processes(host) if part in command)


def loss_of(slurm: SlurmKit, job: Job, host: str, since_s: float) -> float:
    """Waits until a host is given up and its roles have ended; how soon it was reported."""
    wait_until(
        lambda: any(r["kind"] == "host-lost" and r["role"] == host for r in job.rows("events")),
        15,
        f"{host} is given up\n{job.said}",
    )
    report_s = time.monotonic() - since_s
    wait_until(
        lambda: not any("-m engine." in command for _, command in slurm.processes(host)),
        20,
        f"{host} is empty, but runs {slurm.processes(host)}",
    )
    known = len(job.rows("consumption"))
    wait_until(lambda: len(job.rows("consumption")) > known + 3, 30, "the others train on")
    return report_s


@pytest.mark.parametrize("connector", CONNECTORS)
def test_an_actor_a_supervisor_and_a_keeper_are_killed(
    slurm: SlurmKit, witness: Witness, connector: str
) -> None:
    _, second, third, fourth = slurm.hosts
    job = training(slurm, connector, connector)
    actor = role_on(job, second)

    killed_s = kill(slurm, second, slurm.role_pid(second, connector, actor))
    wait_until(lambda: "restarted" in job.kinds(), 10, "it is replaced")
    restart_s = time.monotonic() - killed_s
    supervisor_s = loss_of(
        slurm, job, third, kill(slurm, third, pid_of(slurm, third, "-m engine.supervision"))
    )
    keeper_s = loss_of(slurm, job, fourth, kill(slurm, fourth, pid_of(slurm, fourth, KEEPER)))

    slurm.call("scancel", "--batch", "--signal=INT", job.number)
    job.wait(90)
    for host in (third, fourth):
        assert f"{host} is lost" in job.said
    assert job.summary["status"] == "interrupted"
    assert job.summary["restarts"] == 1
    (row,) = [row for row in job.rows("events") if row["kind"] == "restarted"]
    assert (row["role"], row["host"]) == (actor, second)
    assert not rebuild_counters(load_run(RunPaths(job.run_dir)))
    slurm.assert_nothing_left(within_s=30)
    where = WORDS[connector]
    witness(
        "`kill -9` of an actor",
        f"{where}: replaced on its host, books balance",
        report_s=restart_s,
        summary=job.summary,
    )
    witness(
        "`kill -9` of a supervisor or forkserver",
        f"{where}: its host empty and given up by name, the others trained on",
        report_s=supervisor_s,
    )
    witness(
        "the way to a host ends: its keeper or session killed",
        f"{where}: the host ended its own part and was given up by name, the others trained on",
        report_s=keeper_s,
    )


@pytest.mark.slow
@pytest.mark.parametrize("connector", ["slurm", "mixed"])
def test_a_killed_learner_ends_the_run_by_name(
    slurm: SlurmKit, witness: Witness, connector: str
) -> None:
    job = training(slurm, connector, f"learner-{connector}")
    killed_s = kill(
        slurm, slurm.first, slurm.role_pid(slurm.first, f"learner-{connector}", "learner-0")
    )
    assert job.wait(60) == "FAILED"
    report_s = time.monotonic() - killed_s
    cause = f"learner-0 on {slurm.first} was killed by SIGKILL"
    assert cause in job.summary["error"]
    assert cause in job.said
    slurm.assert_nothing_left(within_s=30)
    witness(
        "`kill -9` of a learner",
        f"{WORDS[connector]}: failed by name, nothing left on any host",
        report_s=report_s,
        summary=job.summary,
    )


@pytest.mark.slow
@pytest.mark.parametrize("connector", ["slurm", "mixed"])
def test_an_actors_host_is_cut_off(slurm: SlurmKit, witness: Witness, connector: str) -> None:
    """For seconds, and then for good, long before Slurm notices anything."""
    *_, last = slurm.hosts
    job = training(slurm, connector, f"cut-{connector}")
    slurm.lab.cut(last)
    time.sleep(4)  # the fault itself
    slurm.lab.heal(last)
    known = len([r for r in job.rows("production") if r["actor"] == 2])
    wait_until(
        lambda: len([r for r in job.rows("production") if r["actor"] == 2]) > known + 3,
        20,
        f"it collects again\n{job.said}",
    )
    assert "host-lost" not in job.kinds()
    cut_s = time.monotonic()
    slurm.lab.cut(last)
    report_s = loss_of(slurm, job, last, cut_s)
    slurm.call("scancel", "--batch", "--signal=INT", job.number)
    wait_until(
        lambda: not any("main up" in command for _, command in slurm.processes(slurm.first)),
        130,
        f"`up` has ended\n{job.said}",
    )
    assert f"{last} is lost" in job.said
    assert job.summary["status"] == "interrupted"
    # Slurm keeps the job until the node answers again, which the fixture sees to
    where = WORDS[connector]
    witness("network cut of seconds", f"{where}: 4 s: no host given up, its actor collected again")
    witness(
        "network cut that lasts",
        f"{where}: given up by name, its roles ended by themselves, the others trained on",
        report_s=report_s,
    )
