"""Dataflow graph x inventory -> launch plan: which process runs where, and how they are wired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from engine.graph.dataflow import DataflowGraph, build_graph
from engine.graph.policy import load_policy
from engine.messages import COORDINATOR, role_of
from engine.roles.totals import RunInfo
from engine.runtime.launch import WorkerSpec
from engine.spec import Experiment
from engine.wire.keys import make_keyrings
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
        fragments = {
            _server_of(edge.channel, edge.source, edge.target) for edge in self.graph.edges
        }
        named = [p.name for p in self.graph.processes if p.fragment in fragments]
        return [COORDINATOR, *named]

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
    workers = []
    for placement in plan.placements:
        process = placement.process
        links = _links(plan, process, endpoints)
        if process != COORDINATOR:
            links.append(to_coordinator)
        wiring = Wiring(
            bind=endpoints.get(process, ""),
            links=tuple(links),
            keyring=keyrings.get(process),
            neighbours=_neighbours(plan, placement),
        )
        workers.append(
            WorkerSpec(
                address=process,
                host=placement.host,
                run_dir=str(run_dir),
                log=str(run_dir / "logs" / placement.host / f"{process}.log"),
                wiring=wiring,
                info=info,
                addresses=plan.addresses,
                supervisors=(supervisor,),
            )
        )
    wiring = Wiring(links=(to_coordinator,), keyring=keyrings.get(supervisor))
    return Workers(tuple(workers), {supervisor: wiring})


def _neighbours(plan: Plan, placement: Placement) -> frozenset[str]:
    """The other processes of its host: forked from one nursery, they share memory."""
    return frozenset(
        other.process
        for other in plan.placements
        if other.host == placement.host and other.process != placement.process
    )


def _links(plan: Plan, process: str, endpoints: Mapping[str, str]) -> list[Link]:
    """The servers that a process connects to, by the edges of its fragment."""
    links = []
    for edge in plan.graph.edges:
        server = _server_of(edge.channel, edge.source, edge.target)
        client = edge.target if server == edge.source else edge.source
        if role_of(process) != client:
            continue
        links += [
            Link(peer=name, endpoint=endpoints[name], latest_only=edge.channel == "latest")
            for name in endpoints
            if role_of(name) == server
        ]
    return links


def _server_of(channel: str, source: str, target: str) -> str:
    """Whom others connect to: the target where many send, the source where many ask."""
    return target if channel == "gather" else source
