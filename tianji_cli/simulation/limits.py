"""Which resource of a simulated run is busiest, and so what limits it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from engine.admission.bounded import most_collecting
from engine.graph.workload import Workload
from engine.messages import role_of
from engine.wording import plural
from tianji_cli.simulation.spread import Spread
from tianji_cli.simulation.world import SimulatedWorld

Limit = Literal[
    "actors",
    "cores",
    "gpus",
    "learner",
    "buffer",
    "reducer",
    "network",
    "coordinator",
    "gradients",
    "waiting",
]
FULL = 0.9
"""A resource that is busy this share of the time limits the run."""
SERVING: tuple[Limit, ...] = ("learner", "buffer", "reducer")
"""Roles whose process limits a run if it is always busy. One that collects, too, does not: more of
them do more."""


class ResourceLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How busy a resource is.

    Attributes:
        kind: What limits the run if this does.
        name: Which it is.
        share: Of the time, 0 to 1.
    """

    kind: Limit
    name: str
    share: float


class BusyTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long each resource has been busy, in seconds of the whole of it."""

    at_s: float
    busy_s: dict[tuple[Limit, str], float]


def usage_of(world: SimulatedWorld) -> BusyTimes:
    """How long each resource has been busy so far."""
    busy: dict[tuple[Limit, str], float] = {}
    for process in world.processes.values():
        kinds = {role_of(role) for role in process.addresses}
        kind: Limit | None = next((kind for kind in SERVING if kind in kinds), None)
        if "actor" in kinds and not world.has_remote_env:
            kind = "actors" if kind else None
        if kind is not None:
            busy[(kind, process.name)] = process.busy_s
    for host, cores in world.cores.items():
        busy[("cores", f"cores of {host}")] = cores.used_s / cores.count
    for host, devices in world.devices.items():
        busy[("gpus", f"GPUs of {host}")] = devices.used_s / devices.count
    for name, stage in world.network.stages:
        busy[("network", name)] = stage.num_bytes / stage.bytes_per_s
    busy[("coordinator", "coordinator")] = world.report_s * world.tally.num_reports
    if world.learners_meet:
        met = [process.met_s for process in world.processes.values() if process.met_s]
        busy[("gradients", "sums of gradients")] = sum(met) / max(len(met), 1)
    return BusyTimes(at_s=world.timeline.now_s, busy_s=busy)


def loads_between(before: BusyTimes, after: BusyTimes) -> list[ResourceLoad]:
    """How busy the busiest resource of each kind was, the busiest first."""
    wall_s = after.at_s - before.at_s
    loads = [
        ResourceLoad(
            kind=kind,
            name=name,
            share=(busy_s - before.busy_s.get((kind, name), 0.0)) / wall_s if wall_s else 0.0,
        )
        for (kind, name), busy_s in after.busy_s.items()
    ]
    found: dict[Limit, ResourceLoad] = {}
    for load in sorted(loads, key=lambda load: -load.share):
        found.setdefault(load.kind, load)
    return list(found.values())


def limit_of(
    loads: Sequence[ResourceLoad], collecting: float, spread: Spread, workload: Workload
) -> tuple[Limit, str]:
    """What limits a run.

    Args:
        loads: The busiest first.
        collecting: Share of their time that actors collect.
        spread, workload: The run.

    Returns:
        The kind, and words for people.
    """
    full = [load for load in loads if load.share >= FULL]
    shared = next((load for load in full if load.kind not in ("actors", "gradients")), None)
    if shared is not None:
        late = ": reports come late" if shared.kind == "coordinator" else ""
        return shared.kind, f"{shared.name}: {min(shared.share, 1.0):.0%} busy{late}"
    met = next((load.share for load in loads if load.kind == "gradients"), 0.0)
    if met >= 0.5:
        return "gradients", f"sums of gradients: learners spend {met:.0%} of the time in them"
    if met:
        return "actors", f"learners: they collect or update, {met:.0%} of the time they meet"
    if full:
        return "actors", "actors: they collect or learn all the time"
    if collecting >= FULL:
        return "actors", "actors: they collect all the time"
    return "waiting", f"actors wait {1 - collecting:.0%} of the time{_why(spread, workload)}"


def _why(spread: Spread, workload: Workload) -> str:
    """Why actors wait although nothing is full, as far as rules tell."""
    cut, work = spread.graph.cut, workload.of_group(0)
    staleness, actors = spread.experiment.staleness, len(cut.actors_of(0))
    if work.replay is not None:
        return ": collecting and training keep to the replay ratio"
    most = most_collecting(staleness, work.rollouts_per_batch, actors)
    if most < actors:
        return f": of a group's {plural(actors, 'actor')} {most} may collect at the same time"
    if staleness.bound == 0:
        return ": for the weights of each update"
    if staleness.bound is not None:
        return f": for weights, since samples may be {plural(staleness.bound, 'version')} old"
    return ": the queue of rollouts is full"
