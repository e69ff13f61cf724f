"""Deep Q-learning (Mnih et al., 2015), with the usual options, and Ape-X (Horgan et al., 2018).

Options: double (van Hasselt et al., 2016), dueling (Wang et al., 2016), n-step returns and
prioritised replay (Schaul et al., 2016); the replay store provides both on request.

With a memory, `network.core`, it is `engine.algorithms.recurrent_dqn`.
"""

from __future__ import annotations

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
from engine.algorithms.q_learning.losses import transition_loss
from engine.algorithms.q_network import QNetwork, among_valid, random_action
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup
from engine.layers.cores import state_size
from engine.layers.inputs import Inputs, Observation, map_leaves, mask_of, observation_of
from engine.rollout import Field
from engine.spaces.action_parts import action_field
from engine.spaces.observations import mask_field, observation_fields
from engine.spec import NetworkSpec, NonNegativeFloat, PositiveInt, UnitInterval

LOG_PROB = "log_prob"
VALUE_FIELDS = ("q_taken", "q_best")


class DqnConfig(QLearningConfig, frozen=True, kw_only=True):
    """Deep Q-learning (Mnih et al., 2015), with the usual options; R2D2 with `network.core`."""

    initial_priorities: bool = False
    """Set initial priorities to the actors' TD errors instead of the largest priority so far."""
    diagnostics: bool = True
    """Report the importance ratios of the samples, as a whole and by lag, in the trace; not with a
    memory or action masks. Actors then send how probable each action was."""


class ApexConfig(DqnConfig, frozen=True, kw_only=True):
    """Deep Q-learning with many actors and prioritised replay: DQN with the defaults of Ape-X
    (Horgan et al., 2018)."""

    dueling: bool = True
    n_step: PositiveInt = 3
    prioritized: bool = True
    initial_priorities: bool = True
    epsilon_initial: UnitInterval = 0.4
    epsilon_final: UnitInterval = 0.4
    epsilon_spread: NonNegativeFloat = 7.0


class Dqn(QLearning):
    """DQN for discrete actions; Ape-X is the same with other defaults.

    Args:
        config: Hyperparameters.
        network: Encoders and trunk.
        spaces: Of one environment.

    Raises:
        ConfigError: Actions are not one discrete choice, or sizes that can never be satisfied.
    """

    def __init__(self, config: DqnConfig, network: NetworkSpec, spaces: Spaces) -> None:
        self._num_actions = one_choice(spaces.action)
        self._config = config
        self._network_spec = network
        self._spaces = spaces
        self._action_field = action_field(spaces.action)
        self._sends_values = config.prioritized and config.initial_priorities
        self._diagnoses = config.diagnostics and not (spaces.has_action_mask or network.core)
        if self._sends_values:
            self.value_fields = VALUE_FIELDS
        super().__init__(config, state_size(network.core))

    @property
    def step_fields(self) -> tuple[Field, ...]:
        """See `QLearning`."""
        spaces = self._spaces
        mask = [mask_field(self._num_actions)] if spaces.has_action_mask else []
        return (
            *observation_fields(spaces.observation),
            *mask,
            self._action_field,
            *([Field(LOG_PROB, "float32")] if self._diagnoses else []),
            *(Field(name, "float32") for name in self.value_fields or ()),
        )

    def network(self) -> QNetwork:
        return QNetwork(
            self._spaces.observation, self._num_actions, self._network_spec, self._config.dueling
        )

    def act(self, network: nn.Module, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        """Epsilon-greedy among the valid actions; see `Algorithm`."""
        assert isinstance(network, QNetwork)
        mask = mask_of(inputs)
        q, memory = self._values(network, inputs)
        best, greedy = among_valid(q, mask).max(dim=-1)
        explores, random = noise.unbind(-1)
        any_action = random_action(random, q.shape[-1], mask)
        a_t = torch.where(explores < network.epsilon, any_action, greedy)
        chosen = {"action": self._shaped(a_t), **memory}
        if self._diagnoses:
            chosen[LOG_PROB] = network.log_prob(a_t == greedy)
        if not self._sends_values:
            return chosen
        taken = q.gather(-1, a_t.unsqueeze(-1)).squeeze(-1)
        return {**chosen, **dict(zip(VALUE_FIELDS, (taken, best), strict=True))}

    def act_greedily(self, network: nn.Module, inputs: Inputs) -> Tensor | Mapping[str, Tensor]:
        assert isinstance(network, QNetwork)
        q, memory = self._values(network, inputs)
        a_t = self._shaped(among_valid(q, mask_of(inputs)).argmax(dim=-1))
        return {"action": a_t, **memory} if memory else a_t

    def _values(self, network: QNetwork, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        """q(s, .) [B, num_actions], and what else acting returns."""
        return network.forward(observation_of(inputs)), {}

    def _shaped(self, action: Tensor) -> Tensor:
        """Actions [B] in the shape of their field."""
        return action.view(-1, *self._action_field.shape)

    def judge(self, target: nn.Module, samples: Batch) -> dict[str, Tensor]:
        """See `QLearning`; `next_q` is q_target(s_t, .), [N, num_actions]."""
        return {"next_q": target(observation_of(samples, NEXT_OBSERVATION))}

    def _samples(self, batch: Batch) -> dict[str, Tensor]:
        """See `QLearning`; `action` is [N]."""
        samples = merged(batch)
        samples.pop(LOG_PROB, None)
        action = samples["action"]
        return samples | {"action": action.view(len(action))}

    def _normalize(self, state: LearnerState, batch: Batch) -> None:
        assert isinstance(state.network, QNetwork)
        if state.network.input.normalizes:
            state.network.input.learn(self._observed(batch), state.replicas)

    def _observed(self, batch: Batch) -> Observation:
        """The observations that were trained on, [N, ...]."""
        return map_leaves(lambda leaf: leaf.flatten(0, 1), observation_of(batch))

    def _loss(
        self, network: nn.Module, minibatch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor]:
        """See `transition_loss`, with

        v(s_t) = q_target(s_t, a*)
        a*     = argmax_a q(s_t, a) if double, else argmax_a q_target(s_t, a)
        """
        next_q = minibatch["next_q"]
        assert next_q.shape == (*minibatch["reward"].shape, self._num_actions), next_q.shape
        with torch.no_grad():
            ranking = next_q
            if self._config.double:
                ranking = network(observation_of(minibatch, NEXT_OBSERVATION))
            ranking = among_valid(ranking, minibatch.get(NEXT_MASK))
            value = next_q.gather(-1, ranking.argmax(dim=-1, keepdim=True)).squeeze(-1)
        q_tm1 = network(observation_of(minibatch))
        action = minibatch["action"]
        q = q_tm1.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return transition_loss(q, value, minibatch, self._config.loss, replicas)

    @torch.no_grad()
    def _log_ratios(self, network: nn.Module, batch: Batch) -> Tensor | None:
        """See `QLearning`: of the epsilon-greedy policies of then and now."""
        if LOG_PROB not in batch:
            return None
        assert isinstance(network, QNetwork)
        of_first = {name: values[0] for name, values in batch.items()}
        greedy = network(observation_of(of_first)).argmax(dim=-1)
        log_prob = network.log_prob(greedy == of_first["action"].view(greedy.shape))
        return (log_prob - of_first[LOG_PROB]).unsqueeze(0).cpu()
