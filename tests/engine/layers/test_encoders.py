"""Encoders are chosen by the kind of a leaf, and make features of every kind of value."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from engine.algorithms.networks import PolicyValueNetwork, learn_statistics
from engine.algorithms.observation_input import CountedInput, build_input
from engine.errors import ConfigError
from engine.layers.encoders import Embedding, OneHot, build_features, encoded_leaves
from engine.layers.inputs import Observation, map_leaves
from engine.spaces.leaves import leaf_values
from engine.spaces.observations import observation_leaves, stored_dtype
from engine.spec import CoreSpec, EncoderSpec, NetworkSpec

ACTIONS = spaces.Discrete(3)
EVERYTHING = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (40, 40, 3), np.uint8),
        "grid": spaces.Box(0, 1, (10, 10, 4), np.bool_),
        "speed": spaces.Box(-np.inf, np.inf, (2,), np.float64),
        "clock": spaces.Box(0, np.inf, ()),
        "counts": spaces.Box(-9, 9, (2, 3), np.int16),
        "gear": spaces.Discrete(6, start=-1),
        "word": spaces.Discrete(1000),
        "dials": spaces.MultiDiscrete([3, 5], start=[1, 0]),
        "lights": spaces.Tuple((spaces.MultiBinary(4), spaces.MultiBinary((2, 2)))),
    }
)


def observations(space: gymnasium.Space[object], num: int, seed: int = 0) -> Observation:
    """Values of all leaves as a learner gets them, [num, ...]."""
    space.seed(seed)
    samples = [leaf_values(space, space.sample()) for _ in range(num)]
    leaves = observation_leaves(space)
    found = {
        name.removeprefix("observation."): torch.from_numpy(
            np.stack([np.asarray(values[i]) for values in samples]).astype(stored_dtype(leaf.space))
        )
        for i, (name, leaf) in enumerate(leaves.items())
    }
    return found["observation"] if len(found) == 1 else found


def test_each_kind_has_its_encoder():
    encoders = {leaf.name: leaf.encoder for leaf in encoded_leaves(EVERYTHING, NetworkSpec())}
    assert encoders == {
        "camera": "nature_cnn",
        "grid": "minatar_cnn",
        "speed": "mlp",
        "clock": "mlp",
        "counts": "mlp",
        "gear": "one_hot",
        "word": "embedding",
        "dials": "one_hot",
        "lights.0": "mlp",
        "lights.1": "mlp",
    }


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    "space",
    [
        EVERYTHING,
        spaces.Discrete(4, start=2),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary(3),
        spaces.Box(-1, 1, ()),
        spaces.Tuple((spaces.Box(-1, 1, (3,)),)),
    ],
    ids=["everything", "discrete", "several", "binary", "one number", "one leaf"],
)
def test_every_kind_of_observation_is_valued_and_has_gradients(
    space: gymnasium.Space[object], normalize: bool
):
    spec = NetworkSpec(hidden_sizes=(8,), normalize_observation=normalize)
    network = PolicyValueNetwork(space, ACTIONS, spec)
    given = observations(space, 5)
    policy, value = network.evaluate(given)
    assert value.shape == policy.entropy().shape == (5,)
    torch.testing.assert_close(value, network.values(given))
    (value.sum() + policy.entropy().sum()).backward()
    unused = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []


def test_values_depend_on_every_leaf():
    network = PolicyValueNetwork(EVERYTHING, ACTIONS, NetworkSpec(hidden_sizes=(8,)))
    one, other = observations(EVERYTHING, 4, seed=1), observations(EVERYTHING, 4, seed=2)
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    before = network.values(one)
    for name in one:
        changed = {**one, name: other[name]}
        assert not torch.equal(network.values(changed), before), name


def test_one_hot_and_counted_values():
    space = spaces.MultiDiscrete([3, 5], start=[1, 0])
    values = torch.tensor([[1, 4], [3, 0]])
    counted = CountedInput(space)(values)
    assert counted.tolist() == [[0, 4], [2, 0]]
    assert OneHot([3, 5])(counted).tolist() == [[1, 0, 0, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0, 0, 0]]
    equal = OneHot([2, 2])(torch.tensor([[0, 1]]))
    assert equal.tolist() == [[1, 0, 0, 1]]
    assert CountedInput(spaces.Discrete(3, start=5))(torch.tensor([5, 7])).tolist() == [[0], [2]]


def test_an_embedding_is_a_row_for_each_choice_of_each_entry():
    layer = Embedding([3, 2], 4)
    found = layer(torch.tensor([[2, 1], [0, 0]]))
    wanted = torch.stack(
        [
            torch.cat([layer.weight[2], layer.weight[4]]),
            torch.cat([layer.weight[0], layer.weight[3]]),
        ]
    )
    torch.testing.assert_close(found, wanted)


def test_the_experiment_chooses_encoders():
    spec = NetworkSpec(
        encoders={
            "gear": EncoderSpec(name="embedding", size=5),
            "speed": EncoderSpec(name="flatten"),
            "counts": EncoderSpec(hidden_sizes=(7, 3)),
        }
    )
    trunk, _ = build_features(EVERYTHING, spec)
    sizes = dict(
        zip(
            [leaf.name for leaf in encoded_leaves(EVERYTHING, spec)],
            [
                encoder(values).shape[1]
                for encoder, values in zip(
                    trunk.encoders,  # type: ignore[arg-type]
                    build_input(EVERYTHING, spec)(observations(EVERYTHING, 2)),
                    strict=True,
                )
            ],
            strict=True,
        )
    )
    assert (sizes["gear"], sizes["speed"], sizes["counts"], sizes["word"]) == (5, 2, 3, 16)


@pytest.mark.parametrize(
    ("space", "spec", "where"),
    [
        (EVERYTHING, {"encoders": {"ger": EncoderSpec()}}, "network.encoders.ger"),
        (EVERYTHING, {"encoders": {"gear": EncoderSpec(name="mlp")}}, "network.encoders.gear.name"),
        (
            EVERYTHING,
            {"encoders": {"speed": EncoderSpec(name="one_hot")}},
            "network.encoders.speed.name",
        ),
        (
            EVERYTHING,
            {"encoders": {"gear": EncoderSpec(normalize=True)}},
            "network.encoders.gear.normalize",
        ),
        (EVERYTHING, {"name": "nature_cnn"}, "network.name"),
        (
            spaces.Box(-1, 1, (3,)),
            {"encoders": {"observation": EncoderSpec()}},
            "network.encoders",
        ),
        (spaces.Dict({"a": spaces.Text(3)}), {}, "env.id"),
    ],
)
def test_what_cannot_be_is_refused(
    space: gymnasium.Space[object], spec: dict[str, object], where: str
):
    with pytest.raises(ConfigError) as error:
        PolicyValueNetwork(space, ACTIONS, NetworkSpec(**spec))  # type: ignore[arg-type]
    assert error.value.where == where


def test_boxes_are_normalised_each_by_itself_where_asked():
    space = spaces.Dict(
        {
            "large": spaces.Box(-np.inf, np.inf, (2,)),
            "small": spaces.Box(-np.inf, np.inf, ()),
            "raw": spaces.Box(-np.inf, np.inf, (1,)),
            "gear": spaces.Discrete(3),
        }
    )
    spec = NetworkSpec(normalize_observation=True, encoders={"raw": EncoderSpec(normalize=False)})
    network = PolicyValueNetwork(space, ACTIONS, spec)
    generator = torch.Generator().manual_seed(0)
    batch: dict[str, Tensor] = {
        "observation.large": 1000 + 50 * torch.randn(21, 4, 2, generator=generator),
        "observation.small": 0.01 * torch.randn(21, 4, generator=generator),
        "observation.raw": 7 + torch.randn(21, 4, 1, generator=generator),
        "observation.gear": torch.zeros(21, 4, dtype=torch.int64),
        "valid": torch.ones(20, 4, dtype=torch.bool),
    }
    learn_statistics(network, batch, torch.zeros(20, 4))
    seen = {name[12:]: values[:-1].flatten(0, 1) for name, values in batch.items() if "." in name}
    raw, small, large, gear = (
        dict(zip(space.spaces, network.input(seen), strict=True))[name]
        for name in ("raw", "small", "large", "gear")
    )
    assert isinstance(large, Tensor)
    for values in (large, small):
        torch.testing.assert_close(values.mean(0), torch.zeros_like(values[0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            values.std(0, correction=0), torch.ones_like(values[0]), atol=1e-2, rtol=0
        )
    assert torch.equal(raw, seen["raw"])
    assert torch.equal(gear, torch.zeros(80, 1, dtype=torch.int64))
    assert map_leaves(lambda leaf: leaf[:1], seen)["large"].shape == (1, 2)  # type: ignore[call-overload,index]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64])
def test_whole_numbers_of_every_width_are_encoded(dtype: type):
    space = spaces.MultiDiscrete([100, 100], dtype=dtype)
    network = PolicyValueNetwork(space, ACTIONS, NetworkSpec())
    values = torch.from_numpy(np.array([[0, 99], [7, 8]], dtype))
    assert network.values(values).shape == (2,)


def test_a_share_without_rows_is_encoded():
    network = PolicyValueNetwork(
        EVERYTHING, ACTIONS, NetworkSpec(core=CoreSpec(name="gru", size=4))
    )
    given = map_leaves(lambda leaf: leaf[:0].unsqueeze(0), observations(EVERYTHING, 1))
    policy, value = network.unroll(given, torch.zeros(0, 4), torch.zeros(1, 0))
    assert value.shape == policy.entropy().shape == (0,)


@pytest.mark.parametrize(
    ("space", "spec", "where"),
    [
        (spaces.Discrete(10**9), None, "network.encoders.observation"),
        (
            spaces.Dict({"a": spaces.Box(0, 1, (20, 20, 3))}),
            "nature_cnn",
            "network.encoders.a.name",
        ),
        (spaces.Dict({"a": spaces.Box(0, 1, (4,))}), "impala_cnn", "network.name"),
    ],
)
def test_what_cannot_be_encoded_names_its_leaf(
    space: gymnasium.Space[object], spec: str | None, where: str
):
    several = space
    if isinstance(space, spaces.Dict):
        several = spaces.Dict({**space.spaces, "b": spaces.Discrete(2)})
        where = where.replace("network.name", "network.encoders.a.name")
    encoders = {"a": EncoderSpec(name=spec)} if spec else {}
    with pytest.raises(ConfigError) as error:
        PolicyValueNetwork(several, ACTIONS, NetworkSpec(encoders=encoders))
    assert error.value.where == where


def test_an_image_too_small_for_convolutions_is_a_vector():
    space = spaces.Dict({"a": spaces.Box(0, 1, (2, 2, 3)), "b": spaces.Discrete(2)})
    assert encoded_leaves(space, NetworkSpec())[0].encoder == "mlp"
