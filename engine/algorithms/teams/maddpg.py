"""Multi-agent deep deterministic policy gradients (Lowe et al., 2017), also of discrete actions.

Each agent i acts by its own observation o_i; its critic sees the central state x and what all
agents do, which is known in training. On every minibatch, with all targets' actions a' in x_t,

    y_i     = r_i + discount_i min_c q'_ic(x_t, a'_1, ..., a'_N)
    J(q_i)  = sum over c of E[(q_ic(x_tm1, a_1, ..., a_N) - y_i)^2]              (equation 6)
    J(mu_i) = -E[q_i1(x_tm1, a_1, ..., mu_i(o_i), ..., a_N)] + penalty E[u_i^2]  (equation 5)
    q'     <- q' + rate (q - q'),   mu' <- mu' + rate (mu - mu')

where u_i are the outputs of the policy, whose penalty the code of the authors has, and all other
actions are those of the replay store. Actions are vectors (`relaxed_actions`): choices are sampled,
also those of a' and of mu_i. Several critics, of which the least counts, are Ackermann et al.'s
(2019). Whoever is not there acts with zeros and does not learn; an agent that ended for good has
no future, but one that left for another reason has.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from engine.algorithms.base import Batch, EnvSlice, LearnerState, Spaces
from engine.algorithms.critics.continuous_control import check_bounded
from engine.algorithms.critics.replayed import (
    PositiveUnit,
    ReplayedCritics,
    ReplayedCriticsConfig,
)
from engine.algorithms.observation_input import LeafInputs, ObservationInput
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup, columns_of
from engine.algorithms.step_sequence import Part
from engine.algorithms.teams.actors_critics import (
    ActorsCritics,
    ActorsCriticsTarget,
    critics_of,
    merged,
    outputs_of,
    values_of,
)
from engine.algorithms.teams.agents import TeamView, of_agents
from engine.algorithms.teams.relaxed_actions import RelaxedTeam
from engine.layers.inputs import Inputs, map_leaves
from engine.rollout import NEXT, Field
from engine.spaces.observations import MASK, OBSERVATION
from engine.spec import (
    NetworkSpec,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    UnitInterval,
)

NEXT_OBSERVATION, NEXT_MASK = NEXT + OBSERVATION, NEXT + MASK
CHOSEN_AMONG = "chosen_among"
"""The field of the mask that an action was chosen with; a transition has only that of s_t."""


class MaddpgConfig(ReplayedCriticsConfig, frozen=True, kw_only=True):
    """Multi-agent actors with central critics (Lowe et al., 2017); discrete actions by
    Gumbel-softmax."""

    learning_rate: PositiveFloat = 1e-2
    discount: UnitInterval = 0.95
    num_critics: PositiveInt = 1
    batch_size: PositiveInt = 1024
    updates_per_batch: PositiveInt = 4
    replay_ratio: PositiveFloat = 10.24
    """Samples trained for each env step collected; 10.24 is a batch of 1024 for every 100 steps."""
    min_replay_size: NonNegativeInt = 25_000
    """Env steps collected before training starts; until then actions are uniform."""
    target_update_rate: PositiveUnit = 0.01
    max_gradient_norm: PositiveFloat | None = 0.5
    """Longer gradients, of the critics or of the actor of each policy, are scaled down to this
    norm; `null`: none are."""
    exploration_noise: NonNegativeFloat = 0.1
    """Standard deviation of the noise on reals, in units of their range: -1 to 1."""
    exploration_epsilon: UnitInterval = 0.0
    """Probability with which a choice is any valid one; otherwise it is sampled from the policy."""
    gumbel_temperature: PositiveFloat = 1.0
    """Of the softmax that has the gradient of a choice: lower is closer to the choice, and its
    gradient is less even."""
    output_penalty: NonNegativeFloat = 1e-3
    """Weight of the mean square of the policy's outputs, so that choices stay uncertain and reals
    off their bounds."""


class Maddpg(ReplayedCritics):
    """MADDPG for teams whose actions are choices, reals with two bounds, or both.

    Args:
        config: Hyperparameters.
        network: Encoders and trunk.
        spaces: Of one environment.

    Raises:
        ConfigError: One agent, reals without bounds, or sizes that can never be satisfied.
    """

    unread_by_act = tuple(
        name for name in MaddpgConfig.__struct_fields__ if not name.startswith("exploration_")
    )

    def __init__(self, config: MaddpgConfig, network: NetworkSpec, spaces: Spaces) -> None:
        self._view = TeamView("maddpg", spaces)
        self._policies = self._view.team.policies
        for policy in self._policies:
            check_bounded("maddpg", policy.action, allows_choices=True)
        super().__init__(config)
        self._config, self._network_spec = config, network
        self._relaxed = RelaxedTeam(self._view, config.gumbel_temperature)
        self.acts_in_units = self._relaxed.has_reals
        numbers = range(len(self._policies))
        critics = [partial(self._critic_loss, number=number) for number in numbers]
        actors = [partial(self._policy_loss, number=number) for number in numbers]
        self.metrics = ("critic_loss", "q_mean") * len(critics) + ("policy_loss",) * len(actors)
        self.step = self.sequence(
            *(Part(loss=critics[n], moves=(f"critics.{n}",)) for n in numbers),
            *(Part(loss=actors[n], moves=(f"actors.{n}",)) for n in numbers),
        )

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout."""
        fields = self._view.fields
        masks = [item for item in fields if item.name == MASK]
        return (*fields, *(Field(CHOSEN_AMONG, "bool", mask.shape) for mask in masks))

    def network(self) -> ActorsCritics:
        """See `Algorithm`."""
        sizes = [own.size for own in self._relaxed.of_policies]
        return ActorsCritics(self._view, sizes, self._network_spec, self._config.num_critics)

    def followers(self, network: nn.Module) -> ActorsCriticsTarget:
        """Actors and critics."""
        assert isinstance(network, ActorsCritics)
        return ActorsCriticsTarget(network)

    def noise(self, generator: torch.Generator, num_steps: int, env_slice: EnvSlice) -> Tensor:
        """Float32 [T, B, outputs of all actors]; see `Algorithm`."""
        return self._relaxed.draw(generator, (num_steps, env_slice.count))

    def act(self, network: nn.Module, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        """The policies' actions with noise; see `Algorithm`."""
        assert isinstance(network, ActorsCritics)
        assert not isinstance(inputs, Tensor)
        config, is_uniform = self._config, network.acts_uniformly > 0
        epsilon, deviation = config.exploration_epsilon, config.exploration_noise
        chosen = []
        for number, own in enumerate(self._relaxed.apart(noise)):
            mask = self._view.masks(inputs, self._policies[number])
            outputs = self._outputs(network, number, inputs)
            relaxed = self._relaxed.of_policies[number]
            chosen.append(relaxed.explored(outputs, own, is_uniform, epsilon, deviation, mask))
        masks = {CHOSEN_AMONG: inputs[MASK]} if MASK in inputs else {}
        return {"action": self._relaxed.joint_action(chosen), **masks}

    def act_greedily(self, network: nn.Module, inputs: Inputs) -> Tensor:
        """The most likely choices, and reals without noise."""
        assert isinstance(network, ActorsCritics)
        assert not isinstance(inputs, Tensor)
        chosen = []
        for number, relaxed in enumerate(self._relaxed.of_policies):
            mask = self._view.masks(inputs, self._policies[number])
            chosen.append(relaxed.mode(self._outputs(network, number, inputs), mask))
        return self._relaxed.joint_action(chosen)

    def noise_of_losses(
        self, state: LearnerState, num_updates: int, batch_size: int
    ) -> Tensor | None:
        """For choices, in s_t and s_tm1: float32 [updates, batch size, 2, outputs of all]."""
        if not self._relaxed.has_choices:
            return None
        first, num_all = columns_of(state.replicas, batch_size)
        drawn = self._relaxed.draw(state.generator, (num_updates, num_all, 2))
        return drawn[:, first : first + batch_size].to(state.weights.vector.device)

    def learn_statistics(self, state: LearnerState, samples: Batch) -> None:
        """Updates the statistics of what agents that are there observe, and of the state."""
        network = state.network
        assert isinstance(network, ActorsCritics)
        if network.state_input.normalizes:
            network.state_input.learn(self._view.state(samples), state.replicas)
        for policy, layer in zip(self._policies, network.inputs, strict=True):
            assert isinstance(layer, ObservationInput | LeafInputs)
            if layer.normalizes:
                present = of_agents(self._view.present(samples), policy).flatten()
                observed = merged(policy, self._view.observations(samples, policy))
                seen = map_leaves(partial(_rows_of, present), observed)
                layer.learn(seen, state.replicas)

    def _critic_loss(
        self,
        network: nn.Module,
        minibatch: Batch,
        target: nn.Module,
        replicas: ReplicaGroup = SINGLE_REPLICA,
        *,
        number: int,
    ) -> tuple[Tensor, Tensor]:
        """J(q) of the first lines, a mean over the agents of a policy that acted.

        Args:
            network: The network to train.
            minibatch: Samples, [N, ...]; `discount` is 0 after the team's termination; `noise`
                [N, 2, outputs of all actors].
            target: The target actors and critics.
            replicas: The learners with the other shares of these samples.
            number: Of the policy.

        Returns:
            The loss, a scalar, and its metrics, [2], detached; the share of these samples.
        """
        assert isinstance(network, ActorsCritics)
        assert isinstance(target, ActorsCriticsTarget)
        policy, view = self._policies[number], self._view
        with torch.no_grad():
            y = self._targets(network, minibatch, target, number)
        state, actions = network.state_input(view.state(minibatch)), self._relaxed.taken(minibatch)
        joint = torch.cat([own.flatten(-2) for own in actions], -1)
        joint = joint.unsqueeze(1).expand(-1, len(policy.agents), -1)
        q_tm1 = values_of(critics_of(network.critics, number), policy, state, joint)
        assert q_tm1.shape == (self._config.num_critics, *y.shape), (q_tm1.shape, y.shape)
        weight = _weights(of_agents(view.present(minibatch), policy), replicas)
        loss = (weight * (q_tm1 - y).square()).sum()
        q_mean = (weight * q_tm1).sum() / self._config.num_critics
        return loss, torch.stack((loss, q_mean)).detach()

    def _targets(
        self, network: ActorsCritics, minibatch: Batch, target: ActorsCriticsTarget, number: int
    ) -> Tensor:
        """y of each agent of a policy, [N, agents]."""
        policy, view = self._policies[number], self._view
        has_ended = view.terminated(minibatch, NEXT_OBSERVATION)
        acted = view.present(minibatch) & ~has_ended
        goes_on = acted | view.present(minibatch, NEXT_OBSERVATION)
        parts = []
        for other, its in enumerate(self._policies):
            observed = view.observations(minibatch, its, NEXT_OBSERVATION)
            scaled = network.scaled(other, its, observed)
            outputs = outputs_of(target.actors, other, its, scaled)
            mask = view.masks(minibatch, its, NEXT_MASK)
            vector = self._sampled(other, outputs, minibatch, 0, mask)
            parts.append((vector * of_agents(goes_on, its).unsqueeze(-1)).flatten(-2))
        joint = torch.cat(parts, -1).unsqueeze(1).expand(-1, len(policy.agents), -1)
        state = network.state_input(view.state(minibatch, NEXT_OBSERVATION))
        q_t = values_of(critics_of(target.critics, number), policy, state, joint).amin(0)
        discount = minibatch["discount"].unsqueeze(-1) * ~of_agents(has_ended, policy)
        reward = of_agents(view.rewards(minibatch, NEXT_OBSERVATION), policy)
        return torch.addcmul(reward, discount, q_t)

    def _policy_loss(
        self,
        network: nn.Module,
        minibatch: Batch,
        target: nn.Module,
        replicas: ReplicaGroup = SINGLE_REPLICA,
        *,
        number: int,
    ) -> tuple[Tensor, Tensor]:
        """J(mu) of the first lines; arguments and result as in `_critic_loss`."""
        assert isinstance(network, ActorsCritics)
        policy, view = self._policies[number], self._view
        outputs = self._outputs(network, number, minibatch)
        mask = view.masks(minibatch, policy, CHOSEN_AMONG)
        chosen = self._sampled(number, outputs, minibatch, 1, mask)
        num_agents = len(policy.agents)
        # For agent i, that of its policy's others are the actions that they took.
        is_own = torch.eye(num_agents, dtype=torch.bool, device=chosen.device).unsqueeze(-1)
        parts = []
        for other, taken in enumerate(self._relaxed.taken(minibatch)):
            seen = taken.unsqueeze(1)
            if other == number:
                seen = torch.where(is_own, chosen.unsqueeze(1), seen)
            parts.append(seen.flatten(-2).expand(-1, num_agents, -1))
        state = network.state_input(view.state(minibatch))
        q = values_of(
            critics_of(network.critics, number).first, policy, state, torch.cat(parts, -1)
        ).squeeze(0)
        weight = _weights(of_agents(view.present(minibatch), policy), replicas)
        penalty = self._config.output_penalty * outputs.square().mean(-1)
        loss = (weight * (penalty - q)).sum()
        return loss, loss.detach().unsqueeze(0)

    def _outputs(self, network: ActorsCritics, number: int, values: Batch) -> Tensor:
        """Outputs of a policy for what its agents observe in s_tm1, [N, agents, E]."""
        policy = self._policies[number]
        scaled = network.scaled(number, policy, self._view.observations(values, policy))
        return outputs_of(network.actors, number, policy, scaled)

    def _sampled(
        self, number: int, outputs: Tensor, minibatch: Batch, state: int, mask: Tensor | None
    ) -> Tensor:
        """Vectors of sampled actions, [N, agents, E], with the noise of s_t (0) or s_tm1 (1)."""
        if not self._relaxed.has_choices:
            return torch.tanh(outputs)
        noise = self._relaxed.apart(minibatch["noise"][:, state])[number]
        return self._relaxed.of_policies[number].sample(outputs, noise, mask)


def _rows_of(is_one: Tensor, values: Tensor) -> Tensor:
    """The rows of [N, ...] for which bool [N] holds."""
    return values[is_one]


def _weights(is_there: Tensor, replicas: ReplicaGroup) -> Tensor:
    """Equal weights of all agents that acted, [N, agents], which sum to 1 over all learners."""
    weight = is_there.to(torch.float32)
    return weight / replicas.sum(weight.sum()).clamp(min=1.0)
