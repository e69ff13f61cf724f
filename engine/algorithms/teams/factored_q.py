"""Values of a team that are made of values of its agents: the common part of VDN and QMIX.

    Q_tot(s, u) = mix of q_i(o_i, u_i), weighted by s
    target      = r + discount Q_tot_target(s', best choices of all)

Each agent acts by its own q_i alone, on what it observes itself; how values are mixed matters in
training only. Agents of one policy share a network, which sees their number. An agent that is not
there adds 0, and its memory is forgotten.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine.algorithms.base import Batch, LearnerState, Spaces
from engine.algorithms.q_learning.config import QLearningConfig
from engine.algorithms.q_learning.learner import (
    NEXT_MASK,
    NEXT_OBSERVATION,
    QLearning,
    merged,
    one_choice,
)
from engine.algorithms.q_learning.losses import sequence_loss, transition_loss
from engine.algorithms.q_network import random_action
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup
from engine.algorithms.teams.agents import TeamView, of_agents
from engine.algorithms.teams.mixing import Mixer
from engine.algorithms.teams.team_q_network import ByPolicy, TeamChoices, TeamQNetwork, values_of
from engine.layers.cores import state_size
from engine.layers.inputs import STATE, Inputs, is_observation
from engine.rollout import Field
from engine.spaces.observations import MASK
from engine.spec import NetworkSpec, NonNegativeInt, PositiveFloat, PositiveInt

TARGET_Q, TARGET_WEIGHTS = "target_q", "target_weights"
"""What the target network says of states to bootstrap from: values by policy, `target_q.NAME`
[N, ..., agents, choices], and weights of its mixer [N, ..., W]."""


class FactoredQConfig(QLearningConfig, frozen=True, kw_only=True):
    """The hyperparameters that VDN and QMIX have in common."""

    learning_rate: PositiveFloat = 5e-4
    epsilon_decay_env_steps: NonNegativeInt = 50_000
    target_update_period: PositiveInt = 200
    rollout_steps: PositiveInt = 32
    burn_in_steps: NonNegativeInt = 0


class FactoredQ(QLearning):
    """Learns the value of a team by those of its agents, from transitions or, if the network has a
    core, from sequences.

    Args:
        name: Of the algorithm, for errors.
        config: Hyperparameters.
        network: Of each policy.
        spaces: Of one environment.

    Raises:
        ConfigError: One agent only, an agent's actions are not one discrete choice, or sizes that
            can never be satisfied.
    """

    def __init__(
        self, name: str, config: FactoredQConfig, network: NetworkSpec, spaces: Spaces
    ) -> None:
        self._view = TeamView(name, spaces)
        self._team = self._view.team
        for policy in self._team.policies:
            first = self._team.agents[policy.agents[0]]
            one_choice(policy.action, f"agent {first}", "ippo or mappo")
        self._choices = TeamChoices(self._view)
        self._config = config
        self._network_spec = network
        super().__init__(config, state_size(network.core) * len(self._team.agents))

    @abstractmethod
    def mixer(self) -> Mixer:
        """A new mixer."""

    @property
    def shape_of_choice(self) -> tuple[int, ...]:
        """See `QLearning`."""
        return (len(self._team.agents),)

    @property
    def step_fields(self) -> tuple[Field, ...]:
        """See `QLearning`."""
        return self._view.fields

    def network(self) -> TeamQNetwork:
        return TeamQNetwork(self._view, self._network_spec, self._config.dueling, self.mixer)

    def act(self, network: nn.Module, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        """Epsilon-greedy among the valid choices, each agent for itself; see `Algorithm`."""
        assert isinstance(network, TeamQNetwork)
        assert not isinstance(inputs, Tensor)
        q, memory = self._values(network, inputs)
        greedy, chosen = self._choices.best(q, inputs), {}
        explores, random = noise.unbind(1)
        for policy in self._team.policies:
            own = greedy[policy.name]
            mask = self._view.masks(inputs, policy)
            any_choice = random_action(
                of_agents(random, policy).flatten(),
                q[policy.name].shape[-1],
                None if mask is None else mask.flatten(0, 1),
            )
            is_random = of_agents(explores, policy) < network.epsilon
            chosen[policy.name] = torch.where(is_random, any_choice.view(own.shape), own)
        return {"action": self._choices.joint(chosen), **memory}

    def act_greedily(self, network: nn.Module, inputs: Inputs) -> Tensor | Mapping[str, Tensor]:
        assert not isinstance(inputs, Tensor)
        q, memory = self._values(network, inputs)
        action = self._choices.joint(self._choices.best(q, inputs))
        return {"action": action, **memory} if memory else action

    def _values(
        self, network: nn.Module, inputs: Mapping[str, Tensor]
    ) -> tuple[ByPolicy, dict[str, Tensor]]:
        """q_i(o_i, .), [B, agents, choices] of each policy, and what else acting returns."""
        assert isinstance(network, TeamQNetwork)
        if not self._state_size:
            return network(inputs), {}
        q, state = network.step(inputs)
        return q, {STATE: state}

    def judge(self, target: nn.Module, samples: Batch) -> dict[str, Tensor]:
        """See `QLearning`: what `TARGET_Q` and `TARGET_WEIGHTS` describe."""
        assert isinstance(target, TeamQNetwork)
        if self._state_size:
            unrolled = target.unroll(samples, self._burn_in_steps)
            values = {name: q.transpose(0, 1) for name, q in unrolled.items()}
            weights = target.mixer.weights(self._view.state(self._trained(samples)))
        else:
            values = target(samples, NEXT_OBSERVATION)
            weights = target.mixer.weights(self._view.state(samples, NEXT_OBSERVATION))
        return {**{f"{TARGET_Q}.{name}": q for name, q in values.items()}, TARGET_WEIGHTS: weights}

    def _loss(
        self, network: nn.Module, minibatch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor]:
        """See `engine.algorithms.q_learning.losses`, of Q_tot; the best choices are those of the
        learning network if `double`, otherwise those of the target network."""
        assert isinstance(network, TeamQNetwork)
        of_loss = self._loss_of_sequences if self._state_size else self._loss_of_transitions
        return of_loss(network, minibatch, replicas)

    def _loss_of_transitions(
        self, network: TeamQNetwork, minibatch: Batch, replicas: ReplicaGroup
    ) -> tuple[Tensor, Tensor]:
        target_q = self._target_values(minibatch)
        with torch.no_grad():
            ranking = network(minibatch, NEXT_OBSERVATION) if self._config.double else target_q
            best = self._choices.best(ranking, minibatch, NEXT_MASK)
            present = self._view.present(minibatch, NEXT_OBSERVATION)
            value = network.total(values_of(target_q, best), minibatch[TARGET_WEIGHTS], present)
        taken = self._choices.taken(network(minibatch), minibatch["action"])
        weights = network.mixer.weights(self._view.state(minibatch))
        q = network.total(taken, weights, self._view.present(minibatch))
        return transition_loss(q, value, minibatch, self._config.loss, replicas)

    def _loss_of_sequences(
        self, network: TeamQNetwork, minibatch: Batch, replicas: ReplicaGroup
    ) -> tuple[Tensor, Tensor]:
        trained = {name: rows.transpose(0, 1) for name, rows in self._trained(minibatch).items()}
        present = self._view.present(trained)
        values = network.unroll(minibatch, self._burn_in_steps)
        target_q = {name: q.transpose(0, 1) for name, q in self._target_values(minibatch).items()}
        with torch.no_grad():
            best = self._choices.best(values if self._config.double else target_q, trained)
            target_weights = minibatch[TARGET_WEIGHTS].transpose(0, 1)
            value = network.total(values_of(target_q, best), target_weights, present)
        of_steps = {name: q[:-1] for name, q in values.items()}
        taken = self._choices.taken(of_steps, trained["action"])
        weights = network.mixer.weights(self._view.state(trained)[:-1])
        q = network.total(taken, weights, present[:-1])
        mix = self._sequence.priority_mix
        return sequence_loss(q, value, minibatch, self._config.loss, mix, replicas)

    def _target_values(self, minibatch: Batch) -> dict[str, Tensor]:
        return {
            policy.name: minibatch[f"{TARGET_Q}.{policy.name}"] for policy in self._team.policies
        }

    def _trained(self, sequences: Batch) -> dict[str, Tensor]:
        """What was observed and chosen after the burn-in, [N, T + 1, ...] or [N, T, ...]."""
        return {
            name: rows[:, self._burn_in_steps :]
            for name, rows in sequences.items()
            if is_observation(name) or name in (MASK, "action")
        }

    def _normalize(self, state: LearnerState, batch: Batch) -> None:
        """Learns from the observations of steps that were trained on; resets are not among them."""
        assert isinstance(state.network, TeamQNetwork)
        samples = merged(batch)
        if self._state_size:
            is_step = samples["valid"][:, self._burn_in_steps :]
            trained, num_steps = self._trained(samples), self._config.rollout_steps
            samples = {name: rows[:, :num_steps][is_step] for name, rows in trained.items()}
        state.network.learn(samples, state.replicas)
