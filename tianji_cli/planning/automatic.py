"""`actors: auto` and `env.num_envs: auto`: numbers that make use of the cores of all hosts.

Actors get the cores that learners leave, one or `env.num_threads` each; on hosts with four or more,
one core is left for everything else. There are no more than can collect at the same time within the
bound on lag, nor than learners can take samples from, but one for every host. Of the numbers of
environments that suit the experiment, the one is chosen that needs fewest actors, and then fewest
environments, among those with which nearly as much is collected and taken as with the best.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from engine.admission.bounded import most_collecting
from engine.graph.dataflow import DataflowGraph
from engine.graph.workload import ActorSize, MeasuredWork
from engine.messages import role_of
from engine.spec import MAX_REPLICAS, Experiment, StalenessSpec
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.planning.chosen import Bound
from tianji_cli.planning.placement import head_of, hosts_of_groups
from tianji_cli.planning.plan import shares_updates

NEARLY = 0.9
"""Of the most that could be collected: less is not worth more environments."""
COMPILED_GAIN = 6.0
"""How many times as much a compiled learner takes as an eager one, at most."""
FEW_CORES = 4
"""From so many on, one is left for everything else on a host."""


@dataclass(frozen=True)
class Rules:
    """What bounds how much actors are of use.

    Attributes:
        staleness: The rule that applies.
        least: Actors with which every host has work.
        room: Actors for which there are cores.
        groups: Learners with actors of their own.
        is_joint: Whether there is a learner for each actor, which share every batch.
        wanted_per_s: Env steps that learners can take; None: unknown.
    """

    staleness: StalenessSpec
    least: int
    room: int
    groups: int = 1
    is_joint: bool = False
    wanted_per_s: float | None = None

    def actors_with(self, size: ActorSize) -> int:
        """Actors that have cores, can collect at the same time and are of use; at least one on
        every host."""
        most = max(*self._bounds(size).values())
        return min(most - most % self.groups, MAX_REPLICAS)

    def bound_of(self, size: ActorSize) -> Bound:
        """Why there are no more of them."""
        bounds = self._bounds(size)
        return max(bounds, key=lambda bound: bounds[bound])

    def collected_per_s(self, size: ActorSize, actors: int) -> float:
        """Env steps that so many actors collect and learners can take."""
        busy = min(actors, max(self.room, 1), self._collecting(size, actors))
        rate = busy * size.env_steps_per_s
        return rate if self.wanted_per_s is None else min(rate, self.wanted_per_s)

    def _bounds(self, size: ActorSize) -> dict[Bound, int]:
        """Actors of use, by what bounds them; and those that every host and group needs."""
        most: dict[Bound, int] = {
            "cores": self.room,
            "batch" if self.is_joint else "lag": self._collecting(size, self.room),
            "learner": self.room,
        }
        if self.wanted_per_s is not None and size.env_steps_per_s > 0:
            most["learner"] = math.ceil(self.wanted_per_s / size.env_steps_per_s)
        bound = min(most, key=lambda name: most[name])
        return {bound: most[bound], "hosts": max(self.least, self.groups)}

    def _collecting(self, size: ActorSize, actors: int) -> int:
        if not size.rollouts_per_batch:
            return actors  # a replay store admits all
        if self.is_joint:
            return min(actors, size.rollouts_per_batch * size.num_envs)
        per_group = max(actors // self.groups, 1)
        most = most_collecting(self.staleness, size.rollouts_per_batch, per_group)
        return self.groups * most


def choose(
    sizes: Sequence[ActorSize], rules: Rules, actors: int | None = None
) -> tuple[int, ActorSize]:
    """The number of actors, and the size of each.

    Args:
        sizes: Among which to choose; at least one.
        rules: What bounds them.
        actors: Their number if it is given.
    """
    pairs = [(actors or rules.actors_with(size), size) for size in sizes]
    rates = [rules.collected_per_s(size, count) for count, size in pairs]
    good = [pair for pair, rate in zip(pairs, rates, strict=True) if rate >= NEARLY * max(rates)]
    return min(good, key=lambda pair: (pair[0], pair[1].num_envs))


def are_separate(graph: DataflowGraph) -> bool:
    """Whether there is a process for each actor, or for the environments of each."""
    kind = "environment" if graph.cut.has_remote_env else "actor"
    processes = [
        process
        for process in graph.processes
        if any(role_of(role) == kind for role in process.roles)
    ]
    return not graph.is_inline and len(processes) == graph.cut.num_environments


def are_placed_alone(graph: DataflowGraph) -> bool:
    """Whether actors of a single group are processes of their own, and can be on any host."""
    cut = graph.cut
    return cut.groups == 1 and not cut.has_remote_env and not shares_updates(graph)


def room_for_actors(
    graph: DataflowGraph, experiment: Experiment, inventory: Inventory, cores: Mapping[str, int]
) -> dict[str, int]:
    """For how many actors each host has cores, in the order of the inventory.

    Args:
        graph: The run with any number of actors.
        experiment: Whose threads count.
        inventory: The hosts.
        cores: Of each.
    """
    each, threads = experiment.env.num_threads, experiment.learner.threads
    free = [host for host in inventory.hosts if host.roles is None] or list(inventory.hosts)
    left = {host.name: _left(cores[host.name]) for host in free}
    if shares_updates(graph):  # a learner for each actor
        return {
            host.name: _room_for_loops(host, left[host.name], max(each, threads), graph)
            for host in free
        }
    learners, for_actors = _hosts_of(graph, free)
    only_there = all(name in learners for name in for_actors)
    return {
        name: max(
            only_there or name not in learners, (left[name] - learners[name] * threads) // each
        )
        for name in for_actors
    }


def _room_for_loops(host: Host, num_cores: int, each: int, graph: DataflowGraph) -> int:
    """Learners with an actor each: one for each GPU of a host, else as many as it has cores for."""
    if host.gpus:
        return len(host.gpus)
    return 1 if graph.cut.is_on_device else max(1, num_cores // each)


def _hosts_of(graph: DataflowGraph, hosts: Sequence[Host]) -> tuple[Counter[str], list[str]]:
    """How many learners each host has, and which hosts can have actors, or their environments."""
    groups = graph.cut.groups
    if groups > 1 and not graph.cut.is_apart:
        of_groups = hosts_of_groups(groups, hosts)
        learners = Counter(of_one[0].name for of_one in of_groups)
        others = {host.name for of_one in of_groups for host in of_one[1:] or of_one}
        return learners, [host.name for host in hosts if host.name in others]
    head = head_of(hosts)
    beside = [host.name for host in hosts if host is not head]
    return Counter({head.name: groups}), beside if beside and graph.cut.has_remote_env else [
        host.name for host in hosts
    ]


def _left(num_cores: int) -> int:
    return num_cores - 1 if num_cores >= FEW_CORES else num_cores


def spread(count: int, room: Mapping[str, int], first: Sequence[str] = ()) -> dict[str, int]:
    """Actors on each host: in proportion to its room, but one on each of `first` before any other.

    >>> spread(5, {"head": 1, "box": 3, "small": 1}, ["box", "small"])
    {'head': 1, 'box': 3, 'small': 1}
    """
    load = Counter(list(first)[:count])
    fits = [name for name, most in room.items() if most] or list(room)
    for _ in range(count - load.total()):
        load[min(fits, key=lambda name: (load[name] + 1) / max(room[name], 1))] += 1
    return {name: load[name] for name in room}


def with_actors_on(inventory: Inventory, actors_on: Mapping[str, int]) -> Inventory:
    """The inventory with the actors that were chosen for each host."""
    hosts = tuple(
        msgspec.structs.replace(host, actors=actors_on.get(host.name, 0))
        for host in inventory.hosts
    )
    return msgspec.structs.replace(inventory, hosts=hosts)


def with_cores(inventory: Inventory, cores: Mapping[str, int]) -> Inventory:
    """The inventory with the cores of each host."""
    hosts = tuple(msgspec.structs.replace(host, cores=cores[host.name]) for host in inventory.hosts)
    return msgspec.structs.replace(inventory, hosts=hosts)


def rules_of(
    graph: DataflowGraph, room: Mapping[str, int], least: int, work: MeasuredWork, *, on_gpu: bool
) -> Rules:
    """The rules of a run.

    Args:
        graph: It, with any number of actors.
        room: Actors for which each host has cores.
        least: Actors with which every host has work.
        work: What was measured.
        on_gpu: Whether learners may be on GPUs, whose speed was not measured.
    """
    is_joint = shares_updates(graph)
    groups = 1 if is_joint or graph.cut.is_apart else graph.cut.groups
    is_known = work.learnt_per_s > 0 and not on_gpu and not is_joint
    return Rules(
        staleness=graph.cut.staleness,
        least=least,
        room=sum(room.values()),
        groups=groups,
        is_joint=is_joint,
        wanted_per_s=COMPILED_GAIN * groups * work.learnt_per_s if is_known else None,
    )
