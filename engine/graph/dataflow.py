"""Builds a dataflow graph from a policy and an experiment: a run's processes, and who connects."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from engine.errors import ConfigError
from engine.graph.cut import Cut, MergeRule
from engine.graph.policy import DistributionPolicy, EdgeSpec, FragmentSpec, roles_of
from engine.graph.validate import check_policy
from engine.spec import MAX_REPLICAS, Experiment
from engine.wording import plural

_ROLES_OF_VALUE = {
    "observation": ("environment", "actor"),
    "action": ("actor", "environment"),
    "rollout": ("actor", "buffer"),
    "batch": ("buffer", "learner"),
    "weights": ("learner", "actor"),
    "model": ("learner", "reducer"),
    "merged": ("reducer", "learner"),
}
"""Producer and consumer; torch.distributed carries gradients over its own connections."""
_SERVER_IS_TARGET = frozenset({"action", "rollout", "model"})
"""The side that others connect to: the target if many send, the source if many ask. The side that
sends first connects, so that no message precedes the connection."""
Connection = tuple[str, str, bool]
"""Client process, server process, whether only the latest counts."""


@dataclass(frozen=True)
class Process:
    """One operating-system process of a run.

    Attributes:
        name: `<fragment>-<index>`.
        fragment: Which fragment it is a replica of.
        roles: Addresses of the roles that it runs.
        group: The compute group that it belongs to; None if it serves several.
    """

    name: str
    fragment: str
    roles: tuple[str, ...]
    group: int | None = 0


@dataclass(frozen=True)
class DataflowGraph:
    """Validated fragments and edges, with all replicas.

    Attributes:
        policy: Without the fragments that this experiment leaves out.
        processes: In the order of the fragments.
        cut: What the roles need to know.
    """

    policy: DistributionPolicy
    processes: tuple[Process, ...]
    cut: Cut

    @property
    def edges(self) -> tuple[EdgeSpec, ...]:
        return self.policy.edges

    @property
    def is_inline(self) -> bool:
        """Whether the graph is a single process, which then runs inside the command.

        A loop on a device does not, since the device can be on another host.
        """
        return len(self.processes) == 1 and not self.cut.is_on_device

    @property
    def process_of(self) -> dict[str, Process]:
        """The process of each role."""
        return {role: process for process in self.processes for role in process.roles}

    def count(self, role: str) -> int:
        return sum(
            address.startswith(f"{role}-")
            for process in self.processes
            for address in process.roles
        )


def build_graph(
    policy: DistributionPolicy, experiment: Experiment, num_apart: int = 1
) -> DataflowGraph:
    """Applies the policy to the experiment.

    Args:
        policy: How functions are distributed.
        experiment: What is run.
        num_apart: Policies of a team that have a learner each. The experiment's actors are then
            those of each of them: actors of all act in the same environments.

    Raises:
        ConfigError: A function is missing or placed twice, an input has no producer, an edge
            carries what its ends do not produce or take, a cycle waits for itself, or actors and
            groups do not suit the policy; fragment and edge are named.
    """
    if num_apart > 1:
        experiment = _with_apart(experiment, num_apart)
    if experiment.evaluation is not None:
        policy = with_evaluator(policy)
    check_policy(policy)
    present = _without_absent(policy, experiment)
    cut = _cut(present, experiment)
    if num_apart > 1:
        _check_apart(present, cut)
        cut = replace(cut, merge="assemble", staleness=cut.staleness.held)
    return DataflowGraph(present, tuple(_replicate(present, experiment, cut)), cut)


def _check_apart(policy: DistributionPolicy, cut: Cut) -> None:
    """Raises ConfigError unless the policies of a team share environments, live with their learner,
    and have a reducer that puts the whole team together."""
    learner = next(item for item in policy.fragments.values() if "update" in item.functions)
    has_reducer = any("reduce" in item.functions for item in policy.fragments.values())
    if not (cut.has_remote_env and has_reducer and "act" in learner.functions):
        raise ConfigError(
            "to split a team, it must place act beside update, env_step in another fragment, and"
            " reduce",
            where=f"policy {policy.name}",
            fix="leave splits_teams out, or start from the policy environments",
        )


def _with_apart(experiment: Experiment, num_apart: int) -> Experiment:
    """The same with a group for each policy of a team, and as many actors in each."""
    if experiment.groups not in (1, num_apart):
        raise ConfigError(
            f"there are {num_apart} policies, each with a learner of its own, but the"
            f" experiment asks for {plural(experiment.groups, 'group')}",
            where="groups",
            fix=f"leave it out, or set groups={num_apart}",
        )
    actors = experiment.actors * num_apart
    if actors > MAX_REPLICAS:
        raise ConfigError(
            f"{plural(experiment.actors, 'actor')} of each of {num_apart} policies are {actors};"
            f" a run has at most {MAX_REPLICAS}",
            where="actors",
            fix="use fewer actors",
        )
    return replace(experiment, groups=num_apart, actors=actors)


def with_evaluator(policy: DistributionPolicy) -> DistributionPolicy:
    """The same policy with an evaluator that takes the first learner's newest weights.

    It is a separate process, off the critical path, unless the policy has only one process. A
    policy that places `evaluate` itself is left alone.
    """
    fragments = policy.fragments
    if any("evaluate" in item.functions for item in fragments.values()):
        return policy
    source = next((name for name, item in fragments.items() if "update" in item.functions), "")
    if len(fragments) == 1 and fragments[source].replicas == 1:
        only = fragments[source]
        fused = FragmentSpec(functions=(*only.functions, "evaluate"), replicas=1)
        return replace(policy, fragments={source: fused})
    alone = FragmentSpec(functions=("evaluate",), replicas=1)
    edge = EdgeSpec(source=source, target="evaluator", carries="weights", channel="latest")
    edges = (*policy.edges, edge)
    return replace(policy, fragments={**fragments, "evaluator": alone}, edges=edges)


def _without_absent(policy: DistributionPolicy, experiment: Experiment) -> DistributionPolicy:
    if experiment.groups > 1:
        return policy
    kept = {name: item for name, item in policy.fragments.items() if not item.only_with_groups}
    edges = tuple(edge for edge in policy.edges if {edge.source, edge.target} <= set(kept))
    return replace(policy, fragments=kept, edges=edges)


def _cut(policy: DistributionPolicy, experiment: Experiment) -> Cut:
    functions = {
        function: item for item in policy.fragments.values() for function in item.functions
    }
    groups = _count(functions["update"], experiment)
    if experiment.groups > 1 and functions["update"].replicas != "groups":
        raise ConfigError(
            f"it has no compute groups, but the experiment asks for {experiment.groups}",
            where=f"policy {policy.name}",
            fix="set groups=1, or use the policy tianji",
        )
    if experiment.actors < groups:
        raise ConfigError(
            f"{plural(groups, 'group')} cannot share {plural(experiment.actors, 'actor')}",
            where=f"policy {policy.name}",
            fix=f"set actors={groups} or more",
        )
    merge = _merge_rule(policy)
    if experiment.staleness.is_fixed:
        _check_fixed(policy, merge)
    return Cut(
        policy=policy.name,
        actors=experiment.actors,
        groups=groups,
        merge=merge,
        has_remote_env="env_step" not in functions["act"].functions,
        has_evaluator="evaluate" in functions,
        staleness=policy.staleness_of(experiment.staleness),
        fixes_staleness=policy.fixes_staleness,
        requires=policy.requires,
        is_on_device=policy.is_on_device,
    )


def _check_fixed(policy: DistributionPolicy, merge: MergeRule) -> None:
    """Raises ConfigError if a policy has a part that cannot be reproduced."""
    if policy.staleness.mode in ("correct", "unbounded"):
        why = "does not bound the age of samples, so it cannot fix it"
    elif merge in ("average", "accumulate"):
        why = "merges models whenever one arrives, which no seed decides"
    else:
        return
    raise ConfigError(
        f"the policy {policy.name} {why}",
        where="staleness.mode",
        fix="use the policy tianji with groups=1, or multi-learner; or staleness.mode=block",
    )


def _merge_rule(policy: DistributionPolicy) -> MergeRule:
    carried = {edge.carries for edge in policy.edges}
    if "gradient" in carried:
        return "all_reduce"
    if any("reduce" in item.functions for item in policy.fragments.values()):
        return policy.merge
    return "none"


def _count(fragment: FragmentSpec, experiment: Experiment) -> int:
    named = {"actors": experiment.actors, "groups": experiment.groups}
    return named[fragment.replicas] if isinstance(fragment.replicas, str) else fragment.replicas


def _replicate(policy: DistributionPolicy, experiment: Experiment, cut: Cut) -> list[Process]:
    totals: dict[str, int] = {}
    for address in cut.addresses:
        role, _, number = address.rpartition("-")
        totals[role] = int(number) + 1
    processes = []
    for name, fragment in policy.fragments.items():
        replicas = _count(fragment, experiment)
        for index in range(replicas):
            roles = [
                f"{role}-{number}"
                for role in roles_of(fragment.functions)
                for number in range(index, totals[role], replicas)
            ]
            processes.append(_process(policy, name, index, roles, cut))
    return processes


def _process(
    policy: DistributionPolicy, fragment: str, index: int, roles: list[str], cut: Cut
) -> Process:
    name = f"{fragment}-{index}"
    if not roles:
        raise ConfigError(
            f"process {name} would have no role: fragment {fragment!r} has too many replicas",
            where=f"policy {policy.name}",
        )
    groups = {group for role in roles if (group := cut.group_of_role(role)) is not None}
    takes_weights = any(role.startswith("actor") for role in roles)
    if len(groups) > 1 and takes_weights:
        raise ConfigError(
            f"process {name} would act for {plural(len(groups), 'group')}: the replicas of fragment"
            f" {fragment!r} are not a multiple of the {plural(cut.groups, 'group')}",
            where=f"policy {policy.name}",
        )
    return Process(name, fragment, tuple(roles), groups.pop() if len(groups) == 1 else None)


def connections(graph: DataflowGraph) -> list[Connection]:
    """All connections of a run, except those to the coordinator; each once.

    Two processes that exchange several values share one connection; weights, of which only the
    latest count, have a separate one.
    """
    found: dict[Connection, None] = {}
    for edge in graph.edges:
        if edge.carries not in _ROLES_OF_VALUE:
            continue
        partners = _partners(graph, edge.carries)
        if "evaluate" in graph.policy.fragments[edge.target].functions:
            process_of = graph.process_of
            partners.append((process_of["learner-0"].name, process_of["evaluator-0"].name))
        for source, target in partners:
            if source == target:
                continue
            is_latest = edge.carries == "weights"
            ends = (source, target) if edge.carries in _SERVER_IS_TARGET else (target, source)
            found[(*ends, is_latest)] = None
    return list(found)


def _partners(graph: DataflowGraph, value: str) -> list[tuple[str, str]]:
    """The processes of producer and consumer, for every pair of roles that exchange this value."""
    producer, consumer = _ROLES_OF_VALUE[value]
    process_of = graph.process_of
    pairs = []
    for role, process in process_of.items():
        kind, _, number = role.rpartition("-")
        if kind == "actor" and "environment" in (producer, consumer):
            other = f"environment-{graph.cut.environment_of(int(number))}"
        elif kind == "actor" and "actor" in (producer, consumer):
            partner = consumer if producer == "actor" else producer
            other = f"{partner}-{graph.cut.group_of(int(number))}"
        elif kind == "learner" and "actor" not in (producer, consumer):
            partner = consumer if producer == "learner" else producer
            other = "reducer-0" if partner == "reducer" else f"{partner}-{number}"
        else:
            continue
        first, second = process.name, process_of[other].name
        is_producer = kind == producer
        pairs.append((first, second) if is_producer else (second, first))
    return pairs
