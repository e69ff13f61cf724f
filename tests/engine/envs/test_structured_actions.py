"""Flat actions reach an environment as values of its own space, whatever its structure."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import batch_space, iterate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.envs.actions.tensors import TensorActions
from engine.envs.actions.vector import RangedActions, StructuredActions, with_actions
from engine.envs.make import make_vector_env, register_environment
from engine.envs.torch_envs import TORCH_ENVIRONMENTS, make_torch_env
from engine.errors import ConfigError, RunFailedError
from engine.spaces.action_parts import action_field, leaf_columns, num_choices_of, parts_of
from engine.spaces.leaves import leaf_values, leaves_of, structure_of
from engine.spec import EnvSpec
from tests.helpers.engine.any_space import any_space

CPU = torch.device("cpu")
HYBRID = Dict(
    {
        "gear": Discrete(3, start=-1, dtype=np.int32),
        "lights": MultiBinary((2, 2)),
        "nested": Tuple(
            (
                MultiDiscrete([[2, 3], [4, 1]], start=[[0, 5], [-2, 7]], dtype=np.int16),
                Box(-2, 6, (), np.float64),
                MultiBinary(()),
                Box(3, 12, (2, 1), np.uint8),
            )
        ),
        "steer": Box(np.array([-1, 0, -np.inf], np.float32), np.array([1, 5, np.inf], np.float32)),
    }
)
STRUCTURED = [HYBRID, MultiDiscrete([3, 2], start=[1, 5]), MultiBinary(3)]


class Watching(gymnasium.Env):
    """Keeps what it is given, and refuses what is not in its space."""

    observation_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, space: gymnasium.Space) -> None:
        self.action_space = space
        self.seen: list[object] = []

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        check_contained(self.action_space, action)
        self.seen.append(action)
        return np.zeros(1, np.float32), 0.0, False, False, {}


class OwnVector(gymnasium.vector.VectorEnv):
    """Steps all copies itself, so it is given a value of its batched action space."""

    def __init__(self, space: gymnasium.Space, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_action_space, self.action_space = space, batch_space(space, num_envs)
        self.single_observation_space = Watching.observation_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
        self.seen: list[object] = []

    def reset(self, *, seed=None, options=None):
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions):
        check_contained(self.action_space, actions)
        self.seen.append(actions)
        no = np.zeros(self.num_envs, bool)
        return np.zeros((self.num_envs, 1), np.float32), np.zeros(self.num_envs), no, no, {}


def check_contained(space: gymnasium.Space, action) -> None:
    """In the space, and each leaf in exactly its dtype."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert space.contains(action), (action, space)
    for value, leaf in zip(leaf_values(space, action), leaves_of(space, "action"), strict=True):
        assert value.dtype == leaf.space.dtype


def by_sync(space: gymnasium.Space, actions: np.ndarray) -> list:
    env = with_actions(SyncVectorEnv([partial(Watching, space)] * len(actions)))
    env.reset()
    env.step(actions)
    return [one.seen[0] for one in env.unwrapped.envs]


def by_own_vector(space: gymnasium.Space, actions: np.ndarray) -> list:
    env = with_actions(OwnVector(space, len(actions)))
    env.reset()
    env.step(actions)
    (seen,) = env.unwrapped.seen
    return apart(space, seen, len(actions))


def by_tensors(space: gymnasium.Space, actions: np.ndarray) -> list:
    seen = TensorActions(space, CPU)(torch.from_numpy(actions))
    values = [value.numpy() for value in leaf_values(space, seen)]
    check_contained(batch_space(space, len(actions)), structure_of(space, iter(values)))
    return apart(space, structure_of(space, iter(values)), len(actions))


def apart(space: gymnasium.Space, seen, count: int) -> list:
    if isinstance(space, Discrete):
        return list(seen)
    return list(iterate(batch_space(space, count), seen))


WAYS = [by_sync, by_own_vector, by_tensors]


@st.composite
def flat_actions(draw: st.DrawFn, space: gymnasium.Space, count: int) -> np.ndarray:
    """What a policy may choose: any choice, and reals of any size."""
    parts, field = parts_of(space), action_field(space)
    numbers = st.floats(-3, 3, width=32) | st.sampled_from([-1.0, 1.0, 3e38, -3e38])
    kinds = [hnp.arrays(np.int64, count, elements=st.integers(0, n - 1)) for n in parts.nvec]
    kinds += [hnp.arrays(np.float32, count, elements=numbers)] * parts.num_reals
    columns = [draw(kind) for kind in kinds]
    return np.stack(columns, -1).astype(field.dtype).reshape(count, *field.shape)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=100, deadline=None)
@given(data=st.data(), space=any_space(), count=st.integers(1, 3))
def test_what_reaches_an_environment_is_in_its_space(way: Callable, data, space, count: int):
    """And every choice is the one that was made, from its start."""
    actions = data.draw(flat_actions(space, count))
    seen = way(space, actions)
    assert len(seen) == count
    rows = actions.reshape(count, -1)
    for row, action in zip(rows, seen, strict=True):
        values = leaf_values(space, action)
        for (leaf, columns), value in zip(leaf_columns(space), values, strict=True):
            if not isinstance(leaf, Box):
                found = np.ravel(value).astype(np.int64) - np.ravel(getattr(leaf, "start", 0))
                assert found.tolist() == row[columns].astype(np.int64).tolist()


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=50, deadline=None)
@given(space=any_space())
def test_every_choice_and_each_end_of_a_range_is_reached(way: Callable, space: gymnasium.Space):
    parts, field = parts_of(space), action_field(space)
    count = max(2, *parts.nvec, 2)
    choices = [np.arange(count) % n for n in parts.nvec]
    reals = [np.where(np.arange(count) % 2, 1.0, -1.0)] * parts.num_reals
    actions = np.stack(choices + reals, -1).astype(field.dtype).reshape(count, *field.shape)
    seen = [leaf_values(space, action) for action in way(space, actions)]
    for i, (leaf, _) in enumerate(leaf_columns(space)):
        values = np.stack([np.asarray(one[i]) for one in seen])
        if isinstance(leaf, Box):
            least, most = values.min(0), values.max(0)
            has_both = leaf.bounded_below & leaf.bounded_above
            np.testing.assert_allclose(least[has_both], leaf.low[has_both], rtol=1e-5)
            np.testing.assert_allclose(most[has_both], leaf.high[has_both], rtol=1e-5)
            continue
        starts = np.broadcast_to(getattr(leaf, "start", 0), leaf.shape or ()).ravel()
        columns = values.reshape(count, -1).T
        for column, start, n in zip(columns, starts, num_choices_of(leaf), strict=True):
            assert set(column.tolist()) == set(range(int(start), int(start) + int(n)))


def hybrid_row() -> np.ndarray:
    #          gear  lights      nested.0    nested.2  nested.1  nested.3   steer
    return np.array([2, 1, 0, 0, 1, 1, 2, 0, 0, 1, -1.0, 1.0, -9.0, 0.0, 9.0, 2.5], np.float32)


@pytest.mark.parametrize("way", WAYS)
def test_a_hybrid_action_arrives_as_documented(way: Callable):
    """Choices of all leaves come first, in the order of the leaves, and then the reals."""
    (action,) = way(HYBRID, hybrid_row()[None])
    assert action["gear"] == 1
    assert action["lights"].tolist() == [[1, 0], [0, 1]]
    assert action["nested"][0].tolist() == [[1, 7], [-2, 7]]
    assert action["nested"][1] == -2.0
    assert action["nested"][2] == 1
    assert action["nested"][3].tolist() == [[12], [3]]
    assert action["steer"].tolist() == [0.0, 5.0, 2.5]


def test_separate_processes_are_given_the_same():
    env = with_actions(AsyncVectorEnv([partial(Watching, HYBRID)] * 2))
    try:
        env.reset()
        env.step(np.stack([hybrid_row(), hybrid_row()]))
        seen = env.unwrapped.get_attr("seen")
    finally:
        env.close()
    (wanted,) = by_sync(HYBRID, hybrid_row()[None])
    for (found,) in seen:
        for one, other in zip(leaf_values(HYBRID, found), leaf_values(HYBRID, wanted), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("space", [Box(-1, 1, ()), MultiBinary(())], ids=str)
def test_a_single_number_in_separate_processes(space: gymnasium.Space):
    """Without an axis to iterate over, copies would be given scalars, which are in no Box."""
    env = with_actions(AsyncVectorEnv([partial(Watching, space)] * 2))
    try:
        env.reset()
        env.step(np.array([[0], [1]], action_field(space).dtype))
        assert [int(seen[0]) for seen in env.unwrapped.get_attr("seen")] == [0, 1]
    finally:
        env.close()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_real_that_is_no_number_is_refused_by_name(value: float):
    space = Tuple((Discrete(2), Box(-1, 1, (2,))))
    env = with_actions(SyncVectorEnv([partial(Watching, space)] * 2))
    env.reset()
    env.step(np.zeros((2, 3), np.float32))
    with pytest.raises(RunFailedError, match=rf"for environment 1 is {value} in step 2"):
        env.step(np.array([[0, 0, 0], [0, 0, value]], np.float32))
    env.step(np.full((2, 3), 1.0, np.float32) * [1, 3e38, -3e38])


def test_a_wrapper_is_there_only_where_something_is_converted():
    def wrapped(space: gymnasium.Space):
        return with_actions(SyncVectorEnv([partial(Watching, space)]))

    assert isinstance(wrapped(Discrete(3)), SyncVectorEnv)
    assert isinstance(wrapped(Box(-1, 1)), RangedActions)
    assert isinstance(wrapped(Discrete(3, start=1)), StructuredActions)
    assert wrapped(Discrete(3, start=1)).single_action_space == Discrete(3)
    assert isinstance(wrapped(MultiDiscrete([3])), StructuredActions)


@pytest.mark.parametrize("space", STRUCTURED, ids=["Dict", "MultiDiscrete", "MultiBinary"])
def test_environments_are_made_so(space: gymnasium.Space):
    """From an environment's name to its `step`."""
    register_environment("Watching-v1", partial(Watching, space))
    try:
        env = make_vector_env(EnvSpec(id="Watching-v1", num_envs=2))
    finally:
        del gymnasium.registry["Watching-v1"]
    field = action_field(env.single_action_space)
    env.reset()
    env.step(np.zeros((2, *field.shape), field.dtype))
    assert all(len(one.unwrapped.seen) == 1 for one in env.unwrapped.envs)


@pytest.mark.parametrize("inside", [False, True])
def test_what_cannot_be_chosen_is_refused_when_it_is_made(inside: bool):
    space = Dict(word=Text(3)) if inside else Text(3)
    register_environment("Watching-v2", partial(Watching, space))
    try:
        with pytest.raises(ConfigError, match="action space is a Text") as caught:
            make_vector_env(EnvSpec(id="Watching-v2", num_envs=2))
    finally:
        del gymnasium.registry["Watching-v2"]
    assert "ActionWrapper" in caught.value.fix


@pytest.mark.parametrize("space", STRUCTURED, ids=["Dict", "MultiDiscrete", "MultiBinary"])
def test_environments_of_tensors_are_given_the_same(space: gymnasium.Space):
    class OfTensors:
        single_observation_space = Watching.observation_space
        single_action_space = space

        def reset(self, seed: int) -> torch.Tensor:
            return torch.zeros(2, 1)

        def step(self, action):
            values = [value.numpy() for value in leaf_values(space, action)]
            check_contained(batch_space(space, 2), structure_of(space, iter(values)))
            nothing = torch.zeros(2, dtype=torch.bool)
            return torch.zeros(2, 1), torch.zeros(2), nothing, nothing

    TORCH_ENVIRONMENTS["OfTensors-v1"] = lambda num_envs, device: OfTensors()
    try:
        env = make_torch_env(EnvSpec(id="OfTensors-v1", num_envs=2), CPU)
    finally:
        del TORCH_ENVIRONMENTS["OfTensors-v1"]
    field = action_field(space)
    env.step(torch.zeros(2, *field.shape, dtype=getattr(torch, field.dtype)))
