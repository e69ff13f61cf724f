"""Who shares a policy: the key `agents` of an experiment, applied to an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from engine.errors import ConfigError
from engine.spaces.leaves import AnySpace
from engine.spaces.team import SharedPolicy, shared_policies
from engine.spec import PolicySharing

SHARED, SEPARATE = "shared", "separate"
WHERE = "agents"
FIX = "agents: separate gives each agent a policy of its own; agents: {NAME: [AGENT, ...]} groups"


def policies_of(
    sharing: PolicySharing, observations: Mapping[str, AnySpace], actions: Mapping[str, AnySpace]
) -> tuple[SharedPolicy, ...]:
    """The policies of a team, in the order of their first agents.

    Args:
        sharing: As the experiment has it; None: all share one.
        observations, actions: Of each agent by name, in order, without action masks.

    Raises:
        ConfigError: An agent has no policy or two, a pattern fits nobody, or agents that share a
            policy have different spaces.
    """
    names = list(observations)
    match sharing:
        case None | "shared":
            members: Mapping[str, Sequence[str]] = {SHARED: names}
        case "separate":
            members = {name: [name] for name in names}
        case _:
            members = _grouped(sharing, names)
    for policy, of_policy in members.items():
        if hasattr(nn.ModuleDict, policy):
            raise ConfigError(
                f"{policy!r} cannot be the name of a policy: PyTorch's modules have an attribute of"
                " that name",
                where=WHERE,
                fix=f"name it under agents: {{my_{policy}: [{', '.join(of_policy)}]}}",
            )
        _check_equal(policy, of_policy, observations, "observe")
        _check_equal(policy, of_policy, actions, "choose")
    return shared_policies(members, observations, actions)


def _grouped(groups: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, list[str]]:
    """The agents of each policy, whose patterns are resolved; every agent has exactly one."""
    if not groups:
        raise ConfigError("it names no policy", where=WHERE, fix=FIX)
    members: dict[str, list[str]] = {}
    policy_of: dict[str, str] = {}
    for policy, patterns in groups.items():
        if not policy or not policy.replace("-", "_").isidentifier():
            raise ConfigError(
                f"{policy!r} cannot be the name of a policy",
                where=WHERE,
                fix="use letters, digits, _ and -, and begin with a letter",
            )
        fitting: list[str] = []
        for pattern in patterns:
            found = [name for name in names if fnmatchcase(name, pattern)]
            if not found:
                raise _refused(f"{pattern!r} is no agent", policy, names)
            fitting += [name for name in found if name not in fitting]
        if not fitting:
            raise _refused("it has no agents", policy, names)
        for name in fitting:
            if name in policy_of:
                raise _refused(f"{name} has the policy {policy_of[name]} already", policy, names)
            policy_of[name] = policy
        members[policy] = fitting
    without = [name for name in names if name not in policy_of]
    if without:
        raise ConfigError(
            f"{', '.join(without)} {'has' if len(without) == 1 else 'have'} no policy",
            where=WHERE,
            fix=f"name {'it' if len(without) == 1 else 'them'} under one of {', '.join(members)},"
            " or under another",
        )
    return members


def _refused(what: str, policy: str, names: Sequence[str]) -> ConfigError:
    return ConfigError(
        what, where=f"{WHERE}.{policy}", fix=f"the environment has {', '.join(names)}"
    )


def _check_equal(
    policy: str, names: Sequence[str], spaces: Mapping[str, AnySpace], verb: str
) -> None:
    """Raises ConfigError if agents of one policy have different spaces."""
    first = names[0]
    for name in names[1:]:
        if spaces[name] != spaces[first]:
            raise ConfigError(
                f"{first} and {name} cannot share the policy {policy!r}: they {verb} in different"
                f" spaces, {_short(spaces[first])} and {_short(spaces[name])}",
                where=WHERE,
                fix=FIX,
            )


def _short(space: AnySpace) -> str:
    words = " ".join(str(space).split())
    return words if len(words) <= 80 else f"{words[:77]}..."
