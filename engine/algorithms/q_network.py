"""The network of Q-learning: encoders, a core if it has a memory, one or two heads, and the epsilon
to explore with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.algorithms.inputs import Observation, map_leaves
from engine.algorithms.observation_input import build_input
from engine.layers.cores import build_core
from engine.layers.encoders import build_features
from engine.layers.trunks import linear
from engine.spaces.leaves import AnySpace
from engine.spec import NetworkSpec


class QNetwork(nn.Module):
    """Action values, and the epsilon for exploration.

    With a core, values are functions of its output: use `step` and `unroll` then, and without one
    call the network.

    Args:
        observation: Space of one observation.
        num_actions: Discrete actions.
        spec: Encoders, trunk and core.
        dueling: Whether to add up a state value and centred advantages (Wang et al., equation 9).
    """

    def __init__(
        self, observation: AnySpace, num_actions: int, spec: NetworkSpec, dueling: bool
    ) -> None:
        super().__init__()
        self.input = build_input(observation, spec)
        self.trunk, num_features = build_features(observation, spec)
        self.core = build_core(spec.core, num_features) if spec.core else None
        if self.core is not None:
            num_features = self.core.size
        gain = spec.gain_of("value")
        self.advantage = linear(num_features, num_actions, gain)
        self.value = linear(num_features, 1, gain) if dueling else None
        self.epsilon = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, observation: Observation) -> Tensor:
        """q(s, .), [N, num_actions], of [N, ...] observations."""
        assert self.core is None, "a network with a core is stepped or unrolled"
        return self._heads(self.trunk(self.input(observation)))

    def step(self, observation: Observation, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step with a memory.

        Args:
            observation: [N, ...].
            state: Of the core before this step, [N, S].

        Returns:
            q(s, .), [N, num_actions], and the state after this step, [N, S].
        """
        assert self.core is not None
        features, state = self.core.step(self.trunk(self.input(observation)), state)
        return self._heads(features), state

    def unroll(
        self, observation: Observation, state: Tensor, continues: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sequences, with gradients through time.

        Args:
            observation: [T, N, ...].
            state: Of the core before the first step, [N, S].
            continues: [T, N]; 0 where a step only reset its environment, whose state is zero then.

        Returns:
            q(s, .), [T, N, num_actions], and the state after the last step, [N, S].
        """
        assert self.core is not None
        merged = map_leaves(lambda leaf: leaf.flatten(0, 1), observation)
        features = self.trunk(self.input(merged))
        features = features.view(*continues.shape, features.shape[-1])
        outputs, state = self.core.unroll(features, state, continues)
        return self._heads(outputs), state

    def _heads(self, features: Tensor) -> Tensor:
        advantage: Tensor = self.advantage(features)
        if self.value is None:
            return advantage
        value: Tensor = self.value(features)
        return value + advantage - advantage.mean(-1, keepdim=True)


def among_valid(q: Tensor, mask: Tensor | None) -> Tensor:
    """Action values for ranking: the least number there is where `mask` is False; both [..., A]."""
    return q if mask is None else torch.where(mask, q, torch.finfo(q.dtype).min)


def random_action(number: Tensor, num_actions: int, mask: Tensor | None) -> Tensor:
    """Any action with the same probability, or any of the valid ones.

    Args:
        number: Uniform in [0, 1), float32 [N].
        num_actions: A.
        mask: bool [N, A], with at least one valid action in each row.

    Returns:
        int64 [N].
    """
    if mask is None:
        return (number * num_actions).to(torch.int64)
    num_valid = mask.cumsum(-1)
    rank = (number * num_valid[:, -1]).to(torch.int64)
    return (num_valid <= rank.unsqueeze(-1)).sum(-1)  # how many actions come before that one
