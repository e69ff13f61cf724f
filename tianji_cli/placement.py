"""Which process goes to which host.

What the inventory says of a host's `roles` is honoured. For the rest: learner, buffer, evaluator
and coordinator on the host that names most GPUs (the first of all if none does), actors one by one
over the other hosts, over all hosts if there is only one or if the others are taken by name.
Several compute groups are dealt out whole, one host after the other; their reducer stays with the
coordinator. Where the inventory states `cores`, actors and groups are dealt out by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from engine.errors import ConfigError
from engine.graph.dataflow import Process
from engine.messages import COORDINATOR, role_of
from engine.spec import MAX_REPLICAS, Experiment
from tianji_cli.inventory import Host, Inventory

COMPUTING = ("actor", "learner", "environment")
"""Roles that keep a core busy."""
_RANK = ("learner", "buffer", "evaluator", "actor")


class Placement(msgspec.Struct, frozen=True):
    """A process on a host."""

    process: str
    host: str
    roles: tuple[str, ...]


def with_named_actors(experiment: Experiment, inventory: Inventory) -> Experiment:
    """The experiment with as many actors as the inventory names; unchanged if it names none.

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
            f"{sum(named)} actors are named, a run has at most {MAX_REPLICAS}",
            where=f"{inventory.source}: roles",
        )
    return msgspec.structs.replace(experiment, actors=sum(named))


def place(processes: Sequence[Process], inventory: Inventory) -> list[Placement]:
    """Places all processes and the coordinator, which comes first.

    Raises:
        ConfigError: The inventory names more of a role than the run has, or fewer.
    """
    hosts = inventory.hosts
    head = max(hosts, key=lambda host: len(host.gpus or ()))
    if _has_groups(processes) and all(host.roles is None for host in hosts):
        return _place_groups(processes, hosts, head)
    kinds: dict[str, list[Process]] = {kind: [] for kind in _RANK}
    placements: list[Placement] = []
    for process in processes:
        if any(role_of(role) in _RANK for role in process.roles):
            kinds[_kind_of(process)].append(process)
        else:  # what serves several groups
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


def crowded(placements: Sequence[Placement], cores: Mapping[str, int]) -> list[str]:
    """Hosts on which more processes compute than there are cores, in words for the user.

    Args:
        placements: What runs where.
        cores: Of each host, as far as known.

    >>> crowded([Placement("learner-0", "box", ("learner-0",))] * 3, {"box": 2})
    ['box runs 3 processes that compute on 2 cores; figures of such a run are those of the cores']
    """
    busy = Counter(
        item.host for item in placements if any(role_of(role) in COMPUTING for role in item.roles)
    )
    return [
        f"{host} runs {count} processes that compute on {cores[host]} cores;"
        " figures of such a run are those of the cores"
        for host, count in busy.items()
        if host in cores and count > cores[host]
    ]


def _has_groups(processes: Sequence[Process]) -> bool:
    return len({process.group for process in processes} - {None}) > 1


def _place_groups(
    processes: Sequence[Process], hosts: Sequence[Host], head: Host
) -> list[Placement]:
    """Whole groups are dealt out to the hosts; what serves several goes to the first."""
    of_groups = dealt(1 + max(process.group or 0 for process in processes), hosts)
    return [
        Placement(COORDINATOR, head.name, (COORDINATOR,)),
        *(
            Placement(
                process.name,
                head.name if process.group is None else of_groups[process.group],
                process.roles,
            )
            for process in processes
        ),
    ]


def _kind_of(process: Process) -> str:
    """A fused process goes where its weightiest role goes."""
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
    free = [host for host in hosts if host.roles is None]
    if kind != "actor":
        if head.roles is not None and free:
            return [free[0].name] * count
        return [head.name] * count
    others = [host for host in free if host is not head] or free or list(hosts)
    return dealt(count, others)


def dealt(count: int, hosts: Sequence[Host]) -> list[str]:
    """Names of the hosts that so many equal things go to.

    In turn, or, if the inventory states the cores of all of them, always to the one that has the
    most cores for each thing that it would then have.
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
