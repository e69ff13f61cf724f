"""The common part of actor-critic algorithms: initial state and acting.

Each algorithm adds its samples (`samples`) and its update (`update`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.algorithms.base import EnvSlice, LearnerState, Spaces, initial_state
from engine.algorithms.networks import (
    PolicyValueNetwork,
    action_field,
    check_action_space,
    draw_noise,
    observation_field,
)
from engine.rollout import Field
from engine.spec import NetworkSpec


class ActorCritic:
    """Acts with the policy of a `PolicyValueNetwork`, for discrete and continuous actions.

    Args:
        name: Of the algorithm, for errors.
        network: The trunks.
        spaces: Of one environment.
        normalizes_reward: Whether the network keeps statistics of returns.

    Raises:
        ConfigError: Actions of another kind.
    """

    def __init__(
        self, name: str, network: NetworkSpec, spaces: Spaces, *, normalizes_reward: bool = False
    ) -> None:
        check_action_space(name, spaces.action)
        self._network_spec = network
        self._spaces = spaces
        self._normalizes_reward = normalizes_reward

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout: observations; per step the action and ln pi(a_t | s_t)."""
        observation, action = self._spaces.observation, self._spaces.action
        return (
            observation_field(observation),
            action_field(action),
            Field("log_prob", "float32"),
        )

    def network(self) -> PolicyValueNetwork:
        """See `Algorithm`."""
        return PolicyValueNetwork(
            self._spaces.observation,
            self._spaces.action,
            self._network_spec,
            normalizes_reward=self._normalizes_reward,
        )

    def init(self, seed: int) -> LearnerState:
        """See `Algorithm`."""
        return initial_state(self.network, seed)

    def noise(self, generator: torch.Generator, num_steps: int, env_slice: EnvSlice) -> Tensor:
        """Noise for sampling, float32 [T, B, outputs of the policy]; see `Algorithm`."""
        return draw_noise(self._spaces.action, generator, (num_steps, env_slice.count))

    def act(self, network: nn.Module, observation: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Samples the policy; see `Algorithm`."""
        assert isinstance(network, PolicyValueNetwork)
        policy = network.distribution(observation)
        a_t = policy.sample(noise)
        return {"action": a_t, "log_prob": policy.log_prob(a_t)}

    def act_greedily(self, network: nn.Module, observation: Tensor) -> Tensor:
        """The policy's mode."""
        assert isinstance(network, PolicyValueNetwork)
        return network.distribution(observation).mode()
