"""What Slurm says of an allocation, and the hosts of a run that it makes; texts of a real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import ConfigError, HostUnreachableError, PreflightError
from tianji_cli.config.inventory import Inventory, inventory_of, load_inventory
from tianji_cli.slurm.allocation import Allocation, cpus_per_node, expand_nodes
from tianji_cli.slurm.hosts import current_allocation, in_allocation, with_allocation

NODES = """\
NodeName=tj1 Arch=x86_64 CoresPerSocket=2 CPUAlloc=1 CPUTot=2 CPULoad=1.34 Gres=gpu:2 \
NodeAddr=10.77.0.11 NodeHostName=tj1 Version=22.05.8 OS=Linux 6.1.0 #1 SMP State=MIXED \
ThreadsPerCore=1 Comment=two words Partitions=main
NodeName=tj3 Arch=x86_64 CoresPerSocket=2 CPUAlloc=2 CPUTot=2 Gres=(null) NodeAddr=10.77.0.13 \
NodeHostName=tj3 State=ALLOCATED+DRAIN Reason=later Partitions=main
NodeName=tj4 Arch=x86_64 Gres=gpu:a100:2(S:0-1) NodeAddr=10.77.0.14 NodeHostName=tj4 State=DOWN*
"""
JOB = (
    "JobId=23 JobName=up NumNodes=3 NodeList=tj[1,3-4] NumCPUs=4 JOB_GRES=gpu:2"
    " Nodes=tj1 CPU_IDs=0 Mem=0 GRES=gpu:1(IDX:1)"
    " Nodes=tj[3-4] CPU_IDs=0-1 Mem=0 GRES= MinCPUsNode=1"
)
VARIABLES = {
    "SLURM_JOB_ID": "23",
    "SLURM_JOB_NODELIST": "tj[1,3-4]",
    "SLURM_JOB_CPUS_PER_NODE": "1,2(x2)",
}


def ask(words: Sequence[str]) -> str:
    return NODES if "node" in words else JOB


@pytest.fixture
def allocation() -> Allocation:
    return current_allocation("a test", VARIABLES, ask)


def test_nodes_have_their_addresses_cpus_and_gpus(allocation: Allocation) -> None:
    assert allocation.job == "23"
    assert [(n.name, n.address, n.num_cpus, n.num_gpus, n.problem) for n in allocation.nodes] == [
        ("tj1", "10.77.0.11", 1, 1, ""),
        ("tj3", "10.77.0.13", 2, None, ""),
        ("tj4", "10.77.0.14", 2, 0, "DOWN*"),
    ]


def test_hosts_are_made_from_the_job_alone(allocation: Allocation) -> None:
    inventory = inventory_of(["tj1", "tj3"], "Slurm job 23")
    one, three = with_allocation(inventory, allocation).hosts
    assert (one.connection, one.job, one.address, one.cores) == ("slurm", "23", "10.77.0.11", 1)
    assert (one.gpus, three.gpus) == ((0,), None)
    assert one.ports == (29500, 29600)


def test_a_file_says_more_of_the_nodes_and_names_other_hosts(
    tmp_path: Path, allocation: Allocation
) -> None:
    path = tmp_path / "mixed.yaml"
    path.write_text(
        "defaults: {workdir: /scratch/me}\n"
        "hosts:\n  tj3: {cores: 1, gpus: [], address: 192.0.2.3}\n  box: {ssh_host: 192.0.2.9}\n"
    )
    made = with_allocation(load_inventory(path, ["tj1", "tj3"]), allocation)
    hosts = {host.name: host for host in made.hosts}
    assert [host.connection for host in made.hosts] == ["slurm", "slurm", "ssh"]
    assert {host.workdir for host in made.hosts} == {"/scratch/me"}
    assert (hosts["tj3"].cores, hosts["tj3"].gpus, hosts["tj3"].address) == (1, (), "192.0.2.3")
    assert (hosts["box"].job, hosts["box"].cores) == ("", None)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("tj2: {connection: slurm}", "Slurm job 23 has no such node"),
        ("tj1: {connection: slurm, gpus: [1]}", "names GPU 1; the job has 1 there"),
        ("tj1: {connection: slurm, env: {KEY: hidden}}", "KEY: srun would carry"),
    ],
)
def test_what_a_node_cannot_have_is_refused_by_name(
    tmp_path: Path, allocation: Allocation, entry: str, what: str
) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(f"hosts:\n  {entry}\n")
    with pytest.raises(ConfigError, match=what) as caught:
        with_allocation(load_inventory(path), allocation)
    assert caught.value.where.endswith(entry[:3])
    assert "hidden" not in str(caught.value)


def test_a_node_that_is_down_is_refused_with_a_way_on(allocation: Allocation) -> None:
    with pytest.raises(HostUnreachableError, match=r"DOWN\*") as caught:
        with_allocation(inventory_of(allocation.names, "job"), allocation)
    assert "--limit '!tj4'" in caught.value.fix


def test_more_cores_than_the_job_has_are_not_used(tmp_path: Path, allocation: Allocation) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text("hosts:\n  tj3: {connection: slurm, cores: 64}\n")
    assert with_allocation(load_inventory(path), allocation).hosts[0].cores == 2


def test_without_a_job_there_are_no_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    path = tmp_path / "hosts.yaml"
    path.write_text("hosts:\n  tj3: {connection: slurm}\n")
    with pytest.raises(ConfigError, match="no Slurm allocation") as caught:
        in_allocation(load_inventory(path))
    assert "tj3" in caught.value.where
    assert "salloc" in caught.value.fix
    local = Inventory(source="x", hosts=load_inventory(path).hosts[:0])
    assert in_allocation(local) == local


@pytest.mark.parametrize("text", ["tj[1-", "tj[3-1]", "a,,b", "[a]", "tj]", "tj[1-99999]"])
def test_what_is_no_list_of_nodes_is_refused(text: str) -> None:
    with pytest.raises(PreflightError):
        expand_nodes(text)


@pytest.mark.parametrize("text", ["", "x", "2(x", "2(x99999)", "-1"])
def test_what_is_no_list_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(PreflightError):
        cpus_per_node(text)


def test_fewer_cpus_than_nodes_are_refused() -> None:
    with pytest.raises(PreflightError, match="3 nodes"):
        current_allocation("", {**VARIABLES, "SLURM_JOB_CPUS_PER_NODE": "2"}, ask)
