"""Actions as vectors that a critic has gradients by: a one-hot vector for each choice, then reals.

A choice is a sample of softmax(logits) by the Gumbel-max trick, with its gradient by the
straight-through Gumbel-softmax estimator (Jang et al., 2017; Maddison et al., 2017): with g of a
standard Gumbel distribution,

    soft = softmax((logits + g) / temperature)
    a    = one-hot(argmax(logits + g)), whose gradient is taken to be that of soft

A real is the tanh of the policy's output, within (-1, 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from engine.algorithms.critics.continuous_control import uniform_of
from engine.algorithms.teams.agents import TeamView, of_agents
from engine.layers.distributions import MASKED_LOGIT, draw_noise
from engine.spaces.action_parts import ActionParts, parts_of


class RelaxedActions:
    """Actions of one agent of a policy; leading axes are any, [...].

    Args:
        parts: Of its action space.
        temperature: Of the softmax whose gradient is used.

    Attributes:
        size: E, numbers of an action as a vector: also outputs of the policy, and entries of noise.
    """

    def __init__(self, parts: ActionParts, temperature: float) -> None:
        self._parts, self._temperature = parts, temperature
        firsts = itertools.accumulate(parts.nvec, initial=0)
        self._entries = list(itertools.starmap(slice, itertools.pairwise(firsts)))
        self.size = parts.num_outputs

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
        """Noise, float32 [*shape, E]: exponential for choices, standard normal for reals."""
        return draw_noise(self._parts, generator, shape)

    def vector_of(self, action: Tensor) -> Tensor:
        """The vector [..., E] of an action, [..., *as in its field]."""
        columns = action.unsqueeze(-1) if self._parts.is_scalar else action
        num_choices = len(self._parts.nvec)
        choices = columns[..., :num_choices].unbind(-1)
        vectors = [_one_hot(i, n) for i, n in zip(choices, self._parts.nvec, strict=True)]
        return torch.cat((*vectors, columns[..., num_choices:].to(torch.float32)), -1)

    def action_of(self, vector: Tensor) -> Tensor:
        """The inverse: of each choice the largest entry is the one that is chosen."""
        chosen = [vector[..., entry].argmax(-1) for entry in self._entries]
        if self._parts.is_scalar:
            return chosen[0]
        reals = vector[..., self._parts.num_logits :]
        if not chosen:
            return reals
        choices = torch.stack(chosen, -1)
        if not self._parts.num_reals:
            return choices
        return torch.cat((choices.to(reals.dtype), reals), -1)

    def mode(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """The vector of the most likely action, [..., E].

        Args:
            outputs: Of the policy, [..., E].
            mask: Valid choices, bool [..., logits]; None: all.
        """
        logits, reals = self._apart(outputs, mask)
        best = [_one_hot(logits[..., entry].argmax(-1), n) for entry, n in self._choices]
        return torch.cat((*best, torch.tanh(reals)), -1)

    def sample(self, outputs: Tensor, noise: Tensor, mask: Tensor | None = None) -> Tensor:
        """The vector of a sampled action, [..., E], with gradients; see the first lines.

        Args:
            outputs, mask: As in `mode`.
            noise: Of `draw`, [..., E]; that of reals is not used.
        """
        logits, reals = self._apart(outputs, mask)
        scores = logits - _positive(noise[..., : self._parts.num_logits]).log()
        sampled = []
        for entry, n in self._choices:
            soft = torch.softmax(scores[..., entry] / self._temperature, -1)
            sampled.append(_one_hot(scores[..., entry].argmax(-1), n) + (soft - soft.detach()))
        return torch.cat((*sampled, torch.tanh(reals)), -1)

    def explored(
        self,
        outputs: Tensor,
        noise: Tensor,
        is_uniform: Tensor,
        epsilon: float,
        deviation: float,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The vector of an action to explore with, [..., E].

        Args:
            outputs, noise, mask: As in `sample`.
            is_uniform: Whether all valid actions are equally likely, a bool scalar.
            epsilon: Otherwise the probability with which a choice is any valid one.
            deviation: Otherwise the standard deviation of the normal noise on reals.
        """
        split = self._parts.num_logits
        share = torch.where(is_uniform, 1.0, epsilon)
        sampled = self.sample(self._mixed(outputs, share, mask), noise, mask)
        of_reals = noise[..., split:]
        noisy = (torch.tanh(outputs[..., split:]) + deviation * of_reals).clamp(-1.0, 1.0)
        reals = torch.where(is_uniform, uniform_of(of_reals), noisy)
        return torch.cat((sampled[..., :split], reals), -1)

    def _mixed(self, outputs: Tensor, share: Tensor, mask: Tensor | None) -> Tensor:
        """Outputs whose choices have the policy's probabilities, of which a share is uniform."""
        logits, reals = self._apart(outputs, mask)
        mixed = []
        for entry, _ in self._choices:
            own = logits[..., entry]
            is_valid = torch.ones_like(own) if mask is None else mask[..., entry].to(own.dtype)
            uniform = is_valid / is_valid.sum(-1, keepdim=True).clamp(min=1.0)
            probability = (1 - share) * torch.softmax(own, -1) + share * uniform
            mixed.append(_positive(probability).log())
        return torch.cat((*mixed, reals), -1)

    @property
    def _choices(self) -> list[tuple[slice, int]]:
        return list(zip(self._entries, self._parts.nvec, strict=True))

    def _apart(self, outputs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The logits of all choices, and what becomes reals."""
        split = self._parts.num_logits
        logits, reals = outputs[..., :split], outputs[..., split:]
        return (logits if mask is None else logits.where(mask, MASKED_LOGIT)), reals


class RelaxedTeam:
    """Actions of all agents as vectors, by policy: lists in the order of the team's policies.

    Args:
        view: Of the team.
        temperature: See `RelaxedActions`.

    Attributes:
        of_policies: The actions of an agent of each policy.
        has_choices: Whether any of them are discrete.
        has_reals: Whether any of them are not.
    """

    def __init__(self, view: TeamView, temperature: float) -> None:
        self._view, self._policies = view, view.team.policies
        parts = [parts_of(policy.action) for policy in self._policies]
        self.of_policies = [RelaxedActions(part, temperature) for part in parts]
        self.has_choices = any(part.nvec for part in parts)
        self.has_reals = any(part.num_reals for part in parts)
        self._sizes = [
            len(policy.agents) * own.size
            for policy, own in zip(self._policies, self.of_policies, strict=True)
        ]

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
        """Noise for the actions of all agents, float32 [*shape, sum of their E]."""
        drawn = [
            own.draw(generator, (*shape, len(policy.agents))).flatten(-2)
            for policy, own in zip(self._policies, self.of_policies, strict=True)
        ]
        return torch.cat(drawn, -1)

    def apart(self, noise: Tensor) -> list[Tensor]:
        """Noise of `draw` [N, sum of all E] by policy, [N, agents, E] each."""
        firsts = itertools.accumulate(self._sizes, initial=0)
        own = [noise[:, first:end] for first, end in itertools.pairwise(firsts)]
        return [
            part.reshape(-1, len(policy.agents), size // len(policy.agents))
            for part, policy, size in zip(own, self._policies, self._sizes, strict=True)
        ]

    def taken(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        """The vectors of the field `action`, [N, agents, E] each; zeros of whoever is not there."""
        present, vectors = self._view.present(values), []
        for policy, relaxed in zip(self._policies, self.of_policies, strict=True):
            vector = relaxed.vector_of(self._view.actions(values["action"], policy))
            vectors.append(vector * of_agents(present, policy).unsqueeze(-1))
        return vectors

    def joint_action(self, vectors: list[Tensor]) -> Tensor:
        """The field `action`, [N, ...], from vectors [N, agents, E] of each policy."""
        by_policy = zip(self._policies, self.of_policies, vectors, strict=True)
        chosen = {policy.name: own.action_of(vector) for policy, own, vector in by_policy}
        return self._view.joint_action(chosen)


def _one_hot(chosen: Tensor, count: int) -> Tensor:
    """[...] -> float32 [..., count]."""
    choices = torch.arange(count, device=chosen.device)
    return (chosen.to(torch.int64).unsqueeze(-1) == choices).to(torch.float32)


def _positive(values: Tensor) -> Tensor:
    """Values whose logarithm is finite."""
    return values.clamp(min=torch.finfo(values.dtype).tiny)
