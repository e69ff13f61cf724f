"""Soft actor-critic with a learnt temperature (Haarnoja et al., 2018b, "Soft Actor-Critic
Algorithms and Applications").

The policy is tanh of a Gaussian. On every minibatch, with actions a, a' sampled anew by the policy
and alpha, the entropy coefficient or temperature,

    y        = r + discount (min_i q'_i(s_t, a') - alpha ln pi(a' | s_t))
    J(q)     = sum over i of 1/2 E[(q_i(s_tm1, a_tm1) - y)^2]                    (equations 5, 7)
    J(pi)    = E[alpha ln pi(a | s_tm1) - min_i q_i(s_tm1, a)]                   (equation 9)
    J(alpha) = -ln(alpha) E[ln pi(a | s_tm1) + target entropy]                   (equation 18)
    q'      <- q' + rate (q - q')

the critics move first, then policy and temperature, then the target critics q'. Of equation 18, the
gradient by ln(alpha) lacks the factor alpha, as in the code of the authors.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import torch
from msgspec import Meta
from torch import Tensor, nn

from engine.algorithms.base import Batch, Spaces
from engine.algorithms.critics.continuous_control import ContinuousControl, ContinuousControlConfig
from engine.algorithms.critics.replayed import share_of
from engine.algorithms.q_network import (
    POLICY_MODULES,
    PolicyCriticsNetwork,
    TargetNetworkOfCritics,
)
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup
from engine.algorithms.step_sequence import Part
from engine.layers.distributions import SquashedGaussian
from engine.layers.inputs import Inputs, observation_of
from engine.rollout import NEXT
from engine.spaces.observations import OBSERVATION
from engine.spec import (
    MAX_FLOAT,
    NetworkSpec,
    PositiveFloat,
)

Real: TypeAlias = Annotated[float, Meta(ge=-MAX_FLOAT, le=MAX_FLOAT)]


class SacConfig(ContinuousControlConfig, frozen=True, kw_only=True):
    """Soft actor-critic: twin critics and a learnt temperature (Haarnoja et al., 2018b)."""

    target_entropy: Real | None = None
    """Entropy of the policy, in nats, that the temperature is learnt for; `null`: -D for actions of
    D numbers."""
    entropy_coefficient_initial: PositiveFloat = 1.0
    """Alpha at the start: the weight of the policy's entropy beside the reward."""
    entropy_coefficient: PositiveFloat | None = None
    """Alpha, if it is to be the same at all times; `null`: it is learnt."""


class Sac(ContinuousControl):
    """SAC for actions with two bounds.

    Args:
        config: Hyperparameters.
        network: Encoders and trunk.
        spaces: Of one environment.

    Raises:
        ConfigError: See `ContinuousControl`.
    """

    unread_by_act = SacConfig.__struct_fields__
    metrics = ("critic_loss", "q_mean", "policy_loss", "entropy", "entropy_coefficient")

    def __init__(self, config: SacConfig, network: NetworkSpec, spaces: Spaces) -> None:
        super().__init__("sac", config, network, spaces)
        self._config = config
        wanted = config.target_entropy
        self._target_entropy = -float(self._num_reals) if wanted is None else wanted
        learns_temperature = config.entropy_coefficient is None
        temperature = ("temperature",) if learns_temperature else ()
        self.step = self.sequence(
            Part(loss=self._critic_loss, moves=("critics",)),
            Part(loss=self._policy_loss, moves=(*temperature, *POLICY_MODULES)),
        )

    def network(self) -> PolicyCriticsNetwork:
        """See `Algorithm`."""
        config = self._config
        learnt = config.entropy_coefficient_initial if config.entropy_coefficient is None else None
        return PolicyCriticsNetwork(
            self._spaces.observation,
            self._num_reals,
            self._network_spec,
            num_outputs=2 * self._num_reals,
            num_critics=config.num_critics,
            entropy_coefficient=learnt,
        )

    def act(self, network: nn.Module, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        """Samples the policy; see `Algorithm`."""
        assert isinstance(network, PolicyCriticsNetwork)
        chosen, _ = SquashedGaussian(network.policy(observation_of(inputs))).sample(noise)
        return {"action": self.explored(network, chosen, noise)}

    def act_greedily(self, network: nn.Module, inputs: Inputs) -> Tensor:
        """tanh of the policy's mean."""
        assert isinstance(network, PolicyCriticsNetwork)
        return SquashedGaussian(network.policy(observation_of(inputs))).mode()

    def _critic_loss(
        self,
        network: nn.Module,
        minibatch: Batch,
        target: nn.Module,
        replicas: ReplicaGroup = SINGLE_REPLICA,
    ) -> tuple[Tensor, Tensor]:
        """J(q) of the first lines.

        Args:
            network: The network to train.
            minibatch: Samples, [N, ...]; `discount` is 0 after termination; `noise` [N, 2, D].
            target: The target critics.
            replicas: The learners with the other shares of these samples.

        Returns:
            The loss, a scalar, and its metrics, [2], detached; the share of these samples.
        """
        assert isinstance(network, PolicyCriticsNetwork)
        assert isinstance(target, TargetNetworkOfCritics)
        with torch.no_grad():
            s_t = observation_of(minibatch, NEXT + OBSERVATION)
            policy = SquashedGaussian(network.policy(s_t))
            a_t, log_prob = policy.sample(minibatch["noise"][:, 0])
            q_t = target.critics(network.input(s_t), a_t).amin(0)
            soft = q_t - self._coefficient(network) * log_prob
            y = torch.addcmul(minibatch["reward"], minibatch["discount"], soft)
        q_tm1 = network.values(observation_of(minibatch), minibatch["action"])
        assert q_tm1.shape == (self._config.num_critics, *y.shape), (q_tm1.shape, y.shape)
        loss = 0.5 * (q_tm1 - y).square().mean(-1).sum()
        return share_of(loss, (loss, q_tm1.mean()), replicas)

    def _policy_loss(
        self,
        network: nn.Module,
        minibatch: Batch,
        target: nn.Module,
        replicas: ReplicaGroup = SINGLE_REPLICA,
    ) -> tuple[Tensor, Tensor]:
        """J(pi) + J(alpha) of the first lines; arguments and result as in `_critic_loss`."""
        assert isinstance(network, PolicyCriticsNetwork)
        observation, alpha = observation_of(minibatch), self._coefficient(network).detach()
        policy = SquashedGaussian(network.policy(observation))
        action, log_prob = policy.sample(minibatch["noise"][:, 1])
        q = network.values(observation, action).amin(0)
        loss = policy_loss = (alpha * log_prob - q).mean()
        entropy = -log_prob.detach().mean()
        if self._config.entropy_coefficient is None:
            excess = entropy - self._target_entropy
            loss = policy_loss + network.temperature.log_coefficient * excess
        return share_of(loss, (policy_loss, entropy, alpha), replicas)

    def _coefficient(self, network: PolicyCriticsNetwork) -> Tensor:
        """Alpha, a float32 scalar."""
        constant = self._config.entropy_coefficient
        if constant is None:
            return network.temperature.log_coefficient.exp()
        return network.acts_uniformly.new_full((), constant)
