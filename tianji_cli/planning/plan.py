"""Dataflow graph x inventory -> plan: which process runs where."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from engine.errors import ConfigError
from engine.graph.dataflow import DataflowGraph, build_graph, connections
from engine.graph.policy import read_policy
from engine.messages import COORDINATOR
from engine.progress import Resumed
from engine.roles.coordinator.totals import RunInfo
from engine.spec import Experiment
from engine.trace.warm_start import WarmStart
from engine.wording import plural
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.planning.chosen import Automatic
from tianji_cli.planning.placement import Placement, actors_for_all, place, with_named_actors

MAX_NAMES = 4
"""Names of hosts for a sentence."""


@dataclass(frozen=True)
class Plan:
    """The plan of `up`.

    Attributes:
        experiment, inventory, graph: Its inputs.
        placements: All processes, the coordinator first; the only one if inline.
        automatic: What of the experiment was chosen for these hosts, if anything was.
    """

    experiment: Experiment
    inventory: Inventory
    graph: DataflowGraph
    placements: tuple[Placement, ...]
    automatic: Automatic | None = None

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
    def addresses(self) -> tuple[str, ...]:
        """All roles but the coordinator."""
        return tuple(role for process in self.graph.processes for role in process.roles)


def make_plan(
    experiment: Experiment,
    inventory: Inventory,
    *,
    has_actors_stated: bool = True,
    num_apart: int = 1,
) -> Plan:
    """Applies the experiment's policy and places the processes.

    Args:
        experiment: What to run.
        inventory: Where to run it.
        has_actors_stated: Whether the user set the number of actors; otherwise there are enough
            for all hosts.
        num_apart: Policies of a team that have a learner each; see `teams`.

    Raises:
        ConfigError: Unknown or impossible policy.
    """
    experiment = with_named_actors(experiment, inventory)
    policy = read_policy(experiment.policy)
    graph = build_graph(policy, experiment, num_apart)
    if not has_actors_stated and num_apart == 1:
        least = actors_for_all(graph.processes, inventory, is_joint=shares_updates(graph))
        actors = max(experiment.actors, least)
        experiment = msgspec.structs.replace(experiment, actors=actors)
        graph = build_graph(policy, experiment)
    experiment = msgspec.structs.replace(experiment, staleness=graph.cut.staleness)
    if not graph.is_inline:
        return Plan(experiment, inventory, graph, tuple(place(graph.processes, inventory)))
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


def shares_updates(graph: DataflowGraph) -> bool:
    """Whether there is one learner for each actor, and all of them make every update together."""
    return graph.cut.merge == "all_reduce" and graph.cut.groups == graph.cut.actors


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
    is_joint = shares_updates(plan.graph)
    needed = actors_for_all(plan.graph.processes, plan.inventory, is_joint=is_joint)
    if needed > plan.experiment.actors:
        return f"; -s actors={needed} would use all hosts"
    return ""
