"""Adam and clipping on the flat vector against PyTorch's own on separate tensors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from engine.algorithms.optimizer import AdamState, adam_step, clip_gradient_norm
from engine.layers.flat import MAX_NOTED, FlatParameters, flatten


def make_twins() -> tuple[nn.Module, FlatParameters, nn.Module]:
    """A flattened network, its vector, and the same network as it was."""
    torch.manual_seed(2)
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    twin = copy.deepcopy(network)
    return network, flatten(network), twin


def backward(network: nn.Module, step: int) -> None:
    observation = torch.randn(11, 5, generator=torch.Generator().manual_seed(step))
    network(observation).pow(2).mean().mul(10.0).backward()


def joined(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def test_twenty_steps_are_those_of_torch():
    network, weights, twin = make_twins()
    state = AdamState.zeros(weights)
    reference = torch.optim.Adam(twin.parameters(), lr=1e-2, eps=1e-5)
    for step in range(20):
        weights.gradient.zero_()
        reference.zero_grad()
        backward(network, step)
        backward(twin, step)
        adam_step(weights, state, learning_rate=1e-2, epsilon=1e-5)
        reference.step()
        torch.testing.assert_close(weights.vector.detach(), joined(twin), rtol=1e-5, atol=1e-6)
    assert state.num_steps.item() == 20
    assert torch.equal(joined(network), weights.vector.detach())


@pytest.mark.parametrize("max_norm", [1e-3, 0.5, 1e6])
def test_clipping_is_that_of_torch(max_norm: float):
    network, weights, twin = make_twins()
    backward(network, 0)
    backward(twin, 0)
    wanted = nn.utils.clip_grad_norm_(twin.parameters(), max_norm)
    norm = clip_gradient_norm(weights, max_norm)
    torch.testing.assert_close(norm, wanted, rtol=1e-6, atol=0.0)
    gradient = torch.cat([p.grad.reshape(-1) for p in twin.parameters() if p.grad is not None])
    torch.testing.assert_close(weights.gradient, gradient, rtol=1e-5, atol=1e-9)


def test_a_gradient_of_zero_stays_zero():
    _, weights, _ = make_twins()
    assert clip_gradient_norm(weights, 0.5).item() == 0.0
    assert not weights.gradient.any()


def test_a_checkpoint_sees_the_tensors_that_the_step_moves():
    network, weights, _ = make_twins()
    state = AdamState.zeros(weights)
    backward(network, 0)
    adam_step(weights, state, learning_rate=1e-2, epsilon=1e-5)
    tensors = state.named_tensors()
    assert set(tensors) == {"mean", "variance", "num_steps"}
    assert all(tensor.any() for tensor in tensors.values())


def test_the_mean_norm_before_clipping_of_the_steps_taken_is_counted():
    network, weights, _ = make_twins()
    state = AdamState.zeros(weights)
    norms = []
    for step, spoils in enumerate((False, True, False)):
        weights.gradient.zero_()
        backward(network, step)
        if spoils:
            weights.gradient[0] = torch.inf
        norm = clip_gradient_norm(weights, 0.1)
        if not spoils:
            norms.append(norm.item())
        adam_step(weights, state, learning_rate=0.01 * (step + 1), epsilon=1e-5, norm=norm)
    assert weights.steps.count() == (3, 1)
    told = weights.steps.metrics
    assert told == pytest.approx({"gradient_norm": sum(norms) / 2, "learning_rate": 0.03})
    assert weights.steps.count() == (0, 0)
    assert weights.steps.metrics == {}, "an update without a step has neither"


def test_a_step_along_a_gradient_of_zero_is_a_step():
    _, weights, _ = make_twins()
    adam_step(weights, AdamState.zeros(weights), learning_rate=0.1, epsilon=1e-5)
    assert weights.steps.count() == (1, 0)
    assert weights.steps.metrics["gradient_norm"] == pytest.approx(0.0, abs=1e-20)


def test_steps_that_were_taken_in_one_call_are_counted_one_by_one():
    _, weights, _ = make_twins()
    weights.steps.note(torch.tensor([3.0, 0.0, 5.0, torch.inf]), 0.1)
    weights.steps.note(torch.tensor(1.0), 0.2)
    assert weights.steps.count() == (5, 2)
    assert weights.steps.metrics == {"gradient_norm": 3.0, "learning_rate": 0.2}


def test_more_steps_than_are_kept_are_counted_all():
    _, weights, _ = make_twins()
    for number in range(2 * MAX_NOTED + 5):
        weights.steps.note(torch.tensor(1.0 if number % 2 else 3.0), 0.1)
    assert weights.steps.count() == (2 * MAX_NOTED + 5, 0)
    assert weights.steps.metrics["gradient_norm"] == pytest.approx(2.0, abs=1e-3)
