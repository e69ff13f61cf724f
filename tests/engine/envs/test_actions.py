"""Whatever reaches an environment is in its action space, and all of the space can be reached."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.algorithms.base import EnvSlice, Spaces
from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import PpoConfig
from engine.envs.actions.tensors import TensorRange
from engine.envs.actions.vector import RangedActions
from engine.envs.make import make_vector_env, register_environment
from engine.envs.torch_envs import TORCH_ENVIRONMENTS, TorchActions, make_torch_env
from engine.errors import ConfigError, RunFailedError
from engine.spec import EnvSpec, NetworkSpec

CPU = torch.device("cpu")
WHOLE = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
REAL = ["float16", "float32", "float64"]
PLACES = ("numpy", "torch")


class Watching(gymnasium.Env):
    """Keeps what it is given, and says whether that is in its space."""

    observation_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, space: gymnasium.Space) -> None:
        self.action_space = space
        self.seen: list[object] = []

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), (action, self.action_space)
        self.seen.append(action)
        return np.zeros(1, np.float32), 0.0, False, False, {}


def given_to(space: Box, actions: np.ndarray, place: str, scales: bool = True) -> np.ndarray:
    """What environments are given for actions [B, D]: [B, *shape], each of them contained."""
    if place == "torch":
        values = TensorRange(space, CPU, scales)(torch.from_numpy(actions)).numpy()
        assert all(space.contains(values[i, ...]) for i in range(len(values))), (values, space)
        return values
    envs = gymnasium.vector.SyncVectorEnv([lambda: Watching(space)] * len(actions))
    env = RangedActions(envs, scales)
    env.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.step(actions)
    values = np.stack([np.asarray(one.seen[0]) for one in env.unwrapped.envs])
    assert values.dtype == space.dtype
    return values


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Of every type and shape; bounds of any size, some of them missing."""
    dtype = np.dtype(draw(st.sampled_from([*WHOLE, *REAL, "bool"])))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=3))
    if dtype.kind == "b":
        elements = st.booleans()
    elif dtype.kind == "f":
        elements = st.floats(allow_nan=False, allow_infinity=False, width=8 * dtype.itemsize)
    else:
        info = np.iinfo(dtype)
        elements = st.integers(int(info.min), int(info.max))
    one, other = (draw(hnp.arrays(dtype, shape, elements=elements)) for _ in range(2))
    low, high = np.asarray(np.minimum(one, other)), np.asarray(np.maximum(one, other))
    space = Box(low, high, shape, dtype.type)
    if dtype.kind in "if" and draw(st.booleans()):
        openings = hnp.arrays(np.bool_, shape)
        space.bounded_below, space.bounded_above = (~draw(openings) for _ in range(2))
        lowest, highest = (-np.inf, np.inf) if dtype.kind == "f" else (info.min, info.max)
        space.low = np.where(space.bounded_below, low, dtype.type(lowest))
        space.high = np.where(space.bounded_above, high, dtype.type(highest))
    return space


def half_open(dtype: str, bound: int, *, above: bool) -> Box:
    space = Box(bound, bound, (), np.dtype(dtype).type)
    info = np.iinfo(dtype)
    space.bounded_below, space.bounded_above = np.array(not above), np.array(above)
    space.low = np.array(info.min if above else bound, dtype)
    space.high = np.array(bound if above else info.max, dtype)
    return space


@settings(max_examples=150, deadline=None)
@example(None, half_open("int64", -(2**63), above=True), "torch", True)
@example(None, half_open("int64", 2**63 - 1, above=False), "numpy", True)
@example(None, half_open("int64", -(2**63), above=True), "torch", False)
@example(None, half_open("int64", 2**63 - 1, above=False), "numpy", False)
@given(st.data(), boxes(), st.sampled_from(PLACES), st.booleans())
def test_what_reaches_an_environment_is_in_its_space(data, space: Box, place: str, scales: bool):
    edges = st.sampled_from([-1.0, 1.0, 0.0, 1 - 2**-24, -1 + 2**-24, 3.4e38, -3.4e38])
    numbers = st.floats(-4, 4, width=32) | edges
    size = max(1, int(np.prod(space.shape)))
    actions = np.repeat([[-9.0], [-1.0], [0.3], [1.0]], size, axis=1).astype(np.float32)
    if data is not None:
        actions = data.draw(hnp.arrays(np.float32, (4, size), elements=numbers))
    values = given_to(space, actions, place, scales)
    if not scales and space.dtype.kind == "f":
        info = np.finfo(space.dtype)  # what is beyond a type's largest is its largest
        with np.errstate(over="ignore"):
            wanted = actions.clip(info.min, info.max).astype(space.dtype).reshape(values.shape)
        np.testing.assert_array_equal(values, wanted.clip(space.low, space.high))


@settings(max_examples=60, deadline=None)
@given(boxes(), st.sampled_from(PLACES))
def test_a_random_policy_covers_the_range(space: Box, place: str):
    """Both ends are reached, and of the values between each quarter has its share."""
    size = max(1, int(np.prod(space.shape)))
    units = np.linspace(-1, 1, 65, dtype=np.float32)
    actions = np.repeat(units[:, None], size, axis=1)
    values = given_to(space, actions, place).reshape(65, size)
    is_bounded = (space.bounded_below & space.bounded_above).reshape(-1)
    for column in np.flatnonzero(is_bounded):
        low, high = (bound.reshape(-1)[column].item() for bound in (space.low, space.high))
        found = [value.item() for value in values[:, column]]
        width = high / 4 - low / 4 if isinstance(low, float) else (int(high) - int(low)) / 4
        smallest = np.finfo(space.dtype).smallest_subnormal if isinstance(low, float) else 1
        slack = 1e-3 * width + 4 * smallest
        assert found[0] == pytest.approx(low, rel=1e-5, abs=0)
        assert found[-1] == pytest.approx(high, rel=1e-5, abs=0)
        assert found == sorted(found)
        for quarter in range(1, 4):
            middle = found[16 * quarter]
            wanted = low / 4 * (4 - quarter) + high / 4 * quarter
            assert abs(middle / 4 - wanted / 4) <= slack


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", [*WHOLE, "bool"])
def test_every_whole_number_of_a_range_is_reached_equally_often(dtype: str, place: str):
    low, high = (0, 1) if dtype == "bool" else (3, 12) if dtype[0] == "u" else (-4, 5)
    space = Box(low, high, (1,), np.dtype(dtype).type)
    units = np.linspace(-1, 1, 2_000, dtype=np.float32)[:, None]
    values, counts = np.unique(given_to(space, units, place), return_counts=True)
    assert values.tolist() == list(range(low, high + 1))
    assert counts.max() - counts.min() <= 2


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_64_bits_are_reached_to_their_ends(dtype: str, place: str):
    info = np.iinfo(dtype)
    space = Box(
        np.array([info.min], dtype), np.array([info.max], dtype), dtype=np.dtype(dtype).type
    )
    values = given_to(space, np.array([[-9.0], [-1.0], [0.0], [1.0], [9.0]], np.float32), place)
    *first, middle, high, higher = [int(value) for value in values.flat]
    assert [*first, high, higher] == [int(info.min)] * 2 + [int(info.max)] * 2
    assert abs(middle - int(info.min) - 2**63) <= 2**10


@pytest.mark.parametrize("place", PLACES)
def test_int8_is_neither_inverted_nor_narrowed(place: str):
    space = Box(-100, 100, (1,), np.int8)
    units = np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]], np.float32)
    assert given_to(space, units, place).ravel().tolist() == [-100, -50, 0, 50, 100]


@pytest.mark.parametrize("place", PLACES)
def test_float32_that_is_wider_than_itself_is_finite(place: str):
    largest = float(np.finfo(np.float32).max)
    space = Box(-largest, largest, (1,), np.float32)
    units = np.array([[-1.0], [0.0], [0.5], [1.0]], np.float32)
    assert given_to(space, units, place).ravel().tolist() == [-largest, 0.0, largest / 2, largest]


@pytest.mark.parametrize("place", PLACES)
def test_an_open_entry_does_not_take_its_range_from_the_others(place: str):
    low, high = np.array([-2, -np.inf, 0, -np.inf, 1000]), np.array([2, np.inf, np.inf, 0, np.inf])
    space = Box(low.astype(np.float32), high.astype(np.float32))
    values = given_to(
        space, np.repeat([[-3.0], [-1.0], [0.5]], 5, axis=1).astype(np.float32), place
    )
    assert values.tolist() == [
        [-2, -3, 0, -4, 1000],
        [-2, -1, 0, -2, 1000],
        [1, 0.5, 1.5, -0.5, 2500],
    ]


@pytest.mark.parametrize("place", PLACES)
def test_without_scaling_an_action_is_what_was_chosen_within_the_bounds(place: str):
    low = np.array([-2, -np.inf, 0, 5, -2], np.float32)
    high = np.array([2, np.inf, np.inf, 6, -1], np.float32)
    actions = np.repeat([[-3.0], [-1.5], [0.25], [5.5]], 5, axis=1).astype(np.float32)
    values = given_to(Box(low, high), actions, place, scales=False)
    assert values.tolist() == [
        [-2, -3, 0, 5, -2],
        [-1.5, -1.5, 0, 5, -1.5],
        [0.25, 0.25, 0.25, 5, -1],
        [2, 5.5, 5.5, 5.5, -1],
    ]
    whole = given_to(Box(-2, 3, (1,), np.int8), actions[:, :1], place, scales=False)
    assert whole.ravel().tolist() == [-2, -1, 0, 3], "the nearest"
    far = given_to(Box(1000, 1003, (1,), np.int64), 1000 + actions[:, :1], place, scales=False)
    assert far.ravel().tolist() == [1000, 1000, 1000, 1003]


@pytest.mark.parametrize("place", PLACES)
def test_bounded_float32_is_what_it_was(place: str):
    """To the bit: middle + half range * clipped, in float32."""
    rng = np.random.default_rng(0)
    low = rng.normal(size=7).astype(np.float32)
    high = low + rng.uniform(0.1, 5, 7).astype(np.float32)
    actions = rng.normal(size=(50, 7)).astype(np.float32)
    wanted = (low + high) / 2 + (high - low) / 2 * np.clip(actions, -1, 1)
    found = given_to(Box(low, high), actions, place)
    np.testing.assert_array_equal(found, wanted.clip(low, high))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_an_action_that_is_no_number_is_refused_by_name(dtype: str, value: float):
    space = Box(-1, 1, (2,), np.dtype(dtype).type)
    env = RangedActions(gymnasium.vector.SyncVectorEnv([lambda: Watching(space)] * 2))
    env.reset()
    env.step(np.zeros((2, 2), np.float32))
    with pytest.raises(RunFailedError, match=rf"for environment 1 is {value} in step 2"):
        env.step(np.array([[0, 0], [0, value]], np.float32))


@pytest.mark.parametrize("dtype", [np.longdouble])
@pytest.mark.parametrize("place", PLACES)
def test_a_type_that_is_not_supported_is_refused_by_name(dtype: type, place: str):
    with pytest.raises(ConfigError, match=r"actions of type .* are not supported"):
        given_to(Box(-1, 1, (1,), dtype), np.zeros((1, 1), np.float32), place)


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_an_action_without_entries_is_refused_by_name(shape: tuple[int, ...]):
    register_environment("Empty-v0", lambda: Watching(Box(-1, 1, shape, np.float32)))
    try:
        with pytest.raises(ConfigError, match="has no entries"):
            make_vector_env(EnvSpec(id="Empty-v0"))
    finally:
        del gymnasium.registry["Empty-v0"]


@pytest.mark.parametrize(
    "space",
    [
        Box(-100, 100, (2, 3), np.int8),
        Box(-1, 1, (), np.float64),
        Box(0, 255, (2,), np.uint8),
        Box(0, 1, (3,), np.bool_),
        Box(0, np.inf, (2,), np.float16),
        Discrete(4),
        Discrete(3, start=-7),
        Discrete(5, start=2),
        Discrete(3, dtype=np.int32),
        Discrete(200, start=20, dtype=np.uint8),
        MultiDiscrete([3, 2], start=[1, -1], dtype=np.int32),
        MultiBinary((2, 2)),
        Tuple((Discrete(3, start=2), Dict(speed=Box(0, 5, (2,), np.float64)))),
    ],
    ids=str,
)
@pytest.mark.parametrize("scales", [True, False])
def test_what_the_policy_of_an_algorithm_chooses_is_in_the_space(
    space: gymnasium.Space, scales: bool
):
    """From the network to `env.step`, and back through its loss."""
    register_environment("Watching-v0", lambda: Watching(space))
    try:
        env = make_vector_env(EnvSpec(id="Watching-v0", num_envs=4, scale_actions=scales))
    finally:
        del gymnasium.registry["Watching-v0"]
    algorithm = Ppo(
        PpoConfig(), NetworkSpec(), Spaces(env.single_observation_space, env.single_action_space)
    )
    state = algorithm.init(0)
    observation = torch.from_numpy(env.reset()[0])
    noise = algorithm.noise(torch.Generator().manual_seed(0), 50, EnvSlice(0, 4, 4))
    (field,) = (field for field in algorithm.fields if field.name == "action")
    with torch.no_grad():
        for of_step in noise:
            chosen = algorithm.act(state.network, observation, of_step)["action"]
            assert chosen.shape == (4, *field.shape)
            env.step(chosen.numpy().astype(field.dtype))
    actions = [action for one in env.unwrapped.envs for action in one.unwrapped.seen]
    assert len(actions) == 4 * 50
    if isinstance(space, Tuple):
        assert {int(gear) for gear, _ in actions} == {2, 3, 4}
        lowest = np.mean([speed["speed"] == 0 for _, speed in actions])
        assert lowest == pytest.approx(0.16 if scales else 0.5, abs=0.1), "below -1, or below 0"
        return
    seen = np.stack([np.asarray(action) for action in actions])
    assert seen.dtype == space.dtype
    if isinstance(space, Discrete) and space.n < 10:
        assert set(seen.tolist()) == set(range(int(space.start), int(space.start + space.n)))


@pytest.mark.parametrize("scales", [True, False])
@pytest.mark.parametrize("space", [Box(-5, 5, (2, 2), np.int16), Discrete(3, start=4)], ids=str)
def test_environments_of_tensors_are_given_the_same(space: gymnasium.Space, scales: bool):
    class OfTensors:
        single_observation_space = Watching.observation_space
        single_action_space = space

        def reset(self, seed: int) -> torch.Tensor:
            return torch.zeros(2, 1)

        def step(self, action: torch.Tensor):
            assert all(space.contains(one) for one in action.numpy()), action
            if isinstance(space, Box):
                wanted = [-5, 5, 2, 5] if scales else [-1, 1, 0, 5]
                assert action.flatten(1).tolist() == [wanted] * 2
            nothing = torch.zeros(2, dtype=torch.bool)
            return torch.zeros(2, 1), torch.zeros(2), nothing, nothing

    TORCH_ENVIRONMENTS["OfTensors-v0"] = lambda num_envs, device: OfTensors()
    try:
        spec = EnvSpec(id="OfTensors-v0", num_envs=2, scale_actions=scales)
        env = make_torch_env(spec, CPU)
    finally:
        del TORCH_ENVIRONMENTS["OfTensors-v0"]
    if isinstance(space, Box):
        assert isinstance(env, TorchActions)
        env.step(torch.tensor([[-1.0, 1.0, 0.3, 7.0]] * 2))
    else:
        env.step(torch.tensor([0, 2]))
