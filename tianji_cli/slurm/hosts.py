"""The hosts of a run inside a Slurm allocation.

An inventory names nodes (`connection: slurm`), or it is made from the job (`--slurm`). What the
inventory leaves open is taken from the allocation: address, cores, GPUs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from engine.errors import ConfigError, HostUnreachableError
from tianji_cli.config.inventory import Host, Inventory, inventory_of, load_inventory
from tianji_cli.slurm.allocation import (
    JOB_VARIABLE,
    NODES_VARIABLE,
    AllocatedNode,
    Allocation,
    allocation_of,
    words_of,
)
from tianji_cli.slurm.programs import call

OPTION = "--slurm"
_GET_ONE = "run it inside one: salloc --nodes 2, or sbatch with a script that calls it"

Ask = Callable[[Sequence[str]], str]
"""Runs a program of Slurm and returns its output."""


def hosts_of_run(path: Path | None, limit: Sequence[str], *, uses_slurm: bool) -> Inventory:
    """The hosts for a run: those of a file, of this command's Slurm job, or of both.

    Args:
        path: The inventory file; None only with `uses_slurm`.
        limit: As `--limit` has it.
        uses_slurm: Whether all nodes of the job are hosts, besides those of the file.

    Raises:
        TianJiError: Something of it cannot be used; or there is no allocation, and one is needed.
    """
    if not uses_slurm:
        assert path is not None
        return in_allocation(load_inventory(path).limited(list(limit)))
    allocation = current_allocation(OPTION)
    if path is None:
        inventory = inventory_of(allocation.names, f"Slurm job {allocation.job}")
    else:
        inventory = load_inventory(path, allocation.names)
    return with_allocation(inventory.limited(list(limit)), allocation)


def in_allocation(inventory: Inventory) -> Inventory:
    """The same, with what this command's allocation says of its Slurm nodes; unchanged without any.

    Raises:
        TianJiError: There is no allocation, or it lacks a node.
    """
    nodes = [host.name for host in inventory.hosts if host.connection == "slurm"]
    if not nodes:
        return inventory
    allocation = current_allocation(f"{inventory.source}: host {nodes[0]}")
    return with_allocation(inventory, allocation)


def refuse_former_nodes(inventory: Inventory, run: str) -> None:
    """Refuses to resume on the nodes that a former job had: another one has its own.

    Raises:
        ConfigError: The inventory, as a run recorded it, has nodes of Slurm.
    """
    for host in inventory.hosts:
        if host.connection == "slurm":
            raise ConfigError(
                f"it ran on {host.name}, a node of Slurm job {host.job}; another job has its own"
                " nodes",
                where=f"--resume {run}",
                fix=f"inside a job: tianji up {OPTION} --resume {run}",
            )


def current_allocation(
    where: str, variables: Mapping[str, str] = os.environ, ask: Ask | None = None
) -> Allocation:
    """The allocation of the job in which this command runs.

    Args:
        where: What asks for it, for errors.
        variables: The environment.
        ask: Runs `scontrol`; tests give their own.

    Raises:
        ConfigError: It runs in none.
        PreflightError: Slurm cannot be asked.
    """
    job, nodes = variables.get(JOB_VARIABLE, ""), variables.get(NODES_VARIABLE, "")
    if not job.isdigit() or not nodes:
        raise ConfigError(
            f"this command runs in no Slurm allocation ({JOB_VARIABLE} is not set)",
            where=where,
            fix=_GET_ONE,
        )
    ask = ask or run_scontrol
    nodes_text = ask(("--oneliner", "show", "node", nodes))
    job_text = ask(("--oneliner", "--details", "show", "job", job))
    return allocation_of(variables, nodes_text, job_text)


def run_scontrol(words: Sequence[str]) -> str:
    """The output of `scontrol`.

    Raises:
        PreflightError: It is missing, fails, or does not answer.
    """
    return call(["scontrol", *words], fix="see whether the job still runs: squeue --me")


def with_allocation(inventory: Inventory, allocation: Allocation) -> Inventory:
    """The same hosts; those of `connection: slurm` with job, address, cores and GPUs.

    Raises:
        ConfigError: The inventory names a node that the job lacks, or more GPUs than it has there.
        HostUnreachableError: A node is down, or its address cannot be resolved.
    """
    nodes = {node.name: node for node in allocation.nodes}
    hosts = tuple(
        _completed(host, nodes.get(host.name), allocation, inventory.source)
        if host.connection == "slurm"
        else host
        for host in inventory.hosts
    )
    return msgspec.structs.replace(inventory, hosts=hosts)


def _completed(host: Host, node: AllocatedNode | None, allocation: Allocation, source: str) -> Host:
    where = f"{source}: host {host.name}"
    if node is None:
        raise ConfigError(
            f"Slurm job {allocation.job} has no such node",
            where=where,
            fix=f"its nodes: {words_of(allocation.names)}",
        )
    if host.env:
        raise ConfigError(
            f"`env` names {', '.join(host.env)}: srun would carry the values as plain text",
            where=where,
            fix="export variables in the job's script instead, and give `env` to other hosts only",
        )
    if node.problem:
        raise HostUnreachableError(
            f"Slurm has the node as {node.problem}",
            where=where,
            fix=f"go on without it: --limit '!{host.name}'",
        )
    if host.gpus and node.num_gpus is not None and max(host.gpus) >= node.num_gpus:
        raise ConfigError(
            f"the inventory names GPU {max(host.gpus)}; the job has {node.num_gpus} there",
            where=where,
            fix="GPUs are counted from 0 among those of the job; ask Slurm for more:"
            " --gpus-per-node",
        )
    gpus = None if node.num_gpus is None else tuple(range(node.num_gpus))
    return msgspec.structs.replace(
        host,
        job=allocation.job,
        address=host.address or resolve(node.address, where),
        cores=min(host.cores or node.num_cpus, node.num_cpus),
        gpus=gpus if host.gpus is None else host.gpus,
    )


def resolve(address: str, where: str) -> str:
    """An IP address of a node; IPv4 if it has one.

    Raises:
        HostUnreachableError: Its name is unknown here.
    """
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise HostUnreachableError(
            f"its address {address!r} cannot be resolved: {error}",
            where=where,
            fix="give an `address:` in an inventory",
        ) from error
    first = min(found, key=lambda item: item[0] != socket.AF_INET)
    return str(first[4][0])
