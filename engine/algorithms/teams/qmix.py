"""QMIX (Rashid et al., 2018): the value of a team is a monotone function of those of its agents.

How it mixes them depends on the state: `env.central_state`, or all that all agents observe. With a
memory, `network.core`, agents are recurrent and learn from sequences, as in the paper.

Departures from the paper: Adam, not RMSprop; Double Q-learning, as in its authors' code (PyMARL);
hypernetworks have a hidden layer, as in Rashid et al. (2020), unless `hypernetwork_size` is `null`.
"""

from __future__ import annotations

from engine.algorithms.base import Spaces
from engine.algorithms.teams.factored_q import FactoredQ, FactoredQConfig
from engine.algorithms.teams.mixing import Mixer, MonotoneMixer
from engine.spec import NetworkSpec, PositiveInt


class QmixConfig(FactoredQConfig, frozen=True, kw_only=True):
    """QMIX (Rashid et al., 2018); recurrent with `network.core`."""

    mixing_size: PositiveInt = 32
    """Hidden units of the network that mixes the agents' values."""
    hypernetwork_size: PositiveInt | None = 64
    """Hidden units of the networks that make its weights of the state; `null`: they are linear."""


class Qmix(FactoredQ):
    """QMIX for teams whose agents choose one thing each; see `FactoredQ`."""

    def __init__(self, config: QmixConfig, network: NetworkSpec, spaces: Spaces) -> None:
        self._of_mixer = config
        super().__init__("qmix", config, network, spaces)

    def mixer(self) -> Mixer:
        """See `FactoredQ`."""
        config, num_agents = self._of_mixer, len(self._team.agents)
        sizes = (self._view.state_size, config.mixing_size, config.hypernetwork_size)
        return MonotoneMixer(num_agents, *sizes, self._network_spec)
