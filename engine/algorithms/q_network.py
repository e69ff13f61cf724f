"""Networks of action values.

Of discrete actions, for Q-learning: encoders, a core if it has a memory, one or two heads, and the
epsilon to explore with. Of continuous ones, for SAC and TD3: a policy, and critics q(s, a).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engine.algorithms.observation_input import build_input
from engine.layers.cores import build_core
from engine.layers.encoders import build_encoder, build_features
from engine.layers.inputs import Observation, map_leaves
from engine.layers.stacked import StackedLinear, stacked_mlp
from engine.layers.trunks import linear
from engine.spaces.leaves import AnySpace
from engine.spec import NetworkSpec

POLICY_MODULES = ("policy_trunk", "policy_head")
"""The modules of the policy in a `PolicyCriticsNetwork`."""


class ActionValues(nn.Module):
    """Action values of one agent.

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

    def unroll_refreshed(
        self,
        observation: Observation,
        state: Tensor,
        continues: Tensor,
        has_burn_in: Tensor,
        burn_in_steps: int,
    ) -> Tensor:
        """Sequences, from a state that is first refreshed by a burn-in, without gradients.

        Args:
            observation: Of the burn-in, of T steps and of s_T, [burn_in_steps + T + 1, N, ...].
            state: Before the first row of the burn-in, or of the T steps without one, [N, S].
            continues: As of `unroll`, a row for each observation.
            has_burn_in: Whether there is a burn-in, bool [N]; otherwise its rows mean nothing.
            burn_in_steps: Its rows.

        Returns:
            q(s_0, .) to q(s_T, .), [T + 1, N, num_actions].
        """
        if burn_in_steps:
            before = map_leaves(lambda leaf: leaf[:burn_in_steps], observation)
            with torch.no_grad():
                _, refreshed = self.unroll(before, state, continues[:burn_in_steps])
            state = torch.where(has_burn_in.unsqueeze(-1), refreshed, state)
        trained = map_leaves(lambda leaf: leaf[burn_in_steps:], observation)
        return self.unroll(trained, state, continues[burn_in_steps:])[0]

    def _heads(self, features: Tensor) -> Tensor:
        advantage: Tensor = self.advantage(features)
        if self.value is None:
            return advantage
        value: Tensor = self.value(features)
        return value + advantage - advantage.mean(-1, keepdim=True)


LEAST_PROBABILITY = 1e-8
"""Of an action, so that its logarithm is finite."""


class QNetwork(ActionValues):
    """Action values of one agent, and the epsilon for exploration; see `ActionValues`."""

    def __init__(
        self, observation: AnySpace, num_actions: int, spec: NetworkSpec, dueling: bool
    ) -> None:
        super().__init__(observation, num_actions, spec, dueling)
        self.epsilon = nn.Parameter(torch.ones(()), requires_grad=False)
        self._num_actions = num_actions

    def log_prob(self, is_greedy: Tensor) -> Tensor:
        """ln of the probability of an action, epsilon-greedy among all; float32 of the same shape.

            pi(a) = epsilon / n + (1 - epsilon) [a is the greedy one]

        Epsilon is that of the network, also where each environment has its own power of it.

        Args:
            is_greedy: Whether each action is the one that the network would choose; bool.
        """
        random = (self.epsilon / self._num_actions).clamp(min=LEAST_PROBABILITY)
        return (random + (1 - self.epsilon) * is_greedy).log()


def among_valid(q: Tensor, mask: Tensor | None) -> Tensor:
    """Action values for ranking: the least number there is where `mask` is False; both [..., A]."""
    return q if mask is None else torch.where(mask, q, torch.finfo(q.dtype).min)


def random_action(number: Tensor, num_actions: int, mask: Tensor | None) -> Tensor:
    """Any action with the same probability, or any of the valid ones.

    Args:
        number: Uniform in [0, 1), float32 [N].
        num_actions: A.
        mask: bool [N, A]; a row without any valid action gives the last one.

    Returns:
        int64 [N].
    """
    if mask is None:
        return (number * num_actions).to(torch.int64)
    num_valid = mask.cumsum(-1)
    rank = (number * num_valid[:, -1]).to(torch.int64)
    before = (num_valid <= rank.unsqueeze(-1)).sum(-1)  # how many actions come before that one
    return before.clamp(max=num_actions - 1)


class PolicyCriticsNetwork(nn.Module):
    """A policy, and several critics with weights of their own.

    Args:
        observation: Space of one observation.
        num_reals: D, entries of an action.
        spec: Encoders and trunk.
        num_outputs: Of the policy.
        num_critics: C.
        entropy_coefficient: Initial value, if it is learnt.
    """

    def __init__(
        self,
        observation: AnySpace,
        num_reals: int,
        spec: NetworkSpec,
        *,
        num_outputs: int,
        num_critics: int,
        entropy_coefficient: float | None = None,
    ) -> None:
        super().__init__()
        self.acts_uniformly = nn.Parameter(torch.ones(()), requires_grad=False)
        self.input = build_input(observation, spec)
        if entropy_coefficient is not None:
            self.temperature = Temperature(entropy_coefficient)
        self.policy_trunk, num_features = build_features(observation, spec)
        self.policy_head = linear(num_features, num_outputs, spec.gain_of("policy"))
        self.critics = Critics(observation, num_reals, spec, num_critics)

    def policy(self, observation: Observation) -> Tensor:
        """Outputs of the policy, [N, num_outputs], of [N, ...] observations."""
        outputs: Tensor = self.policy_head(self.policy_trunk(self.input(observation)))
        return outputs

    def values(self, observation: Observation, action: Tensor) -> Tensor:
        """q_1(s, a) to q_C(s, a), [C, N], of [N, ...] observations and [N, D] actions."""
        values: Tensor = self.critics(self.input(observation), action)
        return values


class Temperature(nn.Module):
    """The entropy coefficient alpha of SAC, by its logarithm.

    Args:
        initial: Its first value.
    """

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log_coefficient = nn.Parameter(torch.tensor(math.log(initial)))


class Critics(nn.Module):
    """Multi-layer perceptrons on an observation and an action, all of them computed together.

    An image, or an observation of several leaves, has an encoder that all critics share.

    Args:
        observation, num_reals, spec: See `PolicyCriticsNetwork`.
        count: C.
    """

    def __init__(
        self, observation: AnySpace, num_reals: int, spec: NetworkSpec, count: int
    ) -> None:
        super().__init__()
        self._count = count
        self.encoder, num_features = build_encoder(observation, spec)
        self.hidden, num_features = stacked_mlp(count, num_features + num_reals, spec)
        self.head = StackedLinear(count, num_features, 1, spec.gain_of("value"))

    def forward(self, scaled: Tensor | list[Tensor], action: Tensor) -> Tensor:
        """q_1(s, a) to q_C(s, a), [C, N], of results of the input layer, and actions [N, D]."""
        return self._values(scaled, action, self._count)

    def first(self, scaled: Tensor | list[Tensor], action: Tensor) -> Tensor:
        """q_1(s, a), [N]."""
        return self._values(scaled, action, 1).squeeze(0)

    def _values(self, scaled: Tensor | list[Tensor], action: Tensor, count: int) -> Tensor:
        x = torch.cat((self.encoder(scaled), action), dim=-1)
        values: Tensor = self.head(self.hidden(x.expand(count, *x.shape)))
        return values.squeeze(-1)


class TargetNetworkOfCritics(nn.Module):
    """Critics that follow those of a network slowly, and if it is wanted, a policy that does.

    Args:
        network: One of its own, whose parts it takes.
        has_policy: Whether to take the policy too.
    """

    def __init__(self, network: PolicyCriticsNetwork, *, has_policy: bool = False) -> None:
        super().__init__()
        if has_policy:
            self.policy_trunk, self.policy_head = network.policy_trunk, network.policy_head
        self.critics = network.critics

    def policy(self, scaled: Tensor | list[Tensor]) -> Tensor:
        """Outputs of the policy, [N, num_outputs], of results of the network's input layer."""
        outputs: Tensor = self.policy_head(self.policy_trunk(scaled))
        return outputs
