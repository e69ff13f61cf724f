"""Actions as vectors: what is sampled, what has gradients, and the way back."""

from __future__ import annotations

import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from engine.algorithms.teams.relaxed_actions import RelaxedActions
from engine.spaces.action_parts import action_field, parts_of
from engine.spaces.leaves import AnySpace

BOTH = Dict(grip=Discrete(3), reach=Box(-1, 1, (2,)), gear=Discrete(2))
SPACES = [Discrete(4), MultiDiscrete([3, 2]), Box(-1, 1, (2,)), BOTH]
MANY = 4000


def drawn(of: RelaxedActions, *shape: int) -> torch.Tensor:
    return of.draw(torch.Generator().manual_seed(0), shape)


@pytest.mark.parametrize("space", SPACES, ids=["choice", "choices", "reals", "both"])
def test_vectors_and_actions_are_each_others_inverse(space: AnySpace) -> None:
    of = RelaxedActions(parts_of(space), 1.0)
    outputs = 3 * torch.randn(5, 2, of.size, generator=torch.Generator().manual_seed(1))
    vector = of.sample(outputs, drawn(of, 5, 2))
    action = of.action_of(vector)
    field = action_field(space)
    assert action.shape == (5, 2, *field.shape)
    assert str(action.dtype) == f"torch.{field.dtype}"
    assert torch.equal(of.vector_of(action), vector)


def test_choices_are_sampled_from_the_softmax_and_never_against_a_mask() -> None:
    of = RelaxedActions(parts_of(MultiDiscrete([3, 2])), 0.5)
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.0])
    mask = torch.tensor([True, False, True, True, True])
    vectors = of.sample(logits.expand(MANY, -1), drawn(of, MANY), mask.expand(MANY, -1))
    wanted = torch.cat((torch.tensor([0.0, -1.0]).softmax(0), torch.tensor([2.0, 0.0]).softmax(0)))
    found = vectors.mean(0)
    assert found[1] == 0
    torch.testing.assert_close(found[mask], wanted, atol=0.03, rtol=0)
    assert of.mode(logits, mask).tolist() == [1, 0, 0, 1, 0]


def test_the_gradient_of_a_choice_is_that_of_the_softmax() -> None:
    of = RelaxedActions(parts_of(BOTH), 0.7)
    outputs = torch.randn(6, of.size, dtype=torch.float64).requires_grad_()
    noise, weight = drawn(of, 6).double(), torch.randn(6, of.size, dtype=torch.float64)
    (found,) = torch.autograd.grad((weight * of.sample(outputs, noise)).sum(), outputs)
    parts = []
    for first, end in ((0, 3), (3, 5)):
        gumbel = -torch.log(noise[:, first:end])
        soft = torch.exp((outputs[:, first:end] + gumbel) / 0.7)
        parts.append(soft / soft.sum(-1, keepdim=True))
    soft = torch.cat((*parts, torch.tanh(outputs[:, 5:])), -1)
    (wanted,) = torch.autograd.grad((weight * soft).sum(), outputs)
    torch.testing.assert_close(found, wanted.to(found.dtype))


def test_exploration_is_uniform_at_first_and_then_near_the_policy() -> None:
    of = RelaxedActions(parts_of(BOTH), 1.0)
    outputs = torch.tensor([9.0, 0, 0, 0, 9, 0.3, -9]).expand(MANY, -1)
    noise = drawn(of, MANY)
    early = of.explored(outputs, noise, torch.tensor(True), 0.0, 0.1)
    torch.testing.assert_close(early[:, :3].mean(0), torch.full((3,), 1 / 3), atol=0.03, rtol=0)
    assert early[:, 5:].mean(0).abs().max() < 0.05
    assert early[:, 5:].var(0).tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.02)
    later = of.explored(outputs, noise, torch.tensor(False), 0.3, 0.1)
    assert later[:, :3].mean(0).tolist() == pytest.approx([0.8, 0.1, 0.1], abs=0.03)
    mask = torch.tensor([True, False, True, True, True]).expand(MANY, -1)
    masked = of.explored(outputs, noise, torch.tensor(False), 0.3, 0.1, mask)
    assert masked[:, :3].mean(0).tolist() == pytest.approx([0.85, 0.0, 0.15], abs=0.03)
    reals = (torch.tanh(outputs[:, 5:]) + 0.1 * noise[:, 5:]).clamp(-1, 1)
    assert torch.equal(later[:, 5:], reals)
    assert (later[:, 6] == -1).any()
