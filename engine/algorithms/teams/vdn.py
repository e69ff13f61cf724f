"""Value decomposition networks (Sunehag et al., 2018): the value of a team is the sum of those of
its agents. With a memory, `network.core`, agents are recurrent and learn from sequences, as in the
paper.

Departures from the paper: agents exchange nothing, and returns are of `n_step` steps, without
eligibility traces.
"""

from __future__ import annotations

from engine.algorithms.base import Spaces
from engine.algorithms.teams.factored_q import FactoredQ, FactoredQConfig
from engine.algorithms.teams.mixing import Mixer, SumMixer
from engine.spec import NetworkSpec


class VdnConfig(FactoredQConfig, frozen=True, kw_only=True):
    """Value decomposition networks (Sunehag et al., 2018); recurrent with `network.core`."""


class Vdn(FactoredQ):
    """VDN for teams whose agents choose one thing each; see `FactoredQ`."""

    def __init__(self, config: VdnConfig, network: NetworkSpec, spaces: Spaces) -> None:
        super().__init__("vdn", config, network, spaces)

    def mixer(self) -> Mixer:
        """See `FactoredQ`."""
        return SumMixer(len(self._team.agents))
