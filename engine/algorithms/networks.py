"""Networks: trunks (`engine.algorithms.trunks`) with the heads that algorithms need.

Observations are scaled inside, so they are sent and stored as the environment returns them:
unsigned bytes become [0, 1], everything else float32. With `network.normalize_observation` they are
also centred and divided by their standard deviation. These running statistics are parameters that
no gradient reaches: they are sent with the weights and have their version, so an actor normalises
with exactly the statistics of the policy that it uses.
"""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from engine.algorithms import distributions
from engine.algorithms.distributions import Categorical, DiagonalGaussian, Distribution
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup
from engine.algorithms.statistics import RunningStatistics
from engine.algorithms.trunks import build_trunk, find_trunk, linear, takes_bytes
from engine.errors import ConfigError
from engine.rollout import Field
from engine.spaces.action_parts import action_field as action_field
from engine.spaces.action_parts import parts_of
from engine.spec import NetworkSpec

POLICY_GAIN = 0.01
"""Small, so that initial policies are nearly uniform (Andrychowicz et al., 2021)."""
MAX_DEVIATIONS = 10.0


class ObservationInput(nn.Module):
    """Scales observations, and normalises them if asked to.

    Args:
        shape: Of one observation.
        dtype: NumPy name of its element type.
        normalizes: Whether to keep running statistics.
        passes_bytes: Whether the trunk takes unscaled bytes, if they are not normalised.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: str, normalizes: bool, passes_bytes: bool = False
    ) -> None:
        super().__init__()
        self._passes_bytes = passes_bytes and dtype == "uint8" and not normalizes
        self._shape = shape
        self._scale = 1 / 255 if dtype == "uint8" else 1.0
        self.statistics = RunningStatistics(shape) if normalizes else None

    def forward(self, observation: Tensor) -> Tensor:
        """[N, ...] -> float32 [N, ...], or unscaled bytes."""
        assert observation.shape[1:] == self._shape, observation.shape
        if self._passes_bytes:
            return observation
        scaled = self._scaled(observation)
        if self.statistics is None:
            return scaled
        deviations = (scaled - self.statistics.mean) * self.statistics.inverse_deviation
        return deviations.clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)

    def learn(self, observation: Tensor, replicas: ReplicaGroup = SINGLE_REPLICA) -> None:
        """Merges observations [N, ...] into the statistics; `replicas` have the other shares."""
        if self.statistics is not None:
            self.statistics.learn(self._scaled(observation), replicas)

    def _scaled(self, observation: Tensor) -> Tensor:
        if observation.is_floating_point():
            return observation
        values = observation.to(torch.float32)  # a new tensor, so it may be written to
        return values if self._scale == 1.0 else values.mul_(self._scale)


def observation_input(observation: gymnasium.spaces.Box, spec: NetworkSpec) -> ObservationInput:
    """The input layer of a network, before its trunks.

    Raises:
        ConfigError: The trunk is unknown.
    """
    shape = observation.shape
    passes_bytes = takes_bytes(shape, spec)
    return ObservationInput(shape, str(observation.dtype), spec.normalize_observation, passes_bytes)


class PolicyValueNetwork(nn.Module):
    """A policy and a state value, from two trunks or a shared one as the trunk's entry says.

    Args:
        observation: Space of one observation.
        action: Space of one action; see `check_action_space`.
        spec: The trunks.
        normalizes_reward: Whether to keep statistics of returns, to scale rewards with.

    Raises:
        ConfigError: The trunk is unknown or cannot take these observations.
    """

    def __init__(
        self,
        observation: gymnasium.spaces.Box,
        action: gymnasium.Space[object],
        spec: NetworkSpec,
        *,
        normalizes_reward: bool = False,
    ) -> None:
        super().__init__()
        shape = observation.shape
        self._is_shared = find_trunk(shape, spec).is_shared
        self._is_discrete = isinstance(action, gymnasium.spaces.Discrete)
        self.input = observation_input(observation, spec)
        self.policy_trunk, num_features = build_trunk(shape, spec)
        self.policy_head = linear(num_features, num_policy_outputs(action), POLICY_GAIN)
        if not self._is_shared:
            self.value_trunk, num_features = build_trunk(shape, spec)
        self.value_head = linear(num_features, 1, 1.0)
        if not self._is_discrete:
            self.log_std = nn.Parameter(torch.zeros(num_policy_outputs(action)))
        self.returns = RunningStatistics(()) if normalizes_reward else None

    @property
    def reward_scale(self) -> Tensor:
        """Factor for rewards, a float32 scalar: 1 / standard deviation of the returns so far."""
        return torch.ones(()) if self.returns is None else self.returns.inverse_deviation

    def distribution(self, observation: Tensor) -> Distribution:
        """pi(. | s) of [N, ...] observations."""
        return self._distribution(self.policy_trunk(self.input(observation)))

    def values(self, observation: Tensor) -> Tensor:
        """v(s), [N], of [N, ...] observations."""
        trunk = self.policy_trunk if self._is_shared else self.value_trunk
        return self._value(trunk(self.input(observation)))

    def evaluate(self, observation: Tensor) -> tuple[Distribution, Tensor]:
        """Distribution and values [N] of [N, ...] observations; a shared trunk is run once."""
        scaled = self.input(observation)
        features = self.policy_trunk(scaled)
        value_features = features if self._is_shared else self.value_trunk(scaled)
        return self._distribution(features), self._value(value_features)

    def _distribution(self, features: Tensor) -> Distribution:
        outputs: Tensor = self.policy_head(features)
        if self._is_discrete:
            return Categorical(outputs)
        return DiagonalGaussian(outputs, self.log_std)

    def _value(self, features: Tensor) -> Tensor:
        value: Tensor = self.value_head(features)
        return value.squeeze(-1)


def check_action_space(algorithm: str, action: gymnasium.Space[object]) -> None:
    """Checks that a policy can choose actions of a space (`engine.spaces.action_parts`);
    `engine.envs.actions` converts them to the environment's own.

    Raises:
        ConfigError: It cannot; names the algorithm.
    """
    try:
        parts_of(action)
    except ConfigError as error:
        error.what = f"{algorithm} cannot choose actions: {error.what}"
        raise


def draw_noise(
    action: gymnasium.Space[object], generator: torch.Generator, shape: tuple[int, ...]
) -> Tensor:
    """Noise for sampling on this action space, float32 [*shape, outputs of the policy]."""
    return distributions.draw_noise(parts_of(action), generator, shape)


def num_policy_outputs(action: gymnasium.Space[object]) -> int:
    """Logits of all categorical entries and means of all reals."""
    return parts_of(action).num_outputs


def observation_field(observation: gymnasium.spaces.Box) -> Field:
    """The field of observations s_0 to s_T; real numbers are stored in single precision."""
    is_real = np.issubdtype(observation.dtype, np.floating)
    dtype = "float32" if is_real else str(observation.dtype)
    return Field("observation", dtype, observation.shape, extra_rows=1)


def learn_statistics(
    network: nn.Module,
    batch: Mapping[str, Tensor],
    returns: Tensor,
    replicas: ReplicaGroup = SINGLE_REPLICA,
) -> None:
    """Updates a network's statistics with the valid steps of a batch of rollouts.

    Call it after the update: then, at lag 0, a batch is trained with the statistics that it was
    collected with.

    Args:
        network: A `PolicyValueNetwork`.
        batch: observation [T+1, B, ...], valid [T, B].
        returns: Value targets [T, B], of rewards scaled by `reward_scale`.
        replicas: The learners with the other shares of the batch (`LearnerState.replicas`).
    """
    assert isinstance(network, PolicyValueNetwork)
    valid = batch["valid"]
    if network.input.statistics is not None:
        network.input.learn(batch["observation"][:-1][valid], replicas)
    if network.returns is not None:
        network.returns.learn(returns[valid] / network.reward_scale, replicas)
