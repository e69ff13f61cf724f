"""What the network of one of a team's policies takes, and its settings."""

from __future__ import annotations

from msgspec.structs import replace

from engine.algorithms.teams.identity import identified_space
from engine.spaces.leaves import AnySpace
from engine.spaces.observations import OBSERVATION, observation_leaves
from engine.spaces.team import SharedPolicy, Team
from engine.spec import NetworkSpec


def seen_by(policy: SharedPolicy) -> AnySpace:
    """What an agent of a policy observes, with its number if there are others."""
    size = len(policy.agents)
    return identified_space(policy.observation, size) if size > 1 else policy.observation


def spec_of(team: Team, policy: SharedPolicy, spec: NetworkSpec) -> NetworkSpec:
    """The settings of a policy's network: without encoders of what only others observe."""
    own = _leaves_of(seen_by(policy))
    others = {leaf for other in team.policies for leaf in _leaves_of(seen_by(other))}
    encoders = {
        name: encoder
        for name, encoder in spec.encoders.items()
        if name in own or name not in others
    }
    return replace(spec, encoders=encoders)


def _leaves_of(space: AnySpace) -> set[str]:
    return {name.removeprefix(f"{OBSERVATION}.") for name in observation_leaves(space)}
