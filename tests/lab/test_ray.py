"""Runs on a real Ray cluster of two nodes, which are hosts of a lab."""

from __future__ import annotations

import json
import re
import sys
import time

import pytest

from tests.helpers.fault_rows import Witness
from tests.helpers.ray_kit import Background, RayKit
from tests.helpers.ssh_kit import SHORT, SLOWED, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab

ENDLESS = (*SHORT, *SLOWED, "-s", "stop.env_steps=null", "-s", "stop.seconds=90")
BASE = f"connection: ray, python: {sys.executable}"
ROLES = ("{coordinator: 1, learner: 1, buffer: 1, actor: 1}", "{actor: 1}")


def two_hosts(kit: RayKit, address: str | None = None) -> str:
    """An inventory of both nodes by their addresses, the learner on the first."""
    place = f"ray: {{address: '{address or kit.cluster}'}}"
    lines = ["version: 1", f"defaults: {{{BASE}, cores: 2, {place}}}", "hosts:"]
    for number, (host, roles) in enumerate(zip(kit.hosts, ROLES, strict=True), 1):
        lines.append(f"  ray{number}: {{address: {kit.address(host)}, roles: {roles}}}")
    return kit.inventory("\n".join(lines) + "\n")


def any_hosts(kit: RayKit, count: int, more: str = "") -> str:
    """An inventory of so many nodes, whichever they are."""
    defaults = f"{{{BASE}, ray: {{address: '{kit.cluster}'}}{more}}}"
    return kit.inventory(f"version: 1\ndefaults: {defaults}\nhosts: {{'n[1-{count}]': {{}}}}\n")


def training(kit: RayKit, run: str, *settings: str) -> Background:
    """A run of both nodes that trains already."""
    command = kit.up(two_hosts(kit), *ENDLESS, *settings, run=run)
    command.wait_for_training()
    return command


def assert_balanced(command: Background) -> None:
    assert not rebuild_counters(load_run(RunPaths(command.run_dir)))


def test_up_trains_on_both_nodes_and_leaves_nothing(ray_cluster: RayKit) -> None:
    command = ray_cluster.up(two_hosts(ray_cluster), *SHORT, "-s", "stop.env_steps=4000", run="a")
    assert command.wait(100) == 0, command.said
    assert command.summary["num_hosts"] == 2
    assert {row["actor"] for row in command.rows("production")} == {0, 1}
    manifest = json.loads((command.run_dir / "manifest.json").read_text())
    cores = {host["num_cores"] for host in manifest["hosts"].values()}
    assert cores == {2}
    assert_balanced(command)
    ray_cluster.assert_nothing_left()


@pytest.mark.slow
def test_check_reserves_what_a_run_would_and_names_the_nodes(ray_cluster: RayKit) -> None:
    check = ray_cluster.tianji("check", any_hosts(ray_cluster, 2, ", cores: 2"), "--json")
    assert check.returncode == 0, check.stdout + check.stderr
    found = json.loads(check.stdout)["hosts"]
    for rows in found.values():
        verdicts = {row["probe"]: row["verdict"] for row in rows}
        assert set(verdicts.values()) <= {"ok", "warning"}, rows
    assert {ray_cluster.address(host) for host in ray_cluster.hosts} == {
        address
        for rows in found.values()
        for row in rows
        for address in map(ray_cluster.address, ray_cluster.hosts)
        if f"node {address} of Ray cluster {ray_cluster.cluster}" in row["detail"]
    }
    ray_cluster.assert_nothing_left()


@pytest.mark.slow
def test_a_host_sees_the_gpus_that_ray_gave_it(ray_cluster: RayKit) -> None:
    script = (
        "import threading, pathlib\n"
        "from tianji_cli.config.inventory import load_inventory\n"
        "from tianji_cli.provisioning.reaching import Reach\n"
        "hosts = load_inventory(pathlib.Path('hosts.yaml')).hosts\n"
        "reach = Reach(hosts)\n"
        "nodes = [reach(host, threading.Event()) for host in hosts]\n"
        "shown = '[$CUDA_VISIBLE_DEVICES] $OMP_NUM_THREADS$RAY_AUTH_MODE'\n"
        "command = ['sh', '-c', f'echo \"{shown}\"']\n"
        "print(*(node.run(command, 10).stdout.strip() for node in nodes))\n"
        "[node.close() for node in nodes]\n"
    )
    ray_cluster.inventory(
        f"version: 1\ndefaults: {{connection: ray, ray: {{address: '{ray_cluster.cluster}'}}}}\n"
        "hosts: {a: {gpus: [0, 1]}, b: {}}\n"
    )
    command = ray_cluster.begin(ray_cluster.python_line("-c", script))
    assert command.wait(60) == 0, command.said
    assert command.out.split() == ["[0,1]", "[]"]
    ray_cluster.assert_nothing_left()


def test_a_killed_command_leaves_no_process(ray_cluster: RayKit, witness: Witness) -> None:
    command = training(ray_cluster, "killed")
    for host in ray_cluster.hosts:
        said = " ".join(words for _, words in ray_cluster.processes(host))
        assert all(part in said for part in ("ray::Carrier", "-I -S -c", "engine.supervision"))
    began_s = time.monotonic()
    ray_cluster.kill(ray_cluster.first, command.pid)
    for host in ray_cluster.hosts:
        wait_until(
            lambda host=host: not ray_cluster.processes(host),
            30,
            f"{host} is empty, but runs {ray_cluster.processes(host)}",
        )
    report_s = time.monotonic() - began_s
    down = ray_cluster.tianji("down", "killed", "--results", "/root/results")
    assert down.returncode == 0, down.stderr
    ray_cluster.assert_nothing_left()
    witness(
        "`kill -9` of the controller",
        "on Ray: both nodes empty after that time; `down` removed the rest, reserving nothing",
        report_s=report_s,
    )


def test_a_lost_node_is_named_and_the_other_trains_on(
    ray_cluster: RayKit, witness: Witness
) -> None:
    command = training(ray_cluster, "node", "-s", "stop.seconds=15")
    began_s = time.monotonic()
    ray_cluster.lab.kill(ray_cluster.hosts[1])
    wait_until(lambda: "host-lost" in command.kinds(), 20, "the loss is traced")
    report_s = time.monotonic() - began_s
    assert command.wait(90) == 7, command.said
    assert "ray2" in command.said
    assert command.summary["status"] == "ok"
    assert_balanced(command)
    ray_cluster.assert_nothing_left(hosts=[ray_cluster.first])
    witness(
        "a node of a cluster lost",
        "of Ray: given up by name, the other trained on; `down` is named, exit 7",
        report_s=report_s,
        summary=command.summary,
    )


@pytest.mark.slow
def test_a_learner_on_ray_trains_with_an_actor_over_ssh(ray_cluster: RayKit) -> None:
    first, second = ray_cluster.hosts
    paths = ray_cluster.lab.paths
    for name, source in (("key", paths.key), ("known", paths.known_hosts)):
        ray_cluster.write(first, f"/root/.ssh/{name}", source.read_text())
    assert ray_cluster.lab.exec(first, ["chmod", "600", "/root/.ssh/key"]).returncode == 0
    ssh = f"ssh_host: {ray_cluster.address(second)}, user: root, key: ~/.ssh/key"
    inventory = ray_cluster.inventory(
        f"version: 1\ndefaults: {{python: {sys.executable}}}\nhosts:\n"
        f"  owned: {{connection: ray, ray: {{address: '{ray_cluster.cluster}'}},"
        f" address: {ray_cluster.address(first)}, roles: {ROLES[0]}}}\n"
        f"  plain: {{{ssh}, known_hosts: ~/.ssh/known, roles: {ROLES[1]}}}\n"
    )
    command = ray_cluster.up(inventory, *SHORT, "-s", "stop.env_steps=4000", run="mixed")
    assert command.wait(100) == 0, command.said
    assert {row["actor"] for row in command.rows("production")} == {0, 1}
    assert_balanced(command)
    ray_cluster.assert_nothing_left()


@pytest.mark.slow
def test_a_killed_worker_of_ray_costs_its_host(ray_cluster: RayKit, witness: Witness) -> None:
    command = training(ray_cluster, "worker", "-s", "stop.seconds=12")
    second = ray_cluster.hosts[1]
    (pid,) = [pid for pid, words in ray_cluster.processes(second) if "ray::Carrier" in words]
    began_s = time.monotonic()
    ray_cluster.kill(second, pid)
    wait_until(lambda: not ray_cluster.processes(second), 10, "its node is empty")
    wait_until(lambda: "host-lost" in command.kinds(), 10, "the loss is traced")
    report_s = time.monotonic() - began_s
    assert command.wait(60) == 0, command.said
    assert "ray2 is lost" in command.said
    assert_balanced(command)
    ray_cluster.assert_nothing_left()
    witness(
        "`kill -9` of a supervisor or forkserver",
        "the worker of Ray that carries it: its node empty, given up by name, the others trained"
        " on, exit 0",
        report_s=report_s,
        summary=command.summary,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ("RAY_AUTH_TOKEN=" + "b" * 64, 3, "refuses this user's token"),
        ("RAY_AUTH_MODE=disabled", 3, "refuses a driver without its token"),
    ],
)
def test_who_has_no_token_is_told(ray_cluster: RayKit, change: str, code: int, words: str) -> None:
    line = ray_cluster.tianji_line("check", any_hosts(ray_cluster, 2))
    command = ray_cluster.begin(f"{change} {line}")
    assert command.wait(60) == code, command.said
    assert words in " ".join(command.out.split())


@pytest.mark.slow
def test_what_the_cluster_does_not_have_is_named(ray_cluster: RayKit) -> None:
    too_many = ray_cluster.begin(ray_cluster.tianji_line("up", any_hosts(ray_cluster, 3)))
    assert too_many.wait(60) == 3, too_many.said
    said = " ".join(too_many.said.split())
    assert "no node for 1 of 3 hosts" in said
    assert f"{ray_cluster.address(ray_cluster.first)} (2 CPUs, 2 GPUs)" in said
    nowhere = ray_cluster.tianji("check", two_hosts(ray_cluster, "127.0.0.1:1"))
    assert nowhere.returncode == 4
    assert "no Ray cluster answers: Connection refused" in " ".join(nowhere.stdout.split())


@pytest.mark.slow
def test_a_cluster_that_asks_for_no_token_is_refused(ray_cluster: RayKit) -> None:
    with ray_cluster.open_cluster() as address:
        inventory = ray_cluster.inventory(
            f"version: 1\ndefaults: {{connection: ray, ray: {{address: '{address}'}}}}\n"
            "hosts: {n1: {}}\n"
        )
        command = ray_cluster.begin(ray_cluster.tianji_line("up", inventory))
        assert command.wait(60) == 3, command.said
        said = " ".join(command.said.split())
        assert f"whoever reaches {address} can run programs on this Ray cluster" in said
        assert "without_token: true" in said


def submitted(kit: RayKit, *settings: str) -> Background:
    """A job of Ray that trains; neither its inventory nor its command says where Ray is."""
    text = f"version: 1\ndefaults: {{{BASE}, cores: 2}}\nhosts: {{'n[1-2]': {{}}}}\n"
    kit.write(kit.first, "/root/job/hosts.yaml", text)
    words = ("up", "hosts.yaml", *settings, "--name", "job", "--results", "/root/results")
    return kit.submit("/root/job", kit.tianji_line(*words), run="job")


def run_job(kit: RayKit, *settings: str) -> Background:
    """The same, when it has ended."""
    with kit.jobs():
        command = submitted(kit, *settings)
        assert command.wait(300) == 0, command.out + command.said
    assert command.summary["status"] == "ok"
    assert command.summary["num_hosts"] == 2
    assert "succeeded" in command.out
    kit.assert_nothing_left()
    return command


def test_a_job_of_ray_trains(ray_cluster: RayKit) -> None:
    assert_balanced(run_job(ray_cluster, *SHORT, "-s", "stop.env_steps=3000"))


@pytest.mark.slow
def test_a_job_of_ray_trains_to_the_threshold(ray_cluster: RayKit) -> None:
    assert run_job(ray_cluster).summary["reached"]


@pytest.mark.slow
def test_a_stopped_job_ends_gracefully(ray_cluster: RayKit, witness: Witness) -> None:
    with ray_cluster.jobs():
        command = submitted(ray_cluster, *ENDLESS)
        command.wait_for_training(within_s=120)
        number = re.search(r"raysubmit_\w+", command.out)
        assert number is not None, command.out
        stop = f"env {ray_cluster.job_line('stop')} {number[0]}"
        began_s = time.monotonic()
        assert ray_cluster.lab.exec(ray_cluster.first, ["sh", "-c", stop]).returncode == 0
        command.wait(60)
    report_s = time.monotonic() - began_s
    assert command.summary["status"] == "interrupted", command.out
    assert list((command.run_dir / "checkpoints").glob("*.safetensors"))
    assert_balanced(command)
    ray_cluster.assert_nothing_left()
    witness(
        "a cluster manager ends the job",
        "`ray job stop`: interrupted gracefully, checkpoint written, nothing left on any node",
        report_s=report_s,
        summary=command.summary,
    )
