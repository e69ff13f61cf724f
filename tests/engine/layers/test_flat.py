"""A network's parameters and gradients as one vector each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.layers.flat import flatten


def make_network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def test_flattening_keeps_every_value_in_the_order_of_the_parameters():
    network = make_network()
    before = torch.cat([p.detach().reshape(-1).clone() for p in network.parameters()])
    flat = flatten(network)
    assert torch.equal(flat.vector.detach(), before)
    assert flat.num_bytes == 4 * (3 * 4 + 4 + 4 * 2 + 2)


def test_what_is_loaded_into_the_vector_is_what_the_network_computes_with():
    network, other = make_network(), make_network()
    flat, source = flatten(network), flatten(other)
    with torch.no_grad():
        other[0].weight.mul_(3.0)
    flat.load(source.vector.detach())
    observation = torch.ones(5, 3)
    assert torch.equal(network(observation), other(observation))
    assert torch.equal(network[0].weight, other[0].weight)


def test_backward_fills_the_flat_gradient():
    network, twin = make_network(), make_network()
    flat = flatten(network)
    observation = torch.arange(6.0).view(2, 3)
    for module in (network, twin):
        module(observation).square().sum().backward()
    wanted = torch.cat([p.grad.reshape(-1) for p in twin.parameters() if p.grad is not None])
    assert torch.equal(flat.gradient, wanted)
    flat.gradient.zero_()
    assert all(not p.grad.any() for p in network.parameters() if p.grad is not None)


def test_the_digest_tells_layouts_apart_and_values_not():
    digest = flatten(make_network()).digest
    with torch.no_grad():
        changed = make_network()
        changed[0].bias.add_(1.0)
    assert flatten(changed).digest == digest
    assert flatten(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))).digest != digest
    assert 0 <= digest < 2**64


def test_other_element_types_are_refused_by_name():
    network = make_network()
    network[2].double()
    with pytest.raises(ValueError, match=r"2\.weight"):
        flatten(network)
