"""Twin delayed deep deterministic policy gradients (Fujimoto et al., 2018), and DDPG (Lillicrap et
al., 2016), which is the same with other settings.

The policy mu gives one action for each state. On every minibatch, with e of a normal distribution
with standard deviation sigma, clipped to c,

    a'      = clip(mu'(s_t) + clip(e, -c, c), -1, 1)       target policy smoothing, section 5.3
    y       = r + discount min_i q'_i(s_t, a')             clipped double Q-learning, equation 10
    J(q)    = sum over i of E[(q_i(s_tm1, a_tm1) - y)^2]

and after every d of them, on the last one (delayed policy updates, section 5.2),

    J(mu)   = -E[q_1(s_tm1, mu(s_tm1))]
    q'     <- q' + rate (q - q'),   mu' <- mu' + rate (mu - mu')

DDPG: one critic, d = 1, sigma = 0. It explores with normal noise instead of a correlated process.
"""

from __future__ import annotations

from functools import partial

import torch
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
from engine.errors import ConfigError
from engine.layers.inputs import Inputs, observation_of
from engine.rollout import NEXT
from engine.spaces.observations import OBSERVATION
from engine.spec import (
    NetworkSpec,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)


class Td3Config(ContinuousControlConfig, frozen=True, kw_only=True):
    """Twin delayed deep deterministic policy gradients (Fujimoto et al., 2018)."""

    learning_rate: PositiveFloat = 1e-3
    policy_delay: PositiveInt = 2
    """Updates of the critics for each of the policy and of the target networks."""
    exploration_noise: NonNegativeFloat = 0.1
    """Standard deviation of the noise on actions, in units of their range: -1 to 1."""
    policy_noise: NonNegativeFloat = 0.2
    """Standard deviation of the noise on actions of the target policy, in the same units."""
    policy_noise_limit: NonNegativeFloat = 0.5
    """To what that noise is clipped."""


class DdpgConfig(Td3Config, frozen=True, kw_only=True):
    """Deep deterministic policy gradients: TD3 with the defaults of DDPG (Lillicrap et al.,
    2016)."""

    policy_delay: PositiveInt = 1
    policy_noise: NonNegativeFloat = 0.0
    num_critics: PositiveInt = 1


class Td3(ContinuousControl):
    """TD3 for actions with two bounds; DDPG is the same with other defaults.

    Args:
        config: Hyperparameters.
        network: Encoders and trunk.
        spaces: Of one environment.

    Raises:
        ConfigError: See `ContinuousControl`; or a message is no whole number of policy updates.
    """

    has_target_policy = True
    unread_by_act = tuple(n for n in Td3Config.__struct_fields__ if n != "exploration_noise")

    def __init__(self, config: Td3Config, network: NetworkSpec, spaces: Spaces) -> None:
        name = "ddpg" if isinstance(config, DdpgConfig) else "td3"
        super().__init__(name, config, network, spaces)
        delay = config.policy_delay
        if config.updates_per_batch % delay:
            raise ConfigError(
                f"{config.updates_per_batch} is no multiple of policy_delay {delay}",
                where="algorithm.updates_per_batch",
                fix=f"try {-(-config.updates_per_batch // delay) * delay}",
            )
        self._config = config
        self.batches_per_step = delay
        self.metrics = (*("critic_loss", "q_mean") * delay, "policy_loss")
        of_critics = [partial(self._critic_loss, number=number) for number in range(delay)]
        self.step = self.sequence(
            *(Part(loss=loss, moves=("critics",)) for loss in of_critics),
            Part(loss=self._policy_loss, moves=POLICY_MODULES),
        )

    def network(self) -> PolicyCriticsNetwork:
        """See `Algorithm`."""
        return PolicyCriticsNetwork(
            self._spaces.observation,
            self._num_reals,
            self._network_spec,
            num_outputs=self._num_reals,
            num_critics=self._config.num_critics,
        )

    def act(self, network: nn.Module, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        """The policy's action with noise; see `Algorithm`."""
        assert isinstance(network, PolicyCriticsNetwork)
        chosen = self.act_greedily(network, inputs)
        noisy = (chosen + self._config.exploration_noise * noise).clamp(-1.0, 1.0)
        return {"action": self.explored(network, noisy, noise)}

    def act_greedily(self, network: nn.Module, inputs: Inputs) -> Tensor:
        """The policy's action."""
        assert isinstance(network, PolicyCriticsNetwork)
        return torch.tanh(network.policy(observation_of(inputs)))

    def _critic_loss(
        self,
        network: nn.Module,
        minibatch: Batch,
        target: nn.Module,
        replicas: ReplicaGroup = SINGLE_REPLICA,
        *,
        number: int,
    ) -> tuple[Tensor, Tensor]:
        """J(q) of the first lines.

        Args:
            network: The network to train.
            minibatch: Samples of `policy_delay` minibatches, [d N, ...]; `discount` is 0 after
                termination; `noise` [d N, 2, D].
            target: The target critics and policy.
            replicas: The learners with the other shares of these samples.
            number: Which of the minibatches it is.

        Returns:
            The loss, a scalar, and its metrics, [2], detached; the share of these samples.
        """
        assert isinstance(network, PolicyCriticsNetwork)
        assert isinstance(target, TargetNetworkOfCritics)
        config, minibatch = self._config, self._part(minibatch, number)
        with torch.no_grad():
            s_t = network.input(observation_of(minibatch, NEXT + OBSERVATION))
            noise = config.policy_noise * minibatch["noise"][:, 0]
            noise = noise.clamp(-config.policy_noise_limit, config.policy_noise_limit)
            a_t = (torch.tanh(target.policy(s_t)) + noise).clamp(-1.0, 1.0)
            q_t = target.critics(s_t, a_t).amin(0)
            y = torch.addcmul(minibatch["reward"], minibatch["discount"], q_t)
        q_tm1 = network.values(observation_of(minibatch), minibatch["action"])
        assert q_tm1.shape == (config.num_critics, *y.shape), (q_tm1.shape, y.shape)
        loss = (q_tm1 - y).square().mean(-1).sum()
        return share_of(loss, (loss, q_tm1.mean()), replicas)

    def _policy_loss(
        self,
        network: nn.Module,
        minibatch: Batch,
        target: nn.Module,
        replicas: ReplicaGroup = SINGLE_REPLICA,
    ) -> tuple[Tensor, Tensor]:
        """J(mu) on the last minibatch; arguments and result as in `_critic_loss`."""
        assert isinstance(network, PolicyCriticsNetwork)
        observation = observation_of(self._part(minibatch, self._config.policy_delay - 1))
        action = torch.tanh(network.policy(observation))
        loss = -network.critics.first(network.input(observation), action).mean()
        return share_of(loss, (loss,), replicas)

    def _part(self, minibatch: Batch, number: int) -> Batch:
        """One of the minibatches of a step."""
        size = len(minibatch["reward"]) // self._config.policy_delay
        rows = slice(number * size, (number + 1) * size)
        return {name: values[rows] for name, values in minibatch.items()}
