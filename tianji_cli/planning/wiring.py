"""Plan x prepared hosts -> launches: sockets, keys and common facts of all processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from engine.control_protocol import CommonSpec, Launch, WorkerSpec
from engine.errors import PreflightError
from engine.graph.dataflow import connections
from engine.messages import COORDINATOR
from engine.progress import Resumed
from engine.roles.coordinator.totals import RunInfo
from engine.trace.warm_start import WarmStart
from engine.wire.sealing import is_public_key
from engine.wire.socket_factory import Link
from tianji_cli.planning.joint import (
    MEETING,
    meeting_ways,
    meetings,
    rendezvous_of,
    seats_of,
    store_of,
)
from tianji_cli.planning.placement import Placement
from tianji_cli.planning.plan import Plan


class HostSetup(msgspec.Struct, frozen=True, kw_only=True):
    """The preparations of a host for its part of a run.

    Attributes:
        endpoints: Where its servers will listen, in the order of `servers_on`.
        run_dir: The run's directory there.
        address: At which other hosts reach it; empty if there are none.
        public_keys: Of its processes and its supervisor, if the run uses TCP.
        clock_offset_ns: Its monotonic clock minus that of the coordinator's host.
    """

    endpoints: tuple[str, ...]
    run_dir: str
    address: str = ""
    public_keys: dict[str, str] = {}
    clock_offset_ns: int = 0


def wire(
    plan: Plan,
    setups: Mapping[str, HostSetup],
    run_id: str,
    resumed: Resumed | None = None,
    warm_start: WarmStart | None = None,
) -> dict[str, Launch]:
    """Gives every process its sockets, its log and, for TCP, the public keys of all members.

    Args:
        plan: The plan.
        setups: By host; all hosts of the plan.
        run_id: The run.
        resumed: What the run resumes, if it resumes one.
        warm_start: The weights of a former run that it starts with, if it does.

    Returns:
        The launch of each host's supervisor.

    Raises:
        PreflightError: A host has not reported the key of a process.
    """
    endpoints = endpoints_of(plan, setups)
    to_coordinator = Link(peer=COORDINATOR, endpoint=endpoints[COORDINATOR])
    commons = _commons(plan, setups, endpoints, plan.info(run_id, resumed, warm_start))
    links, seats, store = _links(plan, endpoints), seats_of(plan, endpoints), store_of(plan)

    def worker(placement: Placement) -> WorkerSpec:
        process = placement.process
        upward = () if process == COORDINATOR else (to_coordinator,)
        return WorkerSpec(
            address=process,
            roles=placement.roles,
            bind=endpoints.get(process, ""),
            links=(*links.get(process, ()), *upward),
            ring=seats.get(process),
            store=endpoints[process + MEETING] if process == store else "",
        )

    return {
        host: Launch(
            coordinator=to_coordinator,
            common=commons[host],
            workers=tuple(worker(item) for item in plan.placements if item.host == host),
        )
        for host in plan.supervisors
    }


def _members(plan: Plan, setups: Mapping[str, HostSetup]) -> dict[str, str]:
    """Public key of each process and supervisor, as its own host has reported it; none without TCP.

    What a host reports for processes of others is not used.

    Raises:
        PreflightError: A host has not reported one.
    """
    if not any(setup.public_keys for setup in setups.values()):
        return {}
    names = plan.host_of | {name: host for host, name in plan.supervisors.items()}
    members = {name: setups[host].public_keys.get(name, "") for name, host in names.items()}
    for name, key in members.items():
        if not is_public_key(key):
            raise PreflightError(f"it has reported no key of {name}", where=names[name])
    return members


def _commons(
    plan: Plan,
    setups: Mapping[str, HostSetup],
    endpoints: Mapping[str, str],
    info: RunInfo,
) -> dict[str, CommonSpec]:
    """The common part of the processes of each host."""
    members, supervisors = _members(plan, setups), plan.supervisors
    rendezvous = rendezvous_of(
        plan,
        {host: setup.run_dir for host, setup in setups.items()},
        {host: setup.address for host, setup in setups.items()},
        endpoints,
    )
    host_of = plan.host_of | {name: host for host, name in supervisors.items()}
    routes = {role: p.name for role, p in plan.graph.process_of.items() if role != p.name}
    return {
        host: CommonSpec(
            host=host,
            run_dir=setup.run_dir,
            info=info,
            addresses=plan.addresses,
            supervisors=tuple(supervisors.values()),
            routes=routes,
            host_of=host_of if host == host_of[COORDINATOR] else {},
            members=members,
            neighbours=frozenset(item.process for item in plan.placements if item.host == host),
            rendezvous=rendezvous.get(host),
            clock_offset_ns=setup.clock_offset_ns,
        )
        for host, setup in setups.items()
    }


def ways_of(plan: Plan) -> dict[str, list[str]]:
    """For each host the other hosts that its processes connect to over TCP."""
    head = plan.host_of[COORDINATOR]
    pairs = {(host.name, head) for host in plan.hosts}
    for client, server, _ in connections(plan.graph):
        pairs.add((plan.host_of[client], plan.host_of[server]))
    pairs |= meeting_ways(plan)
    found: dict[str, list[str]] = {}
    for source, target in sorted(pairs):
        if source != target:
            found.setdefault(source, []).append(target)
    return found


def servers_on(plan: Plan, host: str) -> list[str]:
    """The servers of a run that listen on this host, and with `MEETING` the processes that also
    listen there for learners elsewhere."""
    host_of = plan.host_of
    here = [server for server in plan.servers if host_of[server] == host]
    return [*here, *(process + MEETING for process in meetings(plan) if host_of[process] == host)]


def most_connections(plan: Plan, host: str) -> int:
    """Most connections of one server on this host; the coordinator has one per process."""
    counts = Counter(server for _, server, _ in connections(plan.graph))
    counts[COORDINATOR] = len(plan.placements) - 1 + len(plan.hosts)
    counts.update({process + MEETING: plan.graph.cut.groups for process in meetings(plan)})
    return max((counts[server] for server in servers_on(plan, host)), default=0)


def endpoints_of(plan: Plan, setups: Mapping[str, HostSetup]) -> dict[str, str]:
    """Endpoint of each name in `servers_on`."""
    return {
        server: endpoint
        for host, setup in setups.items()
        for server, endpoint in zip(servers_on(plan, host), setup.endpoints, strict=True)
    }


def _links(plan: Plan, endpoints: Mapping[str, str]) -> dict[str, list[Link]]:
    """The servers that each process connects to."""
    found: dict[str, list[Link]] = {}
    keeps_all = plan.experiment.staleness.is_fixed
    for client, server, is_latest in connections(plan.graph):
        link = Link(
            peer=server,
            endpoint=endpoints[server],
            latest_only=is_latest,
            keeps_all=keeps_all and is_latest,
        )
        found.setdefault(client, []).append(link)
    return found
