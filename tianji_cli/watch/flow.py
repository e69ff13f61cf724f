"""The graph of a run: roles of one kind on one host are a node, what they exchange is an edge
(pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from engine.errors import ConfigError
from engine.graph.policy import built_in_policies, read_policy
from engine.messages import COORDINATOR, index_of, role_of
from engine.wording import plural
from tianji_cli.watch.roles import ProcessInfo, State

KINDS = ("environment", "actor", "buffer", "learner", "reducer", "evaluator")
"""From left to right."""
MAX_HOSTS = 12
"""Further ones are shown as one."""

RateOf = Callable[[str, str], float | None]
"""By what is carried and the role that it is counted for: how many a second."""
_UNITS = {
    "observation": "env steps",
    "rollout": "env steps",
    "batch": "samples",
    "weights": "versions",
    "model": "merges",
}
_COUNTED_FOR_SOURCE = frozenset({"rollout", "model"})


class FlowNode(msgspec.Struct, frozen=True, kw_only=True):
    """Roles of one kind on one host.

    Attributes:
        kind: Such as `actor`.
        host: Its name, or how many hosts it stands for.
        roles: How many.
        running, stopped, gone: How many of them run, have ended with the run, and are lost.
    """

    kind: str
    host: str
    roles: int
    running: int
    stopped: int
    gone: int


class FlowEdge(msgspec.Struct, frozen=True, kw_only=True):
    """What flows from one node to another.

    Attributes:
        source, target: Positions in `Flow.nodes`.
        carries: Such as `rollout`.
        channel: How, as the policy says; empty if that is not known.
        per_s: How many a second, all roles together (of weights: the versions of one learner); null
            while that is not known.
        unit: What is counted.
        bytes_per_s: Of weights, to all roles of the target; null if not known.
    """

    source: int
    target: int
    carries: str
    channel: str
    per_s: float | None
    unit: str
    bytes_per_s: float | None = None


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The graph, hosts in the order of the manifest.

    Attributes:
        hosts: Names; the last one can stand for several.
        coordinator: Host of the coordinator; empty if not known.
    """

    hosts: list[str]
    coordinator: str
    nodes: list[FlowNode]
    edges: list[FlowEdge]


@dataclass(frozen=True)
class _Pair:
    """Two roles that exchange something."""

    source: str
    target: str
    carries: str


class FlowPlan:
    """The part of the graph that does not change.

    Args:
        processes: Of the run.
        policy: Name of its distribution policy. Only a built-in one says how values are carried:
            a file that a manifest names is not read.
    """

    def __init__(self, processes: tuple[ProcessInfo, ...], policy: str) -> None:
        self._host_of = {role: p.host for p in processes for role in p.roles}
        self._hosts = _shown_hosts(list(dict.fromkeys(self._host_of.values())))
        self._channels = _channels_of(policy)
        self._roles: dict[tuple[str, str], list[str]] = {}
        for role, host in self._host_of.items():
            if role_of(role) in KINDS:
                self._roles.setdefault((self._hosts[host], role_of(role)), []).append(role)
        self._places = sorted(self._roles, key=self._order)
        self._pairs: dict[tuple[int, int, str], list[_Pair]] = {}
        for pair in self._partners():
            key = (self._node_of(pair.source), self._node_of(pair.target), pair.carries)
            self._pairs.setdefault(key, []).append(pair)

    def _order(self, place: tuple[str, str]) -> tuple[int, int]:
        host, kind = place
        return list(self._hosts.values()).index(host), KINDS.index(kind)

    def _node_of(self, role: str) -> int:
        return self._places.index((self._hosts[self._host_of[role]], role_of(role)))

    def _partners(self) -> Iterator[_Pair]:
        """What each role sends, as `engine.graph.dataflow` wires it."""
        num_groups = sum(role_of(role) == "learner" for role in self._host_of)
        for role in self._host_of:
            kind, number = role_of(role), index_of(role)
            group = number % num_groups if num_groups else 0
            wanted = {
                "environment": [_Pair(role, f"actor-{number}", "observation")],
                "actor": [
                    _Pair(role, f"buffer-{group}", "rollout"),
                    _Pair(f"learner-{group}", role, "weights"),
                ],
                "buffer": [_Pair(role, f"learner-{number}", "batch")],
                "learner": [_Pair(role, "reducer-0", "model")],
                "evaluator": [_Pair("learner-0", role, "weights")],
            }
            for pair in wanted.get(kind, []):
                if pair.source in self._host_of and pair.target in self._host_of:
                    yield pair

    def flow(
        self, states: Mapping[str, State], rate_of: RateOf, weights_bytes: float | None
    ) -> Flow:
        """The graph now.

        Args:
            states: Of each role.
            rate_of: What each role sends or takes.
            weights_bytes: Size of the weights; None if not known.
        """
        nodes = [
            FlowNode(
                kind=kind,
                host=host,
                roles=len(roles),
                running=sum(states.get(role) in ("running", "stuck") for role in roles),
                stopped=sum(states.get(role) == "stopped" for role in roles),
                gone=sum(states.get(role) == "gone" for role in roles),
            )
            for host, kind in self._places
            if (roles := self._roles[host, kind])
        ]
        edges = [
            self._edge(source, target, carries, _alive(pairs, states), rate_of, weights_bytes)
            for (source, target, carries), pairs in self._pairs.items()
        ]
        return Flow(
            hosts=list(dict.fromkeys(self._hosts.values())),
            coordinator=self._hosts.get(self._host_of.get(COORDINATOR, ""), ""),
            nodes=nodes,
            edges=edges,
        )

    def _edge(
        self,
        source: int,
        target: int,
        carries: str,
        pairs: list[_Pair],
        rate_of: RateOf,
        weights_bytes: float | None,
    ) -> FlowEdge:
        rates = [
            rate for pair in pairs if (rate := rate_of(carries, _counted_role(pair))) is not None
        ]
        total = sum(rates) if rates else None
        is_sent_to_each = carries == "weights" and total is not None
        num_bytes = weights_bytes if is_sent_to_each else None
        return FlowEdge(
            source=source,
            target=target,
            carries=carries,
            channel=self._channels.get(carries, ""),
            per_s=total / len(rates) if is_sent_to_each and total is not None else total,
            unit=_UNITS[carries],
            bytes_per_s=None if total is None or num_bytes is None else total * num_bytes,
        )


def _alive(pairs: list[_Pair], states: Mapping[str, State]) -> list[_Pair]:
    """The pairs none of whose roles is lost."""
    return [p for p in pairs if "gone" not in (states.get(p.source), states.get(p.target))]


def _counted_role(pair: _Pair) -> str:
    """The role whose rows say how much a pair exchanges: an actor, or a learner."""
    if pair.carries == "observation":
        return pair.target
    if pair.carries == "weights":
        return pair.source
    return pair.source if pair.carries in _COUNTED_FOR_SOURCE else pair.target


def _shown_hosts(names: list[str]) -> dict[str, str]:
    """Under which name each host is shown: many hosts share the last one."""
    if len(names) <= MAX_HOSTS:
        return {name: name for name in names}
    kept = names[: MAX_HOSTS - 1]
    rest = plural(len(names) - len(kept), "more host")
    return {name: name if name in kept else rest for name in names}


def _channels_of(policy: str) -> dict[str, str]:
    """How each value is carried."""
    if policy not in built_in_policies():
        return {}
    try:
        return {edge.carries: edge.channel for edge in read_policy(policy).edges}
    except ConfigError:
        return {}
