"""Runs inside the allocation of a real Slurm, on four nodes of a lab."""

from __future__ import annotations

import json
import sys
import time

import pytest

from engine.devices.visible import PRETENDED
from tests.helpers.fault_rows import Witness
from tests.helpers.lab_kit import RESULTS
from tests.helpers.slurm_kit import Job, SlurmKit
from tests.helpers.ssh_kit import SHORT, SLOWED, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab

ENDLESS = (*SHORT, *SLOWED, "-s", "stop.env_steps=null", "-s", "stop.seconds=120", "-s", "actors=3")
ONE_CPU = ("--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=1")
THRESHOLD = 475.0
"""Of CartPole-v1."""


def assert_learnt(job: Job, threshold: float = THRESHOLD) -> None:
    """It has ended as its stop rule says, and its files agree with each other."""
    assert job.summary["status"] == "ok"
    assert job.summary["stop_reason"] == "return_threshold"
    assert job.summary["return_mean"] >= threshold
    assert not rebuild_counters(load_run(RunPaths(job.run_dir)))


def of_runs(slurm: SlurmKit, host: str) -> list[str]:
    """The commands of supervisors, forkservers and roles on a host."""
    return [command for _, command in slurm.processes(host) if "-m engine." in command]


def test_two_jobs_train_side_by_side_on_the_same_four_nodes(slurm: SlurmKit) -> None:
    """Each on one CPU of each node; one learns, the other one is over long before."""
    settings = ("-s", "learner.compile=off", "-s", "stop.return_threshold=150")
    one = slurm.up(*settings, run="one", options=ONE_CPU)
    two = slurm.up(*SHORT, "-s", "stop.env_steps=4000", run="two", options=ONE_CPU)
    one.wait_for_training()
    steps = slurm.call("squeue", "--steps", "--noheader", "--format=%j", f"--job={one.number}")
    assert sorted(steps.split()) == ["batch", *["tianji"] * 4], "one for each node"
    assert two.wait(90) == "COMPLETED", two.said
    assert one.wait(90) == "COMPLETED", one.said
    assert_learnt(one, 150.0)
    for job in (one, two):
        assert job.summary["num_hosts"] == 4
        manifest = json.loads((job.run_dir / "manifest.json").read_text())
        hosts = manifest["inventory"]["hosts"]
        assert [host["name"] for host in hosts] == slurm.hosts
        for host in hosts:
            assert (host["connection"], host["job"]) == ("slurm", job.number)
            assert (host["cores"], host["gpus"]) == (1, [])
            assert host["address"] == slurm.address(host["name"])
    slurm.assert_nothing_left()


@pytest.mark.slow
def test_a_run_reaches_the_threshold_on_four_nodes(slurm: SlurmKit) -> None:
    job = slurm.up(run="whole", options=("--nodes=4",))
    assert job.wait(300) == "COMPLETED", job.said
    assert_learnt(job)
    slurm.assert_nothing_left()


def test_a_node_fails_and_then_the_command_and_another_job_goes_on(
    slurm: SlurmKit, witness: Witness
) -> None:
    """The run goes on without a node by its own rule of silence, before Slurm has noticed anything;
    `kill -9` of `up` leaves no process; a job of the other nodes goes on with its checkpoint."""
    first, _, third, _ = slurm.hosts
    others = [host for host in slurm.hosts if host != third]
    options = ("--nodes=4", "--no-kill", "--no-requeue")
    before = slurm.up(*ENDLESS, "-s", "checkpoint.every_s=1", run="before", options=options)
    before.wait_for_training()
    began_s = time.monotonic()
    slurm.lab.kill(third)
    assert not slurm.lab.processes(third)
    wait_until(lambda: "host-lost" in before.kinds(), 20, f"it is given up\n{before.said}")
    report_s = time.monotonic() - began_s
    known = len(before.rows("consumption"))
    wait_until(lambda: len(before.rows("consumption")) > known + 3, 20, "the others train on")
    assert f"{third} is lost" not in before.said, "Slurm has not noticed yet"
    versions = before.run_dir / "checkpoints"
    wait_until(lambda: len(list(versions.glob("v*.json"))) > 1, 20, "checkpoints come here")

    slurm.kill_up()
    wait_until(lambda: not any(of_runs(slurm, host) for host in others), 5, "no role is left")
    assert before.wait(30) == "FAILED"

    settings = ("-s", "stop.seconds=null", "-s", "stop.return_threshold=150")
    fast = ("-s", "env.step_latency_ms=0")
    down = slurm.tianji_line("down", "before", "--results", RESULTS)
    after = slurm.up(
        *("--resume", "before", *settings, *fast),
        run="after",
        options=("--nodes=3", f"--nodelist={first}"),
        before=f"env {down}",
    )
    assert after.wait(120) == "COMPLETED", after.said
    assert all(f"{host}: nothing is left" in after.said for host in others)
    assert "resumes before from version" in after.said
    assert after.summary["num_hosts"] == 3
    assert_learnt(after, 150.0)
    witness(
        "a node of a cluster lost",
        "Slurm: given up by name before Slurm noticed, the others trained on; after `kill -9` of"
        " the command no role was left, and another job went on from the checkpoint",
        report_s=report_s,
    )
    # An srun waits for the dead node until Slurm gives it up.
    wait_until(lambda: not any(map(slurm.processes, others)), 40, "nothing is left")


def test_the_learner_is_on_a_node_and_an_actor_behind_ssh(slurm: SlurmKit) -> None:
    first, *_, last = slurm.hosts
    slurm.write(first, "/root/key", slurm.lab.paths.key.read_text())
    slurm.write(first, "/root/known", slurm.lab.paths.known_hosts.read_text())
    slurm.lab.exec(first, ["chmod", "600", "/root/key"])
    access = f"ssh_host: {slurm.address(last)}, key: /root/key, known_hosts: /root/known"
    entry = f"{{{access}, python: {sys.executable}}}"
    slurm.write(first, "/root/mixed.yaml", f"hosts:\n  {last}: {entry}\n")
    settings = (*SHORT, "-s", "stop.env_steps=4000", "-s", "actors=1")
    job = slurm.up("/root/mixed.yaml", *settings, run="mixed", options=("--nodes=1",))
    assert job.wait(90) == "COMPLETED", job.said
    place = {row["role"]: row["host"] for row in job.rows("events") if row["kind"] == "joined"}
    assert (place["learner-0"], place["actor-0"]) == (first, last)
    slurm.assert_nothing_left()


def test_roles_see_the_gpus_of_their_job_and_no_others(slurm: SlurmKit) -> None:
    """Of a node's two GPUs another job has the first. PyTorch is told to find one, which there is
    not."""
    options = ("--nodes=1", "--gpus-per-node=1", "--cpus-per-task=1", f"--nodelist={slurm.first}")
    other = slurm.submit("sleep 120", *options)
    job = slurm.up(*ENDLESS, run="gpu", options=options, before=f"export {PRETENDED}=cpu:0")
    job.wait_for_training()
    assert other.state == "RUNNING"
    for role in ("learner-0", "actor-0"):
        pid = slurm.role_pid(slurm.first, "gpu", role)
        environment = slurm.read(slurm.first, f"/proc/{pid}/environ").split("\0")
        assert "CUDA_VISIBLE_DEVICES=1" in environment


def test_check_knows_the_nodes_and_what_is_wrong_with_one(slurm: SlurmKit) -> None:
    """No driver knows the stand-ins for GPUs that the job has."""
    check = slurm.tianji_line("check", "--slurm", "--json")
    job = slurm.submit(f"exec env {check}", "--nodes=2", "--gpus-per-node=1")
    assert job.wait(60) == "FAILED"
    document = json.loads(job.said)
    assert list(document["hosts"]) == slurm.hosts[:2]
    for host, findings in document["hosts"].items():
        found = {finding["probe"]: finding for finding in findings}
        assert found["slurm"]["detail"] == f"node {host} of Slurm job {job.number}, as root"
        assert found["cores"]["detail"] == "1"
        assert found.pop("gpu")["verdict"] == "failed"
        assert {finding["verdict"] for finding in found.values()} == {"ok"}


def test_outside_of_a_job_the_next_step_is_said(slurm: SlurmKit) -> None:
    for words in (
        ("up", "--slurm", "--results", RESULTS),
        ("plan", "--slurm"),
        ("check", "--slurm"),
    ):
        done = slurm.tianji(*words)
        assert done.returncode == 2
        assert "no Slurm allocation" in done.stderr
        assert "salloc" in done.stderr
