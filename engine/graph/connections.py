"""Which processes communicate, and which side connects."""

from __future__ import annotations

from engine.graph.dataflow import DataflowGraph

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
            other = f"environment-{number}"
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
