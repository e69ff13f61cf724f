"""Builds a dataflow graph from a policy and an experiment; its replicas are a run's processes."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from engine.errors import ConfigError
from engine.graph.cut import Cut, MergeRule
from engine.graph.functions import roles_of
from engine.graph.policy import EdgeSpec, FragmentSpec, Policy
from engine.graph.validate import check_policy
from engine.spec import Experiment
from engine.wording import plural


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

    policy: Policy
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


def build_graph(policy: Policy, experiment: Experiment) -> DataflowGraph:
    """Applies the policy to the experiment.

    Raises:
        ConfigError: A function is missing or placed twice, an input has no producer, an edge
            carries what its ends do not produce or take, a cycle waits for itself, or actors and
            groups do not suit the policy; fragment and edge are named.
    """
    if experiment.evaluation is not None:
        policy = with_evaluator(policy)
    check_policy(policy)
    present = _without_absent(policy, experiment)
    cut = _cut(present, experiment)
    return DataflowGraph(present, tuple(_replicate(present, experiment, cut)), cut)


def with_evaluator(policy: Policy) -> Policy:
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


def _without_absent(policy: Policy, experiment: Experiment) -> Policy:
    if experiment.groups > 1:
        return policy
    kept = {name: item for name, item in policy.fragments.items() if not item.only_with_groups}
    edges = tuple(edge for edge in policy.edges if {edge.source, edge.target} <= set(kept))
    return replace(policy, fragments=kept, edges=edges)


def _cut(policy: Policy, experiment: Experiment) -> Cut:
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
    return Cut(
        policy=policy.name,
        actors=experiment.actors,
        groups=groups,
        merge=_merge_rule(policy),
        has_remote_env="env_step" not in functions["act"].functions,
        has_evaluator="evaluate" in functions,
        staleness=policy.staleness_of(experiment.staleness),
        fixes_staleness=policy.fixes_staleness,
        requires=policy.requires,
        is_on_device=policy.is_on_device,
    )


def _merge_rule(policy: Policy) -> MergeRule:
    carried = {edge.carries for edge in policy.edges}
    if "gradient" in carried:
        return "all_reduce"
    if any("reduce" in item.functions for item in policy.fragments.values()):
        return policy.merge
    return "none"


def _count(fragment: FragmentSpec, experiment: Experiment) -> int:
    named = {"actors": experiment.actors, "groups": experiment.groups}
    return named[fragment.replicas] if isinstance(fragment.replicas, str) else fragment.replicas


def _replicate(policy: Policy, experiment: Experiment, cut: Cut) -> list[Process]:
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


def _process(policy: Policy, fragment: str, index: int, roles: list[str], cut: Cut) -> Process:
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
