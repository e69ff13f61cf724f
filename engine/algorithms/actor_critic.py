"""The common part of actor-critic algorithms: initial state and acting.

Each algorithm adds its samples (`samples`) and its update (`update`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from engine.algorithms.base import EnvSlice, LearnerState, Spaces, initial_state
from engine.algorithms.networks import (
    PolicyValueNetwork,
    action_field,
    check_action_space,
    draw_noise,
)
from engine.algorithms.schedules import linear
from engine.layers.cores import state_size
from engine.layers.distributions import Distribution
from engine.layers.inputs import STATE, Inputs, mask_of, observation_of
from engine.rollout import Field
from engine.spaces.action_parts import parts_of
from engine.spaces.observations import mask_field, observation_fields
from engine.spec import NetworkSpec


class ActorCritic:
    """Acts with the policy of a `PolicyValueNetwork`, with any spaces, masks and memory.

    Args:
        name: Of the algorithm, for errors.
        network: Encoders, trunks and core.
        spaces: Of one environment.
        central: What a central value sees; None: what the policy does.
        normalizes_reward: Whether the network keeps statistics of returns.

    Raises:
        ConfigError: A space is not supported.
    """

    def __init__(
        self,
        name: str,
        network: NetworkSpec,
        spaces: Spaces,
        *,
        central: Box | None = None,
        normalizes_reward: bool = False,
    ) -> None:
        check_action_space(name, spaces.action)
        self._network_spec = network
        self._spaces = spaces
        self._central = central
        self._normalizes_reward = normalizes_reward
        self._state_size = state_size(network.core)
        self._names_of_states = tuple(field.name for field in self.fields if field.extra_rows)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout: observations, masks of their choices and the memory before the
        first step, where there are any; per step the action and ln pi(a_t | s_t)."""
        spaces = self._spaces
        mask = [mask_field(parts_of(spaces.action).num_logits)] if spaces.has_action_mask else []
        size = self._state_size
        state = [Field(STATE, "float32", (size,), num_rows=1)] if size else []
        return (
            *observation_fields(spaces.observation),
            *mask,
            action_field(spaces.action),
            Field("log_prob", "float32"),
            *state,
        )

    def network(self) -> PolicyValueNetwork:
        """See `Algorithm`."""
        return PolicyValueNetwork(
            self._spaces.observation,
            self._spaces.action,
            self._network_spec,
            central=self._central,
            normalizes_reward=self._normalizes_reward,
        )

    def init(self, seed: int) -> LearnerState:
        """See `Algorithm`."""
        return initial_state(self.network, seed)

    def noise(self, generator: torch.Generator, num_steps: int, env_slice: EnvSlice) -> Tensor:
        """Noise for sampling, float32 [T, B, outputs of the policy]; see `Algorithm`."""
        return draw_noise(self._spaces.action, generator, (num_steps, env_slice.count))

    def act(self, network: nn.Module, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        """Samples the policy; see `Algorithm`."""
        policy, memory = self._policy(network, inputs)
        a_t = policy.sample(noise)
        return {"action": a_t, "log_prob": policy.log_prob(a_t), **memory}

    def act_greedily(self, network: nn.Module, inputs: Inputs) -> Tensor | Mapping[str, Tensor]:
        """The policy's mode."""
        policy, memory = self._policy(network, inputs)
        return {"action": policy.mode(), **memory} if memory else policy.mode()

    def _policy(self, network: nn.Module, inputs: Inputs) -> tuple[Distribution, dict[str, Tensor]]:
        """pi(. | s), and the state after this step if there is a memory."""
        assert isinstance(network, PolicyValueNetwork)
        observation, mask = observation_of(inputs), mask_of(inputs)
        if not self._state_size:
            return network.distribution(observation, mask), {}
        assert not isinstance(inputs, Tensor)
        policy, state = network.step(observation, inputs[STATE], mask)
        return policy, {STATE: state}


class EntropyBonus(Protocol):
    """The hyperparameters of an entropy bonus."""

    @property
    def entropy_coefficient(self) -> float: ...

    @property
    def entropy_coefficient_final(self) -> float | None: ...


def entropy_schedule(config: EntropyBonus, progress: float) -> dict[str, float]:
    """The coefficient at `progress`, by its name; none if it is constant, and so part of a loss."""
    final = config.entropy_coefficient_final
    if final is None:
        return {}
    return {"entropy_coefficient": linear(config.entropy_coefficient, final, progress)}


def entropy_bonus(
    entropy: Tensor, weight: Tensor, coefficient: Tensor | float
) -> tuple[Tensor, Tensor]:
    """The mean entropy of a policy, and what a loss subtracts for it.

    Args:
        entropy: Of each step.
        weight: Of each step, [N].
        coefficient: Constant, or one number for each step.
    """
    mean = weight @ entropy.flatten()
    if isinstance(coefficient, Tensor):
        return mean, weight @ (coefficient * entropy).flatten()
    return mean, coefficient * mean
