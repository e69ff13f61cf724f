"""Where learners that make every update together meet, if they are on several hosts.

In an encrypted network one process of each host is in a ring, and listens for its left neighbour.
In a trusted one the process of the first learner serves the store of torch.distributed, by which
all learners find each other.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.control_protocol import Rendezvous
from engine.wire.learner_ring import RingSeat
from engine.wire.socket_factory import Link
from tianji_cli.planning.plan import Plan

MEETING = "~meeting"
"""Ends the name of the second endpoint of a process: that for learners elsewhere."""
STORE_NAME = ".meeting"
"""Begins that of the file by which learners of one host find each other, in the run's directory,
which several hosts can share."""


def learners_by_host(plan: Plan) -> dict[str, dict[int, str]]:
    """For each host with learners that update together, their numbers and processes, in order;
    empty if learners update alone."""
    if not plan.graph.cut.is_joint:
        return {}
    host_of, process_of = plan.host_of, plan.graph.process_of
    found: dict[str, dict[int, str]] = {}
    for number in range(plan.graph.cut.groups):
        process = process_of[f"learner-{number}"].name
        found.setdefault(host_of[process], {})[number] = process
    return found


def ring_of(plan: Plan) -> tuple[str, ...]:
    """The processes in the ring, each the left neighbour of the next; empty if there is none."""
    by_host = learners_by_host(plan)
    if len(by_host) < 2 or plan.inventory.network == "trusted":
        return ()
    return tuple(next(iter(learners.values())) for learners in by_host.values())


def store_of(plan: Plan) -> str | None:
    """The process that serves the store of torch.distributed, if learners meet there."""
    by_host = learners_by_host(plan)
    if len(by_host) < 2 or plan.inventory.network != "trusted":
        return None
    return next(process for learners in by_host.values() for process in learners.values())


def meetings(plan: Plan) -> tuple[str, ...]:
    """Processes with a second endpoint, for learners elsewhere."""
    store = store_of(plan)
    return ring_of(plan) if store is None else (store,)


def meeting_ways(plan: Plan) -> set[tuple[str, str]]:
    """Pairs of hosts, of which the first connects to the second so that learners meet."""
    host_of, ring, store = plan.host_of, ring_of(plan), store_of(plan)
    if store is not None:
        return {(host, host_of[store]) for host in learners_by_host(plan)}
    return {(host_of[own], host_of[right]) for own, right in _neighbours(ring)}


def words_of_joint(plan: Plan) -> list[str]:
    """How learners that make every update together meet, as text; empty if learners update alone.

    The first line is the way between hosts, if there are several; the others are of single hosts.
    """
    by_host, ring, store = learners_by_host(plan), ring_of(plan), store_of(plan)
    host_of = plan.host_of
    lines = []
    if ring:
        members = [f"{process} ({host_of[process]})" for process in (*ring, ring[0])]
        lines.append(f"encrypted ring: {' -> '.join(members)}")
    if store is not None:
        hosts = ", ".join(by_host)
        lines.append(f"torch.distributed, not encrypted: {hosts}; they meet at {host_of[store]}")
        return lines
    for host, learners in by_host.items():
        if len(learners) > 1:
            lines.append(f"loopback of {host}: {', '.join(learners.values())}")
    return lines


def seats_of(plan: Plan, endpoints: Mapping[str, str]) -> dict[str, RingSeat]:
    """The place in the ring of each process that is in it.

    Args:
        plan: The plan.
        endpoints: By server, and by process with `MEETING`.
    """
    host_of, ring = plan.host_of, ring_of(plan)
    return {
        own: RingSeat(
            position=position,
            count=len(ring),
            bind=endpoints[own + MEETING],
            left=ring[position - 1],
            right=Link(peer=right, endpoint=endpoints[right + MEETING]),
            hosts={name: host_of[name] for name in (ring[position - 1], right)},
        )
        for position, (own, right) in enumerate(_neighbours(ring))
    }


def rendezvous_of(
    plan: Plan,
    run_dirs: Mapping[str, str],
    addresses: Mapping[str, str],
    endpoints: Mapping[str, str],
) -> dict[str, Rendezvous]:
    """Where the learners of each host meet the others.

    Args:
        plan: The plan.
        run_dirs: The run's directory on each host.
        addresses: Of each host, where others reach it.
        endpoints: By server, and by process with `MEETING`.
    """
    store = store_of(plan)
    return {
        host: Rendezvous(
            learners=tuple(learners),
            file=f"{run_dirs[host]}/{STORE_NAME}-{host}",
            store=endpoints[store + MEETING] if store else "",
            address=addresses[host] if store else "",
        )
        for host, learners in learners_by_host(plan).items()
    }


def _neighbours(ring: tuple[str, ...]) -> zip[tuple[str, str]]:
    """Each process and the one on its right."""
    return zip(ring, (*ring[1:], *ring[:1]), strict=True)
