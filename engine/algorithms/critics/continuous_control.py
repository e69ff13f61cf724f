"""The common part of SAC and TD3: networks, acting at the start, and the noise of their losses.

Each algorithm adds how it acts (`act`, `act_greedily`) and its losses.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from engine.algorithms.base import Batch, EnvSlice, LearnerState, Spaces
from engine.algorithms.critics.replayed import ReplayedCritics, ReplayedCriticsConfig
from engine.algorithms.q_network import PolicyCriticsNetwork, TargetNetworkOfCritics
from engine.algorithms.replicas import columns_of
from engine.errors import ConfigError
from engine.layers.inputs import observation_of
from engine.rollout import Field
from engine.spaces.action_parts import action_field, parts_of
from engine.spaces.leaves import AnySpace, leaves_of
from engine.spaces.observations import observation_fields
from engine.spec import NetworkSpec, PositiveInt


class ContinuousControlConfig(ReplayedCriticsConfig, frozen=True, kw_only=True):
    """The hyperparameters that SAC and TD3 have in common."""

    n_step: PositiveInt = 1
    """Rewards that are added up before the value of a later state takes over, in env steps."""


class ContinuousControl(ReplayedCritics):
    """Learns a policy of actions within (-1, 1) by critics, from a replay store.

    Args:
        name: Of the algorithm, for errors.
        config: Hyperparameters.
        network: Encoders and trunk.
        spaces: Of one environment.

    Raises:
        ConfigError: Actions are not reals with two bounds, or sizes that can never be satisfied.
    """

    has_target_policy: bool = False

    def __init__(
        self,
        name: str,
        config: ContinuousControlConfig,
        network: NetworkSpec,
        spaces: Spaces,
    ) -> None:
        check_bounded(name, spaces.action)
        super().__init__(config)
        self._n_step = config.n_step
        self._spaces, self._network_spec = spaces, network
        self._num_reals = parts_of(spaces.action).num_reals

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout."""
        return (*observation_fields(self._spaces.observation), action_field(self._spaces.action))

    @property
    def n_step(self) -> int:
        """Longest span of a transition, in env steps."""
        return self._n_step

    def network(self) -> PolicyCriticsNetwork:
        """See `Algorithm`."""
        raise NotImplementedError

    def followers(self, network: nn.Module) -> TargetNetworkOfCritics:
        """The critics, and if it is wanted, the policy."""
        assert isinstance(network, PolicyCriticsNetwork)
        return TargetNetworkOfCritics(network, has_policy=self.has_target_policy)

    def noise(self, generator: torch.Generator, num_steps: int, env_slice: EnvSlice) -> Tensor:
        """Standard normal, float32 [T, B, D]; see `Algorithm`."""
        shape = (num_steps, env_slice.count, self._num_reals)
        return torch.randn(shape, generator=generator, device=generator.device)

    def explored(self, network: PolicyCriticsNetwork, chosen: Tensor, noise: Tensor) -> Tensor:
        """Actions [B, D] of the policy, or before training starts, uniform in (-1, 1)."""
        return torch.where(network.acts_uniformly > 0, uniform_of(noise), chosen)

    def noise_of_losses(self, state: LearnerState, num_updates: int, batch_size: int) -> Tensor:
        """Noise of the actions that losses sample in s_t and s_tm1: standard normal, float32
        [updates, batch size, 2, D], of this learner's share of the samples."""
        first, num_all = columns_of(state.replicas, batch_size)
        shape = (num_updates, num_all, 2, self._num_reals)
        drawn = torch.randn(shape, generator=state.generator)
        return drawn[:, first : first + batch_size].to(state.weights.vector.device)

    def learn_statistics(self, state: LearnerState, samples: Batch) -> None:
        """Updates the statistics of observations."""
        assert isinstance(state.network, PolicyCriticsNetwork)
        if state.network.input.normalizes:
            state.network.input.learn(observation_of(samples), state.replicas)


def uniform_of(noise: Tensor) -> Tensor:
    """Standard normal numbers z as uniform ones in (-1, 1), which erf(z / sqrt(2)) is."""
    return torch.erf(noise * 0.5**0.5)


def check_bounded(name: str, action: AnySpace, *, allows_choices: bool = False) -> None:
    """Checks that an action is reals with two bounds.

    Args:
        name: Of the algorithm, for errors.
        action: Space of actions.
        allows_choices: Whether a part of them, or all, may be discrete.

    Raises:
        ConfigError: It is not.
    """
    leaves = [leaf.space for leaf in leaves_of(action, "action")]
    boxes = [leaf for leaf in leaves if isinstance(leaf, gymnasium.spaces.Box)]
    if len(boxes) < len(leaves) and not allows_choices:
        raise ConfigError(
            f"{name} needs continuous actions; the environment has {action}",
            where="env.id",
            fix="use algorithm.name dqn for one discrete choice, or ppo or impala for any actions",
        )
    for box in boxes:
        if not (np.all(box.bounded_below) and np.all(box.bounded_above)):
            raise ConfigError(
                f"{name} needs actions with two bounds; the environment has {action}",
                where="env.id",
                fix="use algorithm.name ppo or impala, or a wrapper such as RescaleAction",
            )
