"""Checks that a policy can run; every error names the fragment or the edge."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import ConfigError
from engine.graph.policy import (
    FUNCTIONS,
    OPTIONAL,
    PRIMED,
    DistributionPolicy,
    EdgeSpec,
    FragmentSpec,
    inputs_of,
    options_of,
    outputs_of,
    roles_of,
)
from engine.wording import plural

LOOP = ("act", "env_step", "store", "update")
BLOCKING = frozenset({"on_request", "barrier", "step", "all_reduce"})
"""Channels whose target waits for the value."""
CHANNELS: Mapping[str, frozenset[str]] = {
    "observation": frozenset({"step"}),
    "action": frozenset({"step"}),
    "rollout": frozenset({"gather"}),
    "batch": frozenset({"on_request"}),
    "weights": frozenset({"latest", "barrier"}),
    "model": frozenset({"exchange"}),
    "merged": frozenset({"exchange"}),
    "gradient": frozenset({"all_reduce"}),
}
"""The channels that can carry each value."""


def check_policy(policy: DistributionPolicy) -> None:
    """Checks functions, edges, inputs, cycles and channels, in this order.

    Raises:
        ConfigError: `where` names the policy, the message fragment and edge.
    """
    where = f"policy {policy.name}"
    try:
        _check_functions(policy)
        for edge in policy.edges:
            _check_edge(policy, edge)
        for name in policy.fragments:
            _check_inputs(policy, name)
        _check_cycles(policy)
        for edge in policy.edges:
            _check_channel(edge)
        _check_replicas(policy)
    except _Wrong as error:
        raise ConfigError(str(error), where=where) from None


class _Wrong(Exception):
    """The error, without the policy's name."""


def _check_functions(policy: DistributionPolicy) -> None:
    for name, fragment in policy.fragments.items():
        if not roles_of(fragment.functions):
            raise _Wrong(f"fragment {name!r} holds no function")
        _check_device(name, fragment)
    placed: list[str] = [
        function for item in policy.fragments.values() for function in item.functions
    ]
    for function in FUNCTIONS:
        count = placed.count(function)
        if count != 1 and not (count == 0 and function in OPTIONAL):
            raise _Wrong(f"the function {function!r} is in {plural(count, 'fragment')}, not in one")


def _check_device(name: str, fragment: FragmentSpec) -> None:
    lacking = [function for function in LOOP if function not in fragment.functions]
    if fragment.on_device and lacking:
        raise _Wrong(
            f"fragment {name!r} is on_device, so it must hold the whole loop, but it lacks"
            f" {', '.join(lacking)}"
        )


def _check_edge(policy: DistributionPolicy, edge: EdgeSpec) -> None:
    for end in (edge.source, edge.target):
        if end not in policy.fragments:
            raise _Wrong(f"{edge.label}: no fragment {end!r}")
    target = policy.fragments[edge.target].functions
    if edge.carries not in outputs_of(policy.fragments[edge.source].functions):
        raise _Wrong(f"{edge.label}: {edge.source} produces no {edge.carries}")
    if edge.carries not in inputs_of(target) | options_of(target):
        raise _Wrong(f"{edge.label}: {edge.target} takes no {edge.carries}")


def _check_inputs(policy: DistributionPolicy, name: str) -> None:
    functions = policy.fragments[name].functions
    arriving = {edge.carries for edge in policy.edges if edge.target == name}
    needed = inputs_of(functions)
    has_reducer = any("reduce" in item.functions for item in policy.fragments.values())
    if has_reducer and "update" in functions:
        needed.add("merged")
    for value in sorted(needed - outputs_of(functions) - arriving):
        raise _Wrong(f"fragment {name!r} needs {value}, but no edge brings it")


def _check_cycles(policy: DistributionPolicy) -> None:
    """Refuses cycles of fragments that wait for each other: they would never start."""
    waits: dict[str, list[str]] = {}
    for edge in policy.edges:
        is_joint = (
            edge.source == edge.target
        )  # replicas that synchronize, not a fragment that waits for itself
        if edge.channel in BLOCKING and edge.carries not in PRIMED and not is_joint:
            waits.setdefault(edge.source, []).append(edge.target)
    for start in waits:
        cycle = _path_back(waits, start, [start])
        if cycle:
            raise _Wrong(f"synchronous cycle {' -> '.join(cycle)}: each waits for the one before")


def _path_back(waits: Mapping[str, list[str]], start: str, path: list[str]) -> list[str]:
    for following in waits.get(path[-1], ()):
        if following == start:
            return [*path, start]
        if following not in path:
            found = _path_back(waits, start, [*path, following])
            if found:
                return found
    return []


def _check_channel(edge: EdgeSpec) -> None:
    known = CHANNELS[edge.carries]
    if edge.channel not in known:
        raise _Wrong(f"{edge.label}: channel must be {_any_of(known)}, not {edge.channel}")


def _check_replicas(policy: DistributionPolicy) -> None:
    """Checks that learners and buffers are paired, and that replicated learners synchronize."""
    by_function = {
        function: (name, fragment)
        for name, fragment in policy.fragments.items()
        for function in fragment.functions
    }
    (store, buffer), (update, learner) = by_function["store"], by_function["update"]
    if buffer.replicas != learner.replicas:
        raise _Wrong(
            f"fragment {store!r} has replicas: {buffer.replicas}, {update!r} has"
            f" {learner.replicas}, but every learner has a buffer of its own"
        )
    merging = {"merged", "gradient"} & {edge.carries for edge in policy.edges}
    if len(merging) > 1:
        raise _Wrong(f"fragment {update!r} merges models and all-reduces gradients; choose one")
    if learner.replicas != 1 and not merging:
        raise _Wrong(f"fragment {update!r} is replicated, but no edge synchronizes its replicas")
    if "reduce" in by_function and by_function["reduce"][1].replicas != 1:
        raise _Wrong(f"fragment {by_function['reduce'][0]!r} must have one replica")


def _any_of(names: frozenset[str]) -> str:
    return " or ".join(sorted(names))
