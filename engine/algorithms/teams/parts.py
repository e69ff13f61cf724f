"""Which parameters of a team's network belong to which policy, if each has a learner of its own.

    network.policies: ModuleDict      one module for each policy, by its name; nothing else learns

So the parts are disjoint and make up the whole, and a model is put together from those of all
learners by taking of each its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from engine.algorithms.base import SampleRequest
from engine.errors import ConfigError
from engine.spaces.team import SharedPolicy, Team

POLICIES = "policies"
"""Name of the module that holds those of the policies."""


def is_of(network: nn.Module, policies: Iterable[SharedPolicy]) -> Tensor:
    """Which parameters belong to these policies, bool [P], in the order of the flat vector."""
    prefixes = tuple(f"{POLICIES}.{policy.name}." for policy in policies)
    spans = [
        torch.full((parameter.numel(),), name.startswith(prefixes))
        for name, parameter in network.named_parameters()
    ]
    return torch.cat(spans)


def check_apart(name: str, samples: SampleRequest, network: nn.Module, team: Team) -> None:
    """Checks that every policy of a team can have a learner of its own.

    Args:
        name: Of the algorithm, for errors.
        samples: What it declares.
        network: Of all policies.
        team: The agents.

    Raises:
        ConfigError: It trains them together, or a parameter belongs to none of them.
    """
    if not samples.trains_apart:
        raise ConfigError(
            f"{name} trains the policies of a team together",
            where="policy",
            fix="use another policy, such as tianji, or another algorithm, such as ippo",
        )
    if not bool(is_of(network, team.policies).all()):
        raise ConfigError(
            f"{name} declares trains_apart, but its network has parameters that belong to no"
            f" policy: those of a policy are in the module {POLICIES}.NAME",
            where="algorithm.name",
        )
