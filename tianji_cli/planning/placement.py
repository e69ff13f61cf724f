"""Places processes on hosts.

`roles` of the inventory are followed, then what `actors: auto` has chosen. For the rest: learner,
buffer, evaluator and coordinator are on the host with most GPUs (the first host if none has any),
actors in turn on the other hosts, or on all hosts if there is only one or if the others are
assigned by name. Environments that are stepped in processes of their own are spread like actors.
Several compute groups are placed on hosts in turn; their reducer is beside the coordinator. With
more hosts than groups, each group has several hosts, and its actors are on those without its
learner. If the inventory states `cores`, actors and groups are placed in proportion to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from engine.errors import ConfigError
from engine.graph.dataflow import Process
from engine.messages import COORDINATOR, role_of
from engine.spec import MAX_REPLICAS, Experiment
from tianji_cli.config.inventory import Host, Inventory

COMPUTING = ("actor", "learner", "environment")
"""Roles that keep a core busy."""
_RANK = ("learner", "buffer", "evaluator", "actor", "environment")
_DEALT = ("actor", "environment")
"""Kinds of processes that are spread over hosts; of the others each is on the head."""


class Placement(msgspec.Struct, frozen=True):
    """A process on a host."""

    process: str
    host: str
    roles: tuple[str, ...]


def with_named_actors(experiment: Experiment, inventory: Inventory) -> Experiment:
    """The experiment with the number of actors in the inventory; unchanged if it names none.

    Raises:
        ConfigError: It names more than a run can have.
    """
    named = [
        host.roles["actor"] for host in inventory.hosts if host.roles and "actor" in host.roles
    ]
    if not sum(named):
        return experiment
    if sum(named) > MAX_REPLICAS:
        raise ConfigError(
            f"{sum(named)} actors are named; a run has at most {MAX_REPLICAS}",
            where=f"{inventory.source}: roles",
        )
    return msgspec.structs.replace(experiment, actors=sum(named))


def place(processes: Sequence[Process], inventory: Inventory) -> list[Placement]:
    """Places all processes and the coordinator, which comes first.

    Raises:
        ConfigError: The inventory names more of a role than the run has, or fewer.
    """
    hosts = inventory.hosts
    head = head_of(hosts)
    if _has_groups(processes) and all(host.roles is None for host in hosts):
        return _place_groups(processes, hosts, head)
    kinds: dict[str, list[Process]] = {kind: [] for kind in _RANK}
    placements: list[Placement] = []
    for process in processes:
        if any(role_of(role) in _RANK for role in process.roles):
            kinds[_kind_of(process)].append(process)
        else:  # processes for several groups
            placements.append(Placement(process.name, head.name, process.roles))
    for kind in _RANK:
        names = _hosts_for(kind, len(kinds[kind]), hosts, head, inventory.source)
        pairs = zip(kinds[kind], names, strict=True)
        placements += [Placement(process.name, name, process.roles) for process, name in pairs]
    where = {placement.roles[0]: placement.host for placement in placements}
    learner_host = next((host for role, host in where.items() if role_of(role) == "learner"), None)
    order = {process.name: number for number, process in enumerate(processes)}
    named = _named(COORDINATOR, hosts)
    coordinator_host = named[0] if named else learner_host or head.name
    return [
        Placement(COORDINATOR, coordinator_host, (COORDINATOR,)),
        *sorted(placements, key=lambda item: order[item.process]),
    ]


def head_of(hosts: Sequence[Host]) -> Host:
    """The host with the learner, unless the inventory says otherwise."""
    return max(hosts, key=lambda host: len(host.gpus or ()))


def crowded(placements: Sequence[Placement], cores: Mapping[str, int]) -> list[str]:
    """Warnings about hosts with more computing processes than cores.

    Args:
        placements: The placement of all processes.
        cores: Of each host, as far as known.

    >>> crowded([Placement("learner-0", "box", ("learner-0",))] * 3, {"box": 2})
    ['box runs 3 processes that compute on 2 cores; expect CPU contention to limit throughput']
    """
    busy = Counter(
        item.host for item in placements if any(role_of(role) in COMPUTING for role in item.roles)
    )
    return [
        f"{host} runs {count} processes that compute on {_cores(cores[host])};"
        " expect CPU contention to limit throughput"
        for host, count in busy.items()
        if host in cores and count > cores[host]
    ]


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def _has_groups(processes: Sequence[Process]) -> bool:
    return len({process.group for process in processes} - {None}) > 1


def _place_groups(
    processes: Sequence[Process], hosts: Sequence[Host], head: Host
) -> list[Placement]:
    """Places groups on hosts in turn; processes for several groups go to the first."""
    num_groups = 1 + max(process.group or 0 for process in processes)
    of_groups = hosts_of_groups(num_groups, hosts)
    actors = Counter(p.group for p in processes if _kind_of(p) == "actor")
    waiting = {
        group: iter(dealt(count, of_groups[group][1:] or of_groups[group]))
        for group, count in actors.items()
        if group is not None
    }
    placements = [Placement(COORDINATOR, head.name, (COORDINATOR,))]
    for process in processes:
        if process.group is None:
            host = head.name
        elif _kind_of(process) == "actor":
            host = next(waiting[process.group])
        else:
            host = of_groups[process.group][0].name
        placements.append(Placement(process.name, host, process.roles))
    return placements


def hosts_of_groups(num_groups: int, hosts: Sequence[Host]) -> list[list[Host]]:
    """For each group its hosts; the first, with GPUs if possible, has its learner."""
    if len(hosts) <= num_groups:
        by_name = {host.name: host for host in hosts}
        return [[by_name[name]] for name in dealt(num_groups, hosts)]
    ordered = sorted(hosts, key=lambda host: -len(host.gpus or ()))
    return [ordered[group::num_groups] for group in range(num_groups)]


def actors_for_all(
    processes: Sequence[Process], inventory: Inventory, *, is_joint: bool = False
) -> int:
    """Number of actors with which every host has work; 0 if the inventory places them, or if they
    are not separate processes.

    Args:
        processes: Of a run with any number of actors.
        inventory: The hosts.
        is_joint: Whether each actor has a learner of its own, which updates with the others.
    """
    has_actors = any(_kind_of(process) in _DEALT for process in processes)
    hosts = [host for host in inventory.hosts if host.roles is None]
    if len(hosts) < len(inventory.hosts) or not (has_actors or is_joint):
        return 0
    if is_joint:
        return len(hosts)
    if not _has_groups(processes):
        return len(hosts) - 1
    num_groups = 1 + max(process.group or 0 for process in processes)
    return num_groups * max(len(of_one) - 1 for of_one in hosts_of_groups(num_groups, hosts))


def _kind_of(process: Process) -> str:
    """The most demanding role of a fused process, which determines its host."""
    roles = {role_of(role) for role in process.roles}
    return next((kind for kind in _RANK if kind in roles), _RANK[-1])


def _named(kind: str, hosts: Sequence[Host]) -> list[str]:
    return [host.name for host in hosts for _ in range((host.roles or {}).get(kind, 0))]


def _hosts_for(kind: str, count: int, hosts: Sequence[Host], head: Host, source: str) -> list[str]:
    named = _named(kind, hosts)
    if named and len(named) != count:
        raise ConfigError(
            f"{len(named)} {kind} roles are named ({_count(named)}), but this run has {count}",
            where=f"{source}: roles",
            fix=f"name {count}, or none to have them placed",
        )
    if named:
        return named
    chosen = [host.name for host in hosts for _ in range(host.actors)]
    if kind == "actor" and len(chosen) == count:
        return chosen
    free = [host for host in hosts if host.roles is None]
    if kind not in _DEALT:
        if head.roles is not None and free:
            return [free[0].name] * count
        return [head.name] * count
    others = [host for host in free if host is not head] or free or list(hosts)
    return dealt(count, others)


def dealt(count: int, hosts: Sequence[Host]) -> list[str]:
    """Hosts for a number of equal items.

    In turn, or, if the inventory states the cores of all hosts, always the one that would then have
    the most cores per item.
    """
    is_stated = all(host.cores is not None for host in hosts)
    load: Counter[str] = Counter()
    names = []
    for _ in range(count):
        chosen = min(
            hosts, key=lambda host: (load[host.name] + 1) / (host.cores or 1 if is_stated else 1)
        )
        load[chosen.name] += 1
        names.append(chosen.name)
    return names


def _count(names: list[str]) -> str:
    return ", ".join(f"{number} on {name}" for name, number in Counter(names).items())
