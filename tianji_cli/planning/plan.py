"""Dataflow graph x inventory -> launch plan: which process runs where, and their connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from engine.control_protocol import CommonSpec, Launch, Rendezvous, WorkerSpec
from engine.errors import ConfigError, PreflightError
from engine.graph.dataflow import DataflowGraph, build_graph, connections
from engine.graph.policy import read_policy
from engine.messages import COORDINATOR
from engine.progress import Resumed
from engine.roles.coordinator.totals import RunInfo
from engine.spec import Experiment
from engine.trace.warm_start import WarmStart
from engine.wire.socket_factory import Link
from engine.wording import plural
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.planning.placement import Placement, actors_for_all, place, with_named_actors

KEY_LENGTH = 40
"""Of a CURVE key, as Z85 text."""
MAX_NAMES = 4
"""Names of hosts for a sentence."""


@dataclass(frozen=True)
class Plan:
    """The plan of `up`.

    Attributes:
        experiment, inventory, graph: Its inputs.
        placements: All processes, the coordinator first; the only one if inline.
    """

    experiment: Experiment
    inventory: Inventory
    graph: DataflowGraph
    placements: tuple[Placement, ...]

    @property
    def servers(self) -> list[str]:
        """Processes that others connect to; each needs an endpoint."""
        asked = {server for _, server, _ in connections(self.graph)}
        return [COORDINATOR, *(p.name for p in self.graph.processes if p.name in asked)]

    @property
    def host_of(self) -> dict[str, str]:
        """Host of each process."""
        return {placement.process: placement.host for placement in self.placements}

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Hosts with processes; the coordinator's first."""
        used = dict.fromkeys(placement.host for placement in self.placements)
        by_name = {host.name: host for host in self.inventory.hosts}
        return tuple(by_name[name] for name in used)

    @property
    def supervisors(self) -> dict[str, str]:
        """Name of each host's supervisor."""
        return {host.name: f"supervisor-{number}" for number, host in enumerate(self.hosts)}

    def listen_of(self, host: Host) -> tuple[str, int, int] | None:
        """Address and ports of a host's servers; None for Unix sockets, on a single host.

        Raises:
            ConfigError: Several hosts, and one of them has no ports.
        """
        is_alone = len(self.hosts) == 1
        if is_alone and (host.connection != "local" or host.ports is None):
            return None
        if host.ports is None:
            raise ConfigError(
                "a run on several hosts needs TCP ports on each",
                where=f"{self.inventory.source}: host {host.name}",
                fix="add `ports: 29500-29599` and an `address:` that the others can reach",
            )
        return (host.address, *host.ports)

    def info(
        self, run_id: str, resumed: Resumed | None = None, warm_start: WarmStart | None = None
    ) -> RunInfo:
        """Fields of the summary that come from the plan."""
        return RunInfo(
            run_id=run_id,
            num_hosts=len({placement.host for placement in self.placements}),
            num_actors=self.graph.count("actor"),
            num_groups=self.graph.count("learner"),
            resumed=resumed,
            warm_start=warm_start,
        )

    @property
    def learner_hosts(self) -> list[str]:
        """Hosts with a learner, each once."""
        found = (p.host for p in self.placements if any(map(_is_learner, p.roles)))
        return list(dict.fromkeys(found))

    @property
    def addresses(self) -> tuple[str, ...]:
        """All roles but the coordinator."""
        return tuple(role for process in self.graph.processes for role in process.roles)


def make_plan(
    experiment: Experiment, inventory: Inventory, *, has_actors_stated: bool = True
) -> Plan:
    """Applies the experiment's policy and places the processes.

    Args:
        experiment: What to run.
        inventory: Where to run it.
        has_actors_stated: Whether the user set the number of actors; otherwise there are enough
            for all hosts.

    Raises:
        ConfigError: Unknown or impossible policy.
    """
    experiment = with_named_actors(experiment, inventory)
    policy = read_policy(experiment.policy)
    graph = build_graph(policy, experiment)
    if not has_actors_stated:
        actors = max(experiment.actors, actors_for_all(graph.processes, inventory))
        experiment = msgspec.structs.replace(experiment, actors=actors)
        graph = build_graph(policy, experiment)
    experiment = msgspec.structs.replace(experiment, staleness=graph.cut.staleness)
    if not graph.is_inline:
        plan = Plan(experiment, inventory, graph, tuple(place(graph.processes, inventory)))
        _check_meeting(plan)
        return plan
    host = inventory.hosts[0]
    if host.connection != "local":
        raise ConfigError(
            "the whole run is one process inside the command, so it needs no other host",
            where=f"policy {experiment.policy}",
            fix="leave the inventory out, or use a policy with several processes",
        )
    only = graph.processes[0]
    placement = Placement(only.name, host.name, (*only.roles, COORDINATOR))
    return Plan(experiment, inventory, graph, (placement,))


def _is_learner(role: str) -> bool:
    return role.startswith("learner-")


def _check_meeting(plan: Plan) -> None:
    """Raises ConfigError if learners that update together are placed on several hosts."""
    hosts = plan.learner_hosts
    if plan.graph.cut.is_joint and len(hosts) > 1:
        raise ConfigError(
            f"learners that update together would be on {', '.join(hosts)}; between hosts their"
            " gradients would travel by gloo, which is neither encrypted nor authenticated",
            where=f"policy {plan.graph.policy.name}",
            fix="--limit it to one host, or use the policy tianji with groups=N",
        )


def notes_of(plan: Plan, wanted_actors: int | None) -> list[str]:
    """Warnings about settings that the run does not use.

    Args:
        plan: The run.
        wanted_actors: As set by the experiment or a setting; None if neither does.
    """
    notes = []
    actors, used = plan.experiment.actors, {p.host for p in plan.placements}
    if wanted_actors is not None and wanted_actors != actors:
        notes.append(
            f"actors={wanted_actors} is not used: `roles` of {plan.inventory.source} name {actors}"
        )
    idle = [host.name for host in plan.inventory.hosts if host.name not in used]
    if idle:
        names = ", ".join(idle) if len(idle) <= MAX_NAMES else plural(len(idle), "host")
        notes.append(f"nothing of this run is on {names}{_remedy(plan)}")
    return notes


def _remedy(plan: Plan) -> str:
    if plan.graph.is_inline:
        return f": policy {plan.graph.policy.name} is one process, this command"
    needed = actors_for_all(plan.graph.processes, plan.inventory)
    if needed > plan.experiment.actors:
        return f"; -s actors={needed} would use all hosts"
    return ""


class HostSetup(msgspec.Struct, frozen=True, kw_only=True):
    """The preparations of a host for its part of a run.

    Attributes:
        endpoints: Where its servers will listen, in the order of `Plan.servers`.
        run_dir: The run's directory there.
        public_keys: Of its processes and its supervisor, if the run uses TCP.
        clock_offset_ns: Its monotonic clock minus that of the coordinator's host.
    """

    endpoints: tuple[str, ...]
    run_dir: str
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
    commons = _commons(plan, setups, plan.info(run_id, resumed, warm_start))
    links = _links(plan, endpoints)

    def worker(placement: Placement) -> WorkerSpec:
        process = placement.process
        upward = () if process == COORDINATOR else (to_coordinator,)
        return WorkerSpec(
            address=process,
            roles=placement.roles,
            bind=endpoints.get(process, ""),
            links=(*links.get(process, ()), *upward),
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
        if len(key) != KEY_LENGTH:
            raise PreflightError(f"it has reported no key of {name}", where=names[name])
    return members


def _commons(
    plan: Plan,
    setups: Mapping[str, HostSetup],
    info: RunInfo,
) -> dict[str, CommonSpec]:
    """The common part of the processes of each host."""
    members, supervisors = _members(plan, setups), plan.supervisors
    meeting = _meeting(plan, setups)
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
            rendezvous=meeting.get(host),
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
    found: dict[str, list[str]] = {}
    for source, target in sorted(pairs):
        if source != target:
            found.setdefault(source, []).append(target)
    return found


def servers_on(plan: Plan, host: str) -> list[str]:
    """The servers of a run that listen on this host."""
    host_of = plan.host_of
    return [server for server in plan.servers if host_of[server] == host]


def most_connections(plan: Plan, host: str) -> int:
    """Most connections of one server on this host; the coordinator has one per process."""
    counts = Counter(server for _, server, _ in connections(plan.graph))
    counts[COORDINATOR] = len(plan.placements) - 1 + len(plan.hosts)
    return max((counts[server] for server in servers_on(plan, host)), default=0)


def endpoints_of(plan: Plan, setups: Mapping[str, HostSetup]) -> dict[str, str]:
    """Endpoint of each server."""
    return {
        server: endpoint
        for host, setup in setups.items()
        for server, endpoint in zip(servers_on(plan, host), setup.endpoints, strict=True)
    }


def _meeting(plan: Plan, setups: Mapping[str, HostSetup]) -> dict[str, Rendezvous]:
    """The rendezvous of learners that update together, by host: a file in the run's directory on
    one host."""
    if not plan.graph.cut.is_joint:
        return {}
    (host,) = plan.learner_hosts
    store = f"{setups[host].run_dir}/.meeting"
    return {host: Rendezvous(address="127.0.0.1", file=store)}


def _links(plan: Plan, endpoints: Mapping[str, str]) -> dict[str, list[Link]]:
    """The servers that each process connects to."""
    found: dict[str, list[Link]] = {}
    for client, server, is_latest in connections(plan.graph):
        link = Link(peer=server, endpoint=endpoints[server], latest_only=is_latest)
        found.setdefault(client, []).append(link)
    return found
