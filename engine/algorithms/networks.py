"""Networks: trunks (`engine.layers.trunks`) with the heads that algorithms need.

Observations are scaled inside (`engine.algorithms.observation_input`). With several leaves, each
has an encoder (`engine.layers.encoders`); with a core, the network has a memory
(`engine.layers.cores`).
"""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium
import msgspec
import torch
from gymnasium import spaces
from torch import Tensor, nn

from engine.algorithms.observation_input import build_input
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup
from engine.algorithms.statistics import RunningStatistics
from engine.errors import ConfigError
from engine.layers import distributions
from engine.layers.cores import build_core
from engine.layers.distributions import Distribution, make_distribution
from engine.layers.encoders import build_features, shares_trunk
from engine.layers.inputs import STATE, Observation, map_leaves, mask_of, observation_of
from engine.layers.trunks import linear
from engine.rollout import Field
from engine.spaces.action_parts import action_field as action_field
from engine.spaces.action_parts import parts_of
from engine.spaces.leaves import AnySpace
from engine.spaces.observations import observation_fields
from engine.spec import NetworkSpec

CENTRAL = "central"
"""In batches of several agents: what a central value sees, [..., D]."""
WITH_CORE = "a network with a core is stepped or unrolled"


class PolicyValueNetwork(nn.Module):
    """A policy and a state value, from two trunks or a shared one as the trunk's entry says.

    With a core, both are functions of its output: use `step` and `unroll` then, and without one
    `distribution`, `values` and `evaluate`. A central value sees something else than the policy,
    by a trunk of its own, and with a core also the output of that.

    Args:
        observation: Space of one observation.
        action: Space of one action; see `check_action_space`.
        spec: Encoders, trunks and core.
        central: What a central value sees; None: what the policy does.
        normalizes_reward: Whether to keep statistics of returns, to scale rewards with.

    Raises:
        ConfigError: A network is unknown or cannot take these observations.
    """

    def __init__(
        self,
        observation: AnySpace,
        action: AnySpace,
        spec: NetworkSpec,
        *,
        central: spaces.Box | None = None,
        normalizes_reward: bool = False,
    ) -> None:
        super().__init__()
        self._is_shared = central is None and (
            spec.core is not None or shares_trunk(observation, spec)
        )
        self._parts = parts_of(action)
        self.input = build_input(observation, spec)
        self.policy_trunk, num_features = build_features(observation, spec)
        self.core = build_core(spec.core, num_features) if spec.core else None
        if self.core is not None:
            num_features = self.core.size
        self.policy_head = linear(num_features, self._parts.num_outputs, spec.gain_of("policy"))
        self.central_input = None
        if central is not None:
            of_vector = msgspec.structs.replace(spec, name=None, encoders={})
            self.central_input = build_input(central, of_vector)
            self.value_trunk, of_state = build_features(central, of_vector)
            num_features = of_state + (0 if self.core is None else self.core.size)
        elif not self._is_shared:
            self.value_trunk, num_features = build_features(observation, spec)
        self.value_head = linear(num_features, 1, spec.gain_of("value"))
        self.log_std = (
            nn.Parameter(torch.zeros(self._parts.num_reals)) if self._parts.num_reals else None
        )
        self.returns = RunningStatistics(()) if normalizes_reward else None

    @property
    def reward_scale(self) -> Tensor:
        """Factor for rewards, a float32 scalar: 1 / standard deviation of the returns so far."""
        return torch.ones(()) if self.returns is None else self.returns.inverse_deviation

    def distribution(self, observation: Observation, mask: Tensor | None = None) -> Distribution:
        """pi(. | s) of [N, ...] observations; a mask is bool [N, choices]."""
        assert self.core is None, WITH_CORE
        return self._distribution(self.policy_trunk(self.input(observation)), mask)

    def values(self, seen: Observation) -> Tensor:
        """v(s), [N], of what the value sees, [N, ...]."""
        assert self.core is None, WITH_CORE
        trunk = self.policy_trunk if self._is_shared else self.value_trunk
        return self._value(trunk((self.central_input or self.input)(seen)))

    def evaluate(
        self, observation: Observation, mask: Tensor | None = None, central: Tensor | None = None
    ) -> tuple[Distribution, Tensor]:
        """Distribution and values [N] of [N, ...] observations, and of what a central value sees; a
        shared trunk is run once."""
        assert self.core is None, WITH_CORE
        if central is not None:
            return self.distribution(observation, mask), self.values(central)
        scaled = self.input(observation)
        features = self.policy_trunk(scaled)
        value_features = features if self._is_shared else self.value_trunk(scaled)
        return self._distribution(features, mask), self._value(value_features)

    def step(
        self, observation: Observation, state: Tensor, mask: Tensor | None = None
    ) -> tuple[Distribution, Tensor]:
        """pi(. | s) with a memory.

        Args:
            observation: [N, ...].
            state: Of the core before this step, [N, S].
            mask: bool [N, choices].

        Returns:
            The distribution, and the state after this step, [N, S].
        """
        assert self.core is not None
        features, state = self.core.step(self.policy_trunk(self.input(observation)), state)
        return self._distribution(features, mask), state

    def unroll(
        self,
        observation: Observation,
        state: Tensor,
        continues: Tensor,
        mask: Tensor | None = None,
        central: Tensor | None = None,
    ) -> tuple[Distribution, Tensor]:
        """Distribution and values along sequences, with gradients through time.

        Args:
            observation: [T, N, ...].
            state: Of the core before the first step, [N, S].
            continues: [T, N]; 0 where a step only reset its environment, whose state is zero then.
            mask: bool [T, N, choices].
            central: What a central value sees, [T, N, ...].

        Returns:
            Of all T x N steps, time first.
        """
        assert self.core is not None
        shape = continues.shape
        merged = map_leaves(lambda leaf: leaf.flatten(0, 1), observation)
        # A share of a minibatch can be empty, so the number of features is not left open.
        features = self.policy_trunk(self.input(merged))
        features = features.view(*shape, features.shape[-1])
        outputs, _ = self.core.unroll(features, state, continues.to(features.dtype))
        outputs = outputs.flatten(0, 1)
        flat_mask = None if mask is None else mask.flatten(0, 1)
        return self._distribution(outputs, flat_mask), self._value_of(outputs, central)

    def _value_of(self, outputs: Tensor, central: Tensor | None) -> Tensor:
        """The values of a core's outputs [N, size], and of what a central value sees."""
        if self.central_input is None:
            return self._value(outputs)
        assert central is not None
        of_state = self.value_trunk(self.central_input(central.flatten(0, 1)))
        return self._value(torch.cat((of_state, outputs), -1))

    def _distribution(self, features: Tensor, mask: Tensor | None) -> Distribution:
        return make_distribution(self._parts, self.policy_head(features), self.log_std, mask)

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


def observation_field(observation: AnySpace) -> Field:
    """The field of observations s_0 to s_T of one array; real numbers in single precision.

    Raises:
        ConfigError: An observation has several leaves; `observation_fields` has all.
    """
    fields = observation_fields(observation)
    if len(fields) > 1:
        raise ConfigError(
            f"it takes an observation of one array; the environment has {observation}",
            where="algorithm.name",
            fix="let it declare observation_fields(spaces.observation), and read"
            " observation_of(batch)",
        )
    return fields[0]


def after_resets(valid: Tensor) -> Tensor:
    """`continues` of `unroll` for the T + 1 observations of a rollout, from `valid` [T, B]: float32
    [T+1, B], 0 where the next observation is the first of an episode."""
    steps = valid.to(torch.float32)
    return torch.cat((steps, torch.ones_like(steps[:1])))


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
        batch: observation [T+1, B, ...], or each leaf of it; `central`, if the value sees that;
            valid [T, B].
        returns: Value targets [T, B], of rewards scaled by `reward_scale`.
        replicas: The learners with the other shares of the batch (`LearnerState.replicas`).
    """
    assert isinstance(network, PolicyValueNetwork)
    valid = batch["valid"]
    if network.input.normalizes:
        network.input.learn(
            map_leaves(lambda leaf: leaf[:-1][valid], observation_of(batch)), replicas
        )
    if network.central_input is not None and network.central_input.normalizes:
        network.central_input.learn(batch[CENTRAL][:-1][valid], replicas)
    if network.returns is not None:
        network.returns.learn(returns[valid] / network.reward_scale, replicas)


def unrolled(
    network: PolicyValueNetwork, minibatch: Mapping[str, Tensor]
) -> tuple[Distribution, Tensor, dict[str, Tensor]]:
    """Distribution and values [T*N] of N sequences, and all else of each step in the same order."""
    state = minibatch[STATE]
    in_time = {name: v.transpose(0, 1) for name, v in minibatch.items() if name != STATE}
    policy, value = network.unroll(
        observation_of(in_time), state, in_time["valid"], mask_of(in_time), in_time.get(CENTRAL)
    )
    return policy, value, {name: values.flatten(0, 1) for name, values in in_time.items()}
