"""Telling the agents of one policy apart: their numbers beside what they observe."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeGuard

import torch
from gymnasium import spaces
from torch import Tensor

from engine.errors import ConfigError
from engine.layers.inputs import Observation
from engine.spaces.leaves import AnySpace, LeafSpace
from engine.spaces.observations import observation_leaves
from engine.spaces.team import SharedPolicy

IDENTITY, OWN = "agent_id", "own"
"""Names of the leaves that tell an agent's number, and what it observes itself if that is one array
and no vector."""


def identified_space(observation: AnySpace, num_agents: int) -> AnySpace:
    """The space of an observation with the number of the agent that sees it.

    A vector becomes longer by one entry for each agent; otherwise there is one leaf more.

    Raises:
        ConfigError: There is a leaf of that name already.
    """
    leaf = _lone_leaf(observation)
    if _is_vector(leaf):
        return spaces.Box(-float("inf"), float("inf"), (leaf.shape[0] + num_agents,))
    number = spaces.Discrete(num_agents)
    if leaf is not None:
        return spaces.Dict(OrderedDict({OWN: leaf, IDENTITY: number}))
    assert isinstance(observation, spaces.Dict | spaces.Tuple)
    parts = observation.items() if isinstance(observation, spaces.Dict) else enumerate(observation)
    own = {str(key): part for key, part in parts}
    if IDENTITY in own:
        raise ConfigError(
            f"agents observe a leaf {IDENTITY!r} of their own, which is the name of their number",
            where="agents",
            fix="rename it in the environment, or give each agent a policy: agents: separate",
        )
    return spaces.Dict(OrderedDict({**own, IDENTITY: number}))


def numbered(vectors: Tensor, num_agents: int) -> Tensor:
    """A vector for each agent, [..., agents, D], with its number, [..., agents, D + agents]."""
    real = vectors if vectors.is_floating_point() else vectors.to(torch.float32)
    eye = torch.eye(num_agents, dtype=real.dtype, device=real.device)
    return torch.cat((real, eye.expand(*real.shape[:-1], -1)), -1)


def identify(observation: Observation, policy: SharedPolicy, lead: tuple[int, ...]) -> Observation:
    """Adds the agents' numbers within their policy to what they observe; see above.

    Args:
        observation: Each leaf [*lead, agents, *shape].
        policy: Whose agents.
        lead: The axes before that of the agents.
    """
    num_agents = len(policy.agents)
    if isinstance(observation, Tensor) and _is_vector(_lone_leaf(policy.observation)):
        return numbered(observation, num_agents)
    own = {OWN: observation} if isinstance(observation, Tensor) else dict(observation)
    device = next(iter(own.values())).device
    return {**own, IDENTITY: torch.arange(num_agents, device=device).expand(*lead, -1)}


def _lone_leaf(observation: AnySpace) -> LeafSpace | None:
    """The space of an observation of one array."""
    leaves = list(observation_leaves(observation).values())
    return leaves[0].space if len(leaves) == 1 else None


def _is_vector(leaf: LeafSpace | None) -> TypeGuard[spaces.Box]:
    return isinstance(leaf, spaces.Box) and len(leaf.shape) == 1
