"""Multi-agent PPO (Yu et al., 2022): IPPO whose values see the state of the whole team.

The value of an agent is a function of the central state (`TeamView.state`) and of the agent's
number among those of its policy; with a memory also of what the agent remembers. Actors need none
of it: a policy acts upon what its agent observes.
"""

from __future__ import annotations

import math

from gymnasium.spaces import Box
from torch import Tensor

from engine.algorithms.base import Batch, Spaces
from engine.algorithms.networks import CENTRAL
from engine.algorithms.teams.identity import numbered
from engine.algorithms.teams.ippo import Ippo, IppoConfig
from engine.spaces.team import SharedPolicy
from engine.spec import NetworkSpec


class MappoConfig(IppoConfig, frozen=True, kw_only=True):
    """Multi-agent PPO with a central value (Yu et al., 2022)."""


class Mappo(Ippo):
    """MAPPO for any spaces, with or without masks and a memory; see `Ippo`."""

    def __init__(self, config: MappoConfig, network: NetworkSpec, spaces: Spaces) -> None:
        super().__init__(config, network, spaces, name="mappo")

    def _critic_space(self, policy: SharedPolicy) -> Box | None:
        size = len(policy.agents) if len(policy.agents) > 1 else 0
        return Box(-math.inf, math.inf, (self._view.state_size + size,))

    def _critic_input(self, batch: Batch, policy: SharedPolicy) -> dict[str, Tensor]:
        size = len(policy.agents)
        state = self._view.state(batch).unsqueeze(2).expand(-1, -1, size, -1)
        seen = numbered(state, size) if size > 1 else state
        return {CENTRAL: seen.flatten(1, 2)}
