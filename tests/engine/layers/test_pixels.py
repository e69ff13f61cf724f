"""Bytes into convolutions: the same sums as of scaled floats, in another order in memory."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from engine.algorithms.networks import PolicyValueNetwork
from engine.layers.pixels import PatchConv2d, fits_patches
from engine.spec import NetworkSpec

HALF = NetworkSpec(name="nature_cnn", precision="bfloat16")
STACK = (4, 84, 84)


def images(num: int, shape: tuple[int, ...] = STACK) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num, *shape), dtype=torch.uint8, generator=generator)


def network(shape: tuple[int, ...] = STACK, spec: NetworkSpec = HALF) -> PolicyValueNetwork:
    torch.manual_seed(0)
    space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
    return PolicyValueNetwork(space, gymnasium.spaces.Discrete(3), spec)


@pytest.mark.parametrize(("kernel", "shape"), [(8, STACK), (4, (1, 12, 20)), (8, (3, 96, 64))])
def test_bytes_give_what_their_255ths_do(kernel: int, shape: tuple[int, ...]):
    torch.manual_seed(0)
    layer = PatchConv2d(shape[0], 6, kernel, 4)
    pixels = images(5, shape)
    weight, bias = layer.weight.double(), layer.bias.double()
    exact = torch.nn.functional.conv2d(pixels.double() / 255, weight, bias, 4)
    terms = torch.nn.functional.conv2d(pixels.double() / 255, weight.abs(), bias.abs(), 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(pixels)
    assert found.dtype == torch.bfloat16
    assert (found.double() - exact).abs().le(3 * 2**-9 * terms).all(), "weights are rounded twice"


def test_floats_are_taken_as_by_any_convolution():
    torch.manual_seed(0)
    layer = PatchConv2d(4, 6, 8, 4)
    pixels = torch.rand(2, *STACK)
    wanted = torch.nn.functional.conv2d(pixels, layer.weight, layer.bias, 4)
    assert torch.equal(layer(pixels), wanted)


def test_gradients_are_as_close_to_those_of_float32_as_without_bytes(monkeypatch):
    def gradients(net: PolicyValueNetwork) -> dict[str, torch.Tensor]:
        net.values(pixels).square().mean().backward()
        named = {name.replace(".inner", ""): p.grad for name, p in net.named_parameters()}
        return {name: grad for name, grad in named.items() if grad is not None and grad.any()}

    pixels = images(64)
    exact, found = gradients(network(spec=NetworkSpec(name="nature_cnn"))), gradients(network())
    monkeypatch.setattr("engine.algorithms.observation_input.takes_bytes", lambda *_: False)
    scaled = gradients(network())
    assert exact.keys() == found.keys() == scaled.keys(), "checkpoints fit"
    for name, wanted in exact.items():
        allowed = 1.5 * (scaled[name] - wanted).norm() + 0.005 * wanted.norm()
        assert (found[name] - wanted).norm() < allowed, name


@pytest.mark.parametrize(
    ("shape", "spec", "is_passed"),
    [
        (STACK, HALF, True),
        (STACK, NetworkSpec(name="nature_cnn"), False),
        ((84, 84, 3), HALF, False),
        ((4, 84, 86), HALF, False),
        (STACK, NetworkSpec(name="impala_cnn", precision="bfloat16"), False),
        (STACK, NetworkSpec(precision="bfloat16", normalize_observation=True), False),
    ],
)
def test_bytes_are_passed_where_the_trunk_takes_them(shape, spec, is_passed):
    net, pixels = network(shape, spec), images(2, shape)
    passed = net.input(pixels)
    assert (passed.dtype == torch.uint8) == is_passed
    assert torch.isfinite(net.values(pixels)).all()


def test_only_images_whose_sides_are_fourfold_fit():
    assert fits_patches(STACK)
    assert not fits_patches((4, 84, 85))
    assert not fits_patches((84,))


def test_a_slice_of_a_rollout_is_no_obstacle():
    rollout = images(6).view(2, 3, *STACK)
    net = network()
    with torch.no_grad():
        part = net.values(rollout[1, 1:])
        whole = net.values(rollout.flatten(0, 1))[4:]
    torch.testing.assert_close(part, whole)
