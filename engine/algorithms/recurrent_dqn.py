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

import msgspec
import torch
from torch import Tensor, nn

from engine.algorithms.base import (
    Algorithm,
    Batch,
    ReplayRequest,
    SequenceRequest,
    Spaces,
    TargetNetwork,
)
from engine.algorithms.dqn import LOSSES, Dqn, DqnConfig, share_of_loss
from engine.algorithms.q_network import QNetwork, among_valid
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup
from engine.layers.cores import state_size
from engine.layers.inputs import STATE, Inputs, Observation, map_leaves, observation_of
from engine.rollout import Field
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

    def __init__(self, config: DqnConfig, network: NetworkSpec, spaces: Spaces) -> None:
        super().__init__(config, network, spaces)
        self._burn_in_steps = min(config.burn_in_steps, config.rollout_steps)
        self._sequence = SequenceRequest(
            num_steps=config.rollout_steps, burn_in_steps=self._burn_in_steps
        )

    @property
    def fields(self) -> tuple[Field, ...]:
        """Those of `Dqn`, and the state before each step."""
        return (*super().fields, Field(STATE, "float32", (state_size(self._network_spec.core),)))

    @property
    def _replay(self) -> ReplayRequest:
        return msgspec.structs.replace(super()._replay, sequence=self._sequence)

    def _values(self, network: QNetwork, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        assert not isinstance(inputs, Tensor)
        q, state = network.step(observation_of(inputs), inputs[STATE])
        return q, {STATE: state}

    def _prepare(self, target: TargetNetwork, batch: Batch) -> dict[str, Tensor]:
        """See `Dqn`; `target_q` is q_target of s_0 to s_T, [N, T + 1, num_actions]."""
        samples = {
            name: values.flatten(0, 1)
            for name, values in batch.items()
            if name not in ("key", "version")
        }
        assert isinstance(target.network, QNetwork)
        with torch.no_grad():
            target_q = self._unroll(target.network, samples).transpose(0, 1)
        action = samples["action"][:, self._burn_in_steps :]
        return samples | {"target_q": target_q, "action": action.reshape(action.shape[:2])}

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
        first = self._burn_in_steps
        observation = map_leaves(lambda leaf: leaf.transpose(0, 1), observation_of(samples))
        state = samples[STATE]
        # A step that only reset its environment leaves no memory. After s_T nothing follows.
        continues = nn.functional.pad(samples["valid"].to(state.dtype).t(), (0, 0, 0, 1))
        if first:
            before = map_leaves(lambda leaf: leaf[:first], observation)
            with torch.no_grad():
                _, refreshed = network.unroll(before, state, continues[:first])
            state = torch.where(samples["has_burn_in"].unsqueeze(-1), refreshed, state)
        trained = map_leaves(lambda leaf: leaf[first:], observation)
        return network.unroll(trained, state, continues[first:])[0]

    def _loss(
        self, network: nn.Module, minibatch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor]:
        """Loss of the TD errors, weighted, averaged over all steps of all sequences.

            delta_t = r + discount q_target(s_{t+k}, a*) - q(s_t, a_t)

        where r, discount and k, the span, are those of the n-step transition from step t, and a*
        is chosen as in `Dqn`. Steps that only reset their environment count as 0.

        Args:
            network: The network to train.
            minibatch: Sequences, [N, rows, ...]; `target_q` [N, T + 1, num_actions].
            replicas: The learners with the other shares of these samples.

        Returns:
            As in `Dqn`, with one error for each sequence, eta max |delta| + (1 - eta) mean |delta|.
        """
        assert isinstance(network, QNetwork)
        q_of_states = self._unroll(network, minibatch)
        span, target_q = minibatch["span"].t(), minibatch["target_q"].transpose(0, 1)
        assert q_of_states.shape == target_q.shape, (q_of_states.shape, target_q.shape)
        with torch.no_grad():
            mask = minibatch.get(MASK)
            if mask is not None:
                mask = mask[:, self._burn_in_steps :].transpose(0, 1)
            ranking = among_valid(q_of_states if self._config.double else target_q, mask)
            best = ranking.argmax(dim=-1, keepdim=True)
            value = target_q.gather(-1, best).squeeze(-1)
            step = torch.arange(len(span), device=span.device).unsqueeze(-1)
            target = torch.addcmul(
                minibatch["reward"].t(), minibatch["discount"].t(), value.gather(0, step + span)
            )
            is_step = (span > 0).to(target.dtype)
        action = minibatch["action"].t().unsqueeze(-1)
        q = q_of_states[:-1].gather(-1, action).squeeze(-1)
        assert q.shape == target.shape, (q.shape, target.shape)
        losses = is_step * LOSSES[self._config.loss](q, target, reduction="none")
        loss = (minibatch["weight"] * losses.mean(0)).mean()
        with torch.no_grad():
            error, num_steps = is_step * (target - q).abs(), is_step.sum(0).clamp(min=1.0)
            mix = self._sequence.priority_mix
            errors = mix * error.amax(0) + (1 - mix) * error.sum(0) / num_steps
            all_steps = num_steps.sum()
            means = torch.stack((loss, error.sum() / all_steps, (is_step * q).sum() / all_steps))
        return share_of_loss(loss, means, errors, replicas)
