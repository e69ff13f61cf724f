"""Dataflow graph x inventory -> launch plan: which process runs where, and how they are wired."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from engine.graph.connections import connections
from engine.graph.dataflow import DataflowGraph, build_graph
from engine.graph.policy import load_policy
from engine.messages import COORDINATOR
from engine.roles.totals import RunInfo
from engine.runtime.launch import WorkerSpec
from engine.spec import Experiment
from engine.wire.keys import make_keyrings
from engine.wire.rendezvous import Rendezvous
from engine.wire.sockets import Link, Wiring
from tianji_cli.inventory import Host, Inventory

MAX_SOCKET_PATH = 107
"""What a Unix socket address can hold on Linux, less its final zero."""


class Placement(msgspec.Struct, frozen=True):
    """A process on a host."""

    process: str
    host: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What `up` would start.

    Attributes:
        experiment, inventory, graph: What it was made from.
        placements: All processes, the coordinator first; inline, the only one.
    """

    experiment: Experiment
    inventory: Inventory
    graph: DataflowGraph
    placements: tuple[Placement, ...]

    @property
    def servers(self) -> list[str]:
        """Processes that others connect to, so that need an endpoint each."""
        asked = {server for _, server, _ in connections(self.graph)}
        return [COORDINATOR, *(p.name for p in self.graph.processes if p.name in asked)]

    @property
    def info_counts(self) -> dict[str, int]:
        return {
            "num_hosts": len({placement.host for placement in self.placements}),
            "num_actors": self.graph.count("actor"),
            "num_groups": self.graph.count("learner"),
        }

    @property
    def addresses(self) -> tuple[str, ...]:
        """All roles but the coordinator."""
        return tuple(role for process in self.graph.processes for role in process.roles)


def make_plan(experiment: Experiment, inventory: Inventory) -> Plan:
    """Cuts the algorithm by the experiment's policy and places the processes.

    Raises:
        ConfigError: Unknown or impossible policy.
    """
    graph = build_graph(load_policy(experiment.policy), experiment)
    experiment = msgspec.structs.replace(experiment, staleness=graph.cut.staleness)
    host = inventory.hosts[0].name
    placements = [Placement(p.name, host, p.roles) for p in graph.processes]
    if graph.is_inline:
        only = graph.processes[0]
        placements = [Placement(only.name, host, (*only.roles, COORDINATOR))]
    else:
        placements.insert(0, Placement(COORDINATOR, host, (COORDINATOR,)))
    return Plan(experiment, inventory, graph, tuple(placements))


def socket_endpoints(plan: Plan, directory: Path) -> dict[str, str]:
    """Unix sockets for all servers.

    Raises:
        ConfigError: The directory's path is too long for the operating system.
    """
    endpoints = {server: f"ipc://{directory}/{server}" for server in plan.servers}
    longest = max(len(endpoint) - len("ipc://") for endpoint in endpoints.values())
    if longest > MAX_SOCKET_PATH:
        raise ConfigError(
            f"socket paths may have {MAX_SOCKET_PATH} characters, these have up to {longest}",
            where=str(directory),
            fix="set TMPDIR to a shorter directory",
        )
    return endpoints


def tcp_endpoints(plan: Plan, host: Host, ports: list[int]) -> dict[str, str]:
    """TCP endpoints for all servers, one of `ports` each."""
    address = f"[{host.address}]" if ":" in host.address else host.address
    return {
        server: f"tcp://{address}:{port}" for server, port in zip(plan.servers, ports, strict=True)
    }


@dataclass(frozen=True)
class Workers:
    """A plan made concrete.

    Attributes:
        workers: One for each process.
        supervisors: The supervisor's own wiring, by its address.
    """

    workers: tuple[WorkerSpec, ...]
    supervisors: Mapping[str, Wiring]


def wire(plan: Plan, endpoints: Mapping[str, str], run_dir: Path, run_id: str) -> Workers:
    """Gives every process its sockets, its log and, where there is TCP, its keys."""
    supervisor = "supervisor-0"
    processes = [placement.process for placement in plan.placements]
    is_tcp = any(endpoint.startswith("tcp:") for endpoint in endpoints.values())
    keyrings = make_keyrings([*processes, supervisor]) if is_tcp else {}
    info = RunInfo(run_id=run_id, **plan.info_counts)
    to_coordinator = Link(peer=COORDINATOR, endpoint=endpoints[COORDINATOR])
    routes = {role: p.name for role, p in plan.graph.process_of.items() if role != p.name}
    rendezvous = _rendezvous(plan, endpoints, run_dir)
    workers = []
    for placement in plan.placements:
        process = placement.process
        links = _links(plan, process, endpoints)
        if process != COORDINATOR:
            links.append(to_coordinator)
        wiring = Wiring(
            bind=endpoints.get(process, ""),
            links=tuple(links),
            routes=routes,
            keyring=keyrings.get(process),
        )
        workers.append(
            WorkerSpec(
                address=process,
                roles=placement.roles,
                host=placement.host,
                run_dir=str(run_dir),
                log=str(run_dir / "logs" / placement.host / f"{process}.log"),
                wiring=wiring,
                info=info,
                addresses=plan.addresses,
                supervisors=(supervisor,),
                rendezvous=rendezvous,
            )
        )
    wiring = Wiring(links=(to_coordinator,), keyring=keyrings.get(supervisor))
    return Workers(tuple(workers), {supervisor: wiring})


MEETING = "meeting"
"""Stands for the meeting place of learners among the endpoints of a run."""


def _rendezvous(plan: Plan, endpoints: Mapping[str, str], run_dir: Path) -> Rendezvous | None:
    """Where learners that update together meet: on one host through a file, which no one else
    can read; its directory is the run's."""
    if not plan.graph.cut.is_joint:
        return None
    secret = secrets.token_hex(16)
    address = plan.inventory.hosts[0].address
    return Rendezvous(address=address, secret=secret, file=str(run_dir / f".{MEETING}"))


def _links(plan: Plan, process: str, endpoints: Mapping[str, str]) -> list[Link]:
    """The servers that a process connects to."""
    return [
        Link(peer=server, endpoint=endpoints[server], latest_only=is_latest)
        for client, server, is_latest in connections(plan.graph)
        if client == process
    ]
