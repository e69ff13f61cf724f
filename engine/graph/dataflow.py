"""A policy and an experiment make a dataflow graph; its replicas are the processes of a run."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import structs

from engine.errors import ConfigError
from engine.graph.policy import EdgeSpec, FragmentSpec, Policy
from engine.spec import Experiment


@dataclass(frozen=True)
class Signature:
    """What a function takes and gives."""

    inputs: frozenset[str]
    outputs: frozenset[str]


FUNCTIONS = {
    "env_step": Signature(frozenset({"action"}), frozenset({"observation"})),
    "act": Signature(frozenset({"observation", "weights"}), frozenset({"action", "rollout"})),
    "store": Signature(frozenset({"rollout"}), frozenset({"batch"})),
    "update": Signature(frozenset({"batch"}), frozenset({"weights"})),
    "evaluate": Signature(frozenset({"weights"}), frozenset()),
}
OPTIONAL_FUNCTIONS = frozenset({"evaluate"})
ROLE_FUNCTIONS = {
    "actor": frozenset({"act", "env_step"}),
    "buffer": frozenset({"store"}),
    "learner": frozenset({"update"}),
    "evaluator": frozenset({"evaluate"}),
}


@dataclass(frozen=True)
class Process:
    """One operating-system process of a run.

    Attributes:
        name: `<fragment>-<index>`.
        fragment: Which fragment it is a replica of.
        roles: Addresses of the roles that it plays.
    """

    name: str
    fragment: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class DataflowGraph:
    """Validated fragments and edges, with all replicas."""

    policy: Policy
    processes: tuple[Process, ...]

    @property
    def edges(self) -> tuple[EdgeSpec, ...]:
        return self.policy.edges

    @property
    def is_inline(self) -> bool:
        """A graph of a single process needs no other: it runs inside the command."""
        return len(self.processes) == 1

    def count(self, role: str) -> int:
        return sum(
            address.startswith(f"{role}-")
            for process in self.processes
            for address in process.roles
        )


def build_graph(policy: Policy, experiment: Experiment) -> DataflowGraph:
    """Cuts the algorithm as the policy says.

    Raises:
        ConfigError: A function is missing or placed twice, an input has no producer, an edge
            carries what its ends do not produce or take; fragment and edge are named.
    """
    if experiment.evaluation is not None:
        policy = with_evaluator(policy)
    _check_functions(policy)
    for edge in policy.edges:
        _check_edge(policy, edge)
    for name, fragment in policy.fragments.items():
        _check_inputs(policy, name, fragment)
    return DataflowGraph(policy, tuple(_replicate(policy, experiment)))


def _replicate(policy: Policy, experiment: Experiment) -> list[Process]:
    totals = {"actor": experiment.actors, "buffer": 1, "learner": 1, "evaluator": 1}
    processes = []
    for name, fragment in policy.fragments.items():
        replicas = experiment.actors if fragment.replicas == "actors" else fragment.replicas
        for index in range(replicas):
            roles = [
                f"{role}-{number}"
                for role in roles_of(fragment)
                for number in range(index, totals[role], replicas)
            ]
            processes.append(Process(f"{name}-{index}", name, tuple(roles)))
    return processes


def with_evaluator(policy: Policy) -> Policy:
    """The same policy with an evaluator that takes the learner's newest weights.

    It is a process of its own, off the critical path, unless the policy has but one fragment.
    A policy that places `evaluate` itself is left alone.
    """
    fragments = policy.fragments
    if any("evaluate" in item.functions for item in fragments.values()):
        return policy
    source = next((name for name, item in fragments.items() if "update" in item.functions), "")
    if len(fragments) == 1:
        only = fragments[source]
        fused = FragmentSpec(functions=(*only.functions, "evaluate"), replicas=only.replicas)
        return structs.replace(policy, fragments={source: fused})
    alone = FragmentSpec(functions=("evaluate",), replicas=1)
    edge = EdgeSpec(source=source, target="evaluator", carries="weights", channel="latest")
    return structs.replace(
        policy, fragments={**fragments, "evaluator": alone}, edges=(*policy.edges, edge)
    )


def roles_of(fragment: FragmentSpec) -> list[str]:
    """The roles whose functions a fragment holds, in the order of `ROLE_FUNCTIONS`."""
    return [role for role, needed in ROLE_FUNCTIONS.items() if needed <= set(fragment.functions)]


def _check_functions(policy: Policy) -> None:
    where = f"policy {policy.name}"
    placed: list[str] = [
        function for item in policy.fragments.values() for function in item.functions
    ]
    for function in FUNCTIONS:
        if placed.count(function) != 1 and (
            function not in OPTIONAL_FUNCTIONS or placed.count(function)
        ):
            raise ConfigError(
                f"the function {function!r} is in {placed.count(function)} fragments, not in one",
                where=where,
            )
    for name, fragment in policy.fragments.items():
        covered = set().union(*(ROLE_FUNCTIONS[role] for role in roles_of(fragment)))
        if split := set(fragment.functions) - covered:
            raise ConfigError(
                f"fragment {name!r} separates {', '.join(sorted(split))} from the rest of its role",
                where=where,
            )


def _check_edge(policy: Policy, edge: EdgeSpec) -> None:
    label = f"edge {edge.source} -> {edge.target} ({edge.carries})"
    for end in (edge.source, edge.target):
        if end not in policy.fragments:
            raise ConfigError(f"{label}: no fragment {end!r}", where=f"policy {policy.name}")
    if edge.carries not in _outputs(policy.fragments[edge.source]):
        raise ConfigError(
            f"{label}: {edge.source} produces no {edge.carries}", where=f"policy {policy.name}"
        )
    if edge.carries not in _inputs(policy.fragments[edge.target]):
        raise ConfigError(
            f"{label}: {edge.target} takes no {edge.carries}", where=f"policy {policy.name}"
        )


def _check_inputs(policy: Policy, name: str, fragment: FragmentSpec) -> None:
    arriving = {edge.carries for edge in policy.edges if edge.target == name}
    for value in sorted(_inputs(fragment) - _outputs(fragment) - arriving):
        raise ConfigError(
            f"fragment {name!r} needs {value}, but no edge brings it",
            where=f"policy {policy.name}",
        )


def _inputs(fragment: FragmentSpec) -> set[str]:
    return {value for function in fragment.functions for value in FUNCTIONS[function].inputs}


def _outputs(fragment: FragmentSpec) -> set[str]:
    return {value for function in fragment.functions for value in FUNCTIONS[function].outputs}
