"""Spreads a run over so many equal hosts, by the placement of `up`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from engine.errors import ConfigError
from engine.graph.dataflow import DataflowGraph, build_graph
from engine.graph.policy import DistributionPolicy, FragmentSpec, read_policy
from engine.spec import MAX_REPLICAS, Experiment, Scalar, StopSpec
from engine.wording import plural
from tianji_cli.config.cluster import ClusterSpec
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.planning.placement import Placement, place
from tianji_cli.simulation.costs import Basis

FOREVER = 1e9
"""A stop rule that no simulation comes to, in seconds."""


@dataclass(frozen=True)
class Spread:
    """A run on some hosts.

    Attributes:
        hosts: How many.
        experiment, graph, placements: As `up` would have them.
    """

    hosts: int
    experiment: Experiment
    graph: DataflowGraph
    placements: Sequence[Placement]


def spread_over(hosts: int, experiment: Experiment, cluster: ClusterSpec, basis: Basis) -> Spread:
    """Gives each host its actors, and each group its hosts.

    Args:
        hosts: How many.
        experiment: What is run; its numbers of actors and groups are those of the measured run.
        cluster: What they are like, and how much of the run each has.
        basis: The measured run.

    Raises:
        ConfigError: The policy cannot be applied.
    """
    policy = read_policy(experiment.policy)
    groups = _groups(hosts, policy, cluster, basis)
    per_host = cluster.actors_per_host or basis.actors_per_host
    actors = per_host * _acting_hosts(hosts, groups, policy)
    if actors > MAX_REPLICAS:
        raise ConfigError(
            f"{plural(actors, 'actor')}; a run has at most {MAX_REPLICAS}",
            where="cluster: actors_per_host",
        )
    work = replace(
        experiment,
        actors=actors,
        groups=groups,
        stop=StopSpec(seconds=FOREVER),
        algorithm=_algorithm(experiment, cluster, basis, actors, groups),
    )
    graph = build_graph(policy, work)
    work = replace(work, staleness=graph.cut.staleness)
    return Spread(hosts, work, graph, place(graph.processes, _inventory(hosts, cluster)))


def _groups(hosts: int, policy: DistributionPolicy, cluster: ClusterSpec, basis: Basis) -> int:
    if _fragment(policy, "update").replicas != "groups":
        return 1
    if cluster.hosts_per_group is not None:
        return max(1, hosts // cluster.hosts_per_group)
    return hosts if basis.groups > 1 else 1


def _acting_hosts(hosts: int, groups: int, policy: DistributionPolicy) -> int:
    """Hosts with actors, or with environments that are stepped for them."""
    update = _fragment(policy, "update").functions
    if "act" in update and "env_step" in update:
        return hosts
    return hosts if hosts <= groups else hosts - groups


def _algorithm(
    experiment: Experiment, cluster: ClusterSpec, basis: Basis, actors: int, groups: int
) -> dict[str, Scalar]:
    """The hyperparameters, with batches that grow with the actors of a group if that is wanted."""
    given = dict(experiment.algorithm)
    before = experiment.actors / experiment.groups
    factor = max(1, -(-actors // round(before * groups)))
    if cluster.grow_batch and "batch_steps" in given:
        for key in ("batch_steps", "minibatch_steps"):
            if isinstance(size := given.get(key), int):
                given[key] = size * factor
    return given


def _fragment(policy: DistributionPolicy, function: str) -> FragmentSpec:
    return next(item for item in policy.fragments.values() if function in item.functions)


def _inventory(hosts: int, cluster: ClusterSpec) -> Inventory:
    gpus = tuple(range(cluster.gpus)) or None
    found = tuple(
        Host(
            name=f"host{number}",
            connection="ssh",
            address=f"host{number}",
            ports=(1, 2),
            gpus=gpus,
        )
        for number in range(1, hosts + 1)
    )
    return Inventory(source="--simulate", hosts=found)
