"""DQN and Ape-X with a memory, as in R2D2 (Kapturowski et al., 2019).

Samples are sequences: what one environment did in one rollout. The state that the actor had is
stored with every step. Both networks first unroll over the burn-in from the stored state, without
gradients, and then over the sequence, from a state that fits their own weights.

        burn-in, no gradient         s_0 ... s_{T-1}      s_T
    ├────────────────────────┤├────────────────────────┤ only to bootstrap from

Departures from the paper: values are not rescaled, so that rewards have their own scale, and
sequences do not overlap.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.algorithms.base import Algorithm, Batch, Spaces
from engine.algorithms.dqn import Dqn, DqnConfig
from engine.algorithms.q_learning.learner import merged
from engine.algorithms.q_learning.losses import sequence_loss
from engine.algorithms.q_network import QNetwork, among_valid
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup
from engine.layers.inputs import STATE, Inputs, Observation, map_leaves, observation_of
from engine.spaces.observations import MASK
from engine.spec import NetworkSpec


def make_dqn(config: DqnConfig, network: NetworkSpec, spaces: Spaces) -> Algorithm:
    """DQN or Ape-X, with a memory if the network has a core; see `AlgorithmFactory`."""
    return (Dqn if network.core is None else RecurrentDqn)(config, network, spaces)


class RecurrentDqn(Dqn):
    """DQN whose network has a core.

    Args:
        config, spaces: See `Dqn`.
        network: With a core.

    Raises:
        ConfigError: See `Dqn`.
    """

    def _values(self, network: QNetwork, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        assert not isinstance(inputs, Tensor)
        q, state = network.step(observation_of(inputs), inputs[STATE])
        return q, {STATE: state}

    def judge(self, target: nn.Module, samples: Batch) -> dict[str, Tensor]:
        """See `Dqn`; `target_q` is q_target of s_0 to s_T, [N, T + 1, num_actions]."""
        assert isinstance(target, QNetwork)
        return {"target_q": self._unroll(target, samples).transpose(0, 1)}

    def _samples(self, batch: Batch) -> dict[str, Tensor]:
        """See `QLearning`; `action` is that of the steps after the burn-in, [N, T]."""
        samples = merged(batch)
        action = samples["action"][:, self._burn_in_steps :]
        return samples | {"action": action.reshape(action.shape[:2])}

    def _observed(self, batch: Batch) -> Observation:
        """The observations of the steps that were trained on; resets are not among them."""
        first, num_steps = self._burn_in_steps, self._config.rollout_steps
        is_step = batch["valid"][:, :, first:]
        return map_leaves(
            lambda leaf: leaf[:, :, first : first + num_steps][is_step], observation_of(batch)
        )

    def _unroll(self, network: QNetwork, samples: Batch) -> Tensor:
        """q(s_0, .) to q(s_T, .) of sequences, [T + 1, N, num_actions].

        Args:
            network: Whose state is refreshed by the burn-in, without gradients.
            samples: [N, rows, ...].
        """
        observation = map_leaves(lambda leaf: leaf.transpose(0, 1), observation_of(samples))
        state, has_burn_in = samples[STATE], samples["has_burn_in"]
        # A step that only reset its environment leaves no memory. After s_T nothing follows.
        continues = nn.functional.pad(samples["valid"].to(state.dtype).t(), (0, 0, 0, 1))
        return network.unroll_refreshed(
            observation, state, continues, has_burn_in, self._burn_in_steps
        )

    def _loss(
        self, network: nn.Module, minibatch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor]:
        """See `sequence_loss`, with v as in `Dqn`; `target_q` is [N, T + 1, num_actions]."""
        assert isinstance(network, QNetwork)
        q_of_states = self._unroll(network, minibatch)
        target_q = minibatch["target_q"].transpose(0, 1)
        assert q_of_states.shape == target_q.shape, (q_of_states.shape, target_q.shape)
        with torch.no_grad():
            mask = minibatch.get(MASK)
            if mask is not None:
                mask = mask[:, self._burn_in_steps :].transpose(0, 1)
            ranking = among_valid(q_of_states if self._config.double else target_q, mask)
            value = target_q.gather(-1, ranking.argmax(dim=-1, keepdim=True)).squeeze(-1)
        action = minibatch["action"].t().unsqueeze(-1)
        q = q_of_states[:-1].gather(-1, action).squeeze(-1)
        mix = self._sequence.priority_mix
        return sequence_loss(q, value, minibatch, self._config.loss, mix, replicas)
