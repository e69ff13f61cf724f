"""Trunks, heads and the statistics that normalise observations."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from engine.algorithms.networks import (
    PolicyValueNetwork,
    learn_statistics,
    observation_field,
)
from engine.algorithms.observation_input import ObservationInput
from engine.algorithms.q_network import QNetwork
from engine.errors import ConfigError
from engine.layers.flat import flatten
from engine.layers.trunks import WideLinear, register_network, trunk_name
from engine.spec import NetworkSpec

ACTIONS = gymnasium.spaces.Discrete(3)


def box(shape: tuple[int, ...], dtype: type) -> gymnasium.spaces.Box:
    high = 255 if dtype is np.uint8 else 1
    return gymnasium.spaces.Box(0, high, shape, dtype)


@pytest.mark.parametrize(
    ("shape", "dtype", "name"),
    [
        ((4,), np.float32, "mlp"),
        ((2, 3), np.float32, "mlp"),
        ((4, 84, 84), np.uint8, "nature_cnn"),
        ((84, 84, 3), np.uint8, "nature_cnn"),
        ((10, 10, 4), np.bool_, "minatar_cnn"),
    ],
)
def test_the_trunk_follows_from_the_shape(shape: tuple[int, ...], dtype: type, name: str):
    assert trunk_name(shape, NetworkSpec()) == name
    network = PolicyValueNetwork(box(shape, dtype), ACTIONS, NetworkSpec())
    observation = torch.from_numpy(np.ones((5, *shape), dtype))
    policy, value = network.evaluate(observation)
    assert policy.entropy().shape == value.shape == (5,)
    torch.testing.assert_close(value, network.values(observation))


def test_the_deep_residual_network_has_the_papers_size():
    network = PolicyValueNetwork(
        box((4, 84, 84), np.uint8), ACTIONS, NetworkSpec(name="impala_cnn")
    )
    assert network.policy_head.in_features == 256
    assert len([m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]) == 15


def test_bytes_are_scaled_inside_the_network():
    scaled = ObservationInput((2,), "uint8", False)(torch.tensor([[0, 255]], dtype=torch.uint8))
    assert scaled.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("num_rows", [1, 3, 4, 8, 33])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_wide_layer_gives_the_same_with_and_without_gradients(num_rows: int, precision: str):
    torch.manual_seed(0)
    layer = WideLinear(300, 70)
    x = torch.randn(num_rows, 300)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        wanted = layer(x)
        with torch.no_grad():
            found = layer(x)
    assert found.shape == wanted.shape == (num_rows, 70)
    assert found.dtype == wanted.dtype == getattr(torch, precision)
    atol = 1e-5 if precision == "float32" else 0.02
    torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=atol)


def test_only_layers_too_large_for_a_core_s_cache_are_wide():
    spaces = [box((4, 84, 84), np.uint8), box((4, 10, 10), np.uint8)]
    found = [PolicyValueNetwork(space, ACTIONS, NetworkSpec()) for space in spaces]
    wide = [[m for m in net.modules() if isinstance(m, WideLinear)] for net in found]
    assert [len(layers) for layers in wide] == [1, 0]


def test_an_unknown_trunk_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown network 'nature'") as error:
        PolicyValueNetwork(box((4, 84, 84), np.uint8), ACTIONS, NetworkSpec(name="nature"))
    assert error.value.where == "network.name"


def test_an_observation_without_axes_is_a_vector_of_one():
    network = PolicyValueNetwork(box((), np.float32), ACTIONS, NetworkSpec())
    assert network.values(torch.zeros(5)).shape == (5,)


@pytest.mark.parametrize("shape", [(4,), (10, 10, 4)])
def test_a_network_that_cannot_take_the_observations_says_so(shape: tuple[int, ...]):
    with pytest.raises(ConfigError) as error:
        PolicyValueNetwork(box(shape, np.float32), ACTIONS, NetworkSpec(name="nature_cnn"))
    assert error.value.where == "network.name"


def test_a_registered_name_cannot_be_taken_again():
    with pytest.raises(ConfigError, match="exists already"):
        register_network("mlp", lambda _shape, _spec: torch.nn.Flatten())


def test_running_statistics_are_those_of_all_observations_together():
    space = box((3,), np.float32)
    network = PolicyValueNetwork(space, ACTIONS, NetworkSpec(normalize_observation=True))
    weights = flatten(network)
    random = np.random.default_rng(0)
    parts = [random.normal(3.0, 2.0, (n, 3)) for n in (1, 7, 100)]
    for part in parts:
        network.input.learn(torch.from_numpy(part.astype(np.float32)))
    everything = np.concatenate(parts)
    np.testing.assert_allclose(network.input.statistics.mean.numpy(), everything.mean(0), atol=1e-5)
    np.testing.assert_allclose(
        network.input.statistics.variance.numpy(), everything.var(0), atol=1e-4
    )
    normalized = network.input(torch.from_numpy(everything.astype(np.float32))).numpy()
    wanted = (everything - everything.mean(0)) / everything.std(0)
    np.testing.assert_allclose(normalized, wanted, atol=1e-3)
    assert weights.vector.detach()[:3].tolist() == network.input.statistics.mean.tolist()


@pytest.mark.parametrize(("limit", "seen"), [(10.0, 10.0), (2.5, 2.5), (None, 1e4)])
def test_normalised_observations_are_clipped(limit: float | None, seen: float):
    spec = NetworkSpec(normalize_observation=True, observation_limit=limit)
    network = PolicyValueNetwork(box((3,), np.float32), ACTIONS, spec)
    far = torch.tensor([[-1e4, 1.0, 1e4]])
    torch.testing.assert_close(network.input(far), torch.tensor([[-seen, 1.0, seen]]))
    leaves = gymnasium.spaces.Dict({"far": box((3,), np.float32), "near": box((1,), np.float32)})
    inputs = PolicyValueNetwork(leaves, ACTIONS, spec).input
    found = inputs({"far": far, "near": torch.zeros(1, 1)})[0]
    torch.testing.assert_close(found, torch.tensor([[-seen, 1.0, seen]]))


def gain(layer: torch.nn.Module) -> float:
    """Of an orthogonal layer, whose biases are zero."""
    assert isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    assert not layer.bias.any()
    weight = layer.weight.detach().flatten(1)
    square = weight @ weight.t() if len(weight) <= weight.shape[1] else weight.t() @ weight
    wanted = torch.eye(len(square)) * square.diagonal().mean()
    torch.testing.assert_close(square, wanted, atol=1e-5, rtol=0)
    return float(square.diagonal().mean().sqrt())


def layers_of(network: torch.nn.Module) -> list[torch.nn.Module]:
    kinds = torch.nn.Linear | torch.nn.Conv2d
    return [layer for layer in network.modules() if isinstance(layer, kinds)]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("mlp", (4,)), ("minatar_cnn", (10, 10, 4))),
        *(("nature_cnn", (4, 36, 36)), ("impala_cnn", (4, 36, 36))),
    ],
)
def test_initial_weights_have_the_gains_that_are_asked_for(name: str, shape: tuple[int, ...]):
    for spec, gains in (
        (NetworkSpec(name=name), (2**0.5, 0.01, 1.0)),
        (NetworkSpec(name=name, hidden_gain=0.5, policy_gain=2, value_gain=3), (0.5, 2, 3)),
    ):
        network = PolicyValueNetwork(box(shape, np.float32), ACTIONS, spec)
        hidden, policy, value = gains
        assert gain(network.policy_head) == pytest.approx(policy, rel=1e-4)
        assert gain(network.value_head) == pytest.approx(value, rel=1e-4)
        for layer in layers_of(network):
            if layer not in (network.policy_head, network.value_head):
                assert gain(layer) == pytest.approx(hidden, rel=1e-4)
        for dueling in (False, True):
            of_values = QNetwork(box(shape, np.float32), 3, spec, dueling)
            assert gain(of_values.advantage) == pytest.approx(value, rel=1e-4)


def test_uniform_is_what_pytorch_does_by_itself():
    torch.manual_seed(3)
    spec = NetworkSpec(hidden_sizes=(5,), initialization="uniform", policy_gain=7.0)
    network = PolicyValueNetwork(box((4,), np.float32), ACTIONS, spec)
    torch.manual_seed(3)
    for layer in layers_of(network):
        assert isinstance(layer, torch.nn.Linear)
        own = torch.nn.Linear(layer.in_features, layer.out_features)
        assert torch.equal(layer.weight, own.weight)
        assert torch.equal(layer.bias, own.bias)


def test_no_gradient_and_no_optimiser_step_reaches_the_statistics():
    from engine.algorithms.optimizer import AdamState, adam_step

    space = box((3,), np.float32)
    network = PolicyValueNetwork(space, ACTIONS, NetworkSpec(normalize_observation=True))
    weights = flatten(network)
    network.input.learn(torch.randn(50, 3))
    before = network.input.statistics.mean.clone()
    network.values(torch.randn(4, 3)).sum().backward()
    adam_step(weights, AdamState.zeros(weights), learning_rate=0.1, epsilon=1e-5)
    assert torch.equal(network.input.statistics.mean, before)


def test_double_precision_is_not_kept_in_rollouts():
    assert observation_field(box((3,), np.float64)).dtype == "float32"
    assert observation_field(box((3,), np.bool_)).dtype == "bool"


def test_rewards_are_scaled_by_the_deviation_of_raw_returns():
    space = box((3,), np.float32)
    network = PolicyValueNetwork(space, ACTIONS, NetworkSpec(), normalizes_reward=True)
    assert network.reward_scale.item() == pytest.approx(1.0)
    random = np.random.default_rng(0)
    raw = random.normal(-3.0, 40.0, (5, 100)).astype(np.float32)
    batch = {
        "observation": torch.zeros(6, 100, 3),
        "valid": torch.from_numpy(random.random((5, 100)) < 0.9),
    }
    for rows in (raw, raw):  # the second time, targets come in scaled units
        learn_statistics(network, batch, torch.from_numpy(rows) * network.reward_scale)
    deviation = raw[batch["valid"].numpy()].std()
    assert 1 / network.reward_scale.item() == pytest.approx(deviation, rel=1e-4)


def test_half_precision_is_close_and_keeps_float32_parameters():
    space = box((4, 84, 84), np.uint8)
    torch.manual_seed(0)
    full = PolicyValueNetwork(space, ACTIONS, NetworkSpec())
    torch.manual_seed(0)
    half = PolicyValueNetwork(space, ACTIONS, NetworkSpec(precision="bfloat16"))
    flatten(half)  # refuses anything but float32
    observation = torch.randint(0, 255, (3, 4, 84, 84), dtype=torch.uint8)
    value = half.values(observation)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, full.values(observation), rtol=0.05, atol=0.05)
    value.sum().backward()
    assert half.policy_trunk.inner[1][0].weight.grad.abs().sum() > 0
