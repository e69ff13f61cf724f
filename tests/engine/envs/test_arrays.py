"""Environments of classic control as arrays are, number by number, Gymnasium's own."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import acrobot
from gymnasium.vector import SyncVectorEnv, VectorEnv

from engine.envs.arrays.classic_control import as_arrays
from engine.envs.make import make_vector_env
from engine.spec import EnvSpec

NUM_ENVS, NUM_STEPS = 5, 1100
SINGLE = ["Acrobot-v1", "Pendulum-v1", "MountainCar-v0"]
"""Longer than two episodes, so that each copy has begun a third one."""


def both(env_id: str, mode: str) -> tuple[VectorEnv, VectorEnv]:
    arrays = as_arrays(env_id, NUM_ENVS)
    assert arrays is not None
    original = gymnasium.make_vec(env_id, NUM_ENVS, vectorization_mode=mode)
    return arrays, original


def assert_same_episodes(arrays: VectorEnv, original: VectorEnv) -> None:
    assert arrays.single_observation_space == original.single_observation_space
    assert arrays.single_action_space == original.single_action_space
    assert arrays.metadata["autoreset_mode"] == original.metadata["autoreset_mode"]
    original.action_space.seed(3)
    starts = [env.reset(seed=7)[0] for env in (arrays, original)]
    np.testing.assert_array_equal(*starts)
    assert starts[0].dtype == starts[1].dtype == np.float32
    num_ended = 0
    for number in range(NUM_STEPS):
        actions = original.action_space.sample()
        got, wanted = arrays.step(actions), original.step(actions)
        for name, one, other in zip("orut", got[:4], wanted[:4], strict=True):
            assert one.dtype == other.dtype, name
            np.testing.assert_allclose(one, other, atol=1e-5, err_msg=f"{name} in step {number}")
        num_ended += int((got[2] | got[3]).sum())
    assert num_ended > NUM_ENVS
    np.testing.assert_array_equal(arrays.reset(seed=8)[0], original.reset(seed=8)[0])


@pytest.mark.parametrize("env_id", SINGLE)
def test_episodes_are_those_of_single_environments(env_id: str) -> None:
    assert_same_episodes(*both(env_id, "sync"))


def test_cart_poles_are_those_of_gymnasiums_vector() -> None:
    arrays, original = both("CartPole-v1", "vector_entry_point")
    original.spec = None
    assert_same_episodes(arrays, original)


def test_acrobats_that_reach_the_line_end_their_episode() -> None:
    """Random actions seldom do; pushing along with the second link does."""
    arrays, original = both("Acrobot-v1", "sync")
    (seen, _), _ = arrays.reset(seed=1), original.reset(seed=1)
    ends = 0
    for _ in range(400):
        actions = np.where(seen[:, 5] > 0, 2, 0)
        got, wanted = arrays.step(actions), original.step(actions)
        np.testing.assert_array_equal(got[2], wanted[2])
        np.testing.assert_array_equal(got[1], wanted[1])
        seen, ends = got[0], ends + int(got[2].sum())
    assert ends > NUM_ENVS


@pytest.mark.parametrize("env_id", ["CartPole-v1", *SINGLE])
def test_runs_use_them_unless_something_else_is_asked_for(env_id: str) -> None:
    plain = make_vector_env(EnvSpec(id=env_id, num_envs=2)).unwrapped
    assert type(plain).__module__ == "engine.envs.arrays.classic_control"
    wrapped = EnvSpec(id=env_id, num_envs=2, wrappers=({"name": "TimeAwareObservation"},))
    assert isinstance(make_vector_env(wrapped).unwrapped, SyncVectorEnv)
    with_kwargs = {"Pendulum-v1": {"g": 9.81}, "MountainCar-v0": {"goal_velocity": 0.01}}
    if kwargs := with_kwargs.get(env_id):
        other = make_vector_env(EnvSpec(id=env_id, num_envs=2, kwargs=kwargs)).unwrapped
        assert isinstance(other, SyncVectorEnv)


def test_an_id_that_is_registered_anew_is_left_alone() -> None:
    known = gymnasium.registry["Acrobot-v1"]
    gymnasium.register("Acrobot-v99", entry_point=known.entry_point, max_episode_steps=9)
    try:
        copies = as_arrays("Acrobot-v99", 2)
        assert copies is not None
        copies.reset(seed=0)
        ends = [copies.step(np.array([1, 1]))[3].all() for _ in range(9)]
        assert ends == [False] * 8 + [True]
    finally:
        del gymnasium.registry["Acrobot-v99"]
    assert as_arrays("LunarLander-v3", 2) is None
    assert as_arrays("Nothing-v0", 2) is None


def test_a_vector_of_the_users_own_is_used() -> None:
    known = gymnasium.registry["CartPole-v1"]
    gymnasium.register(
        "CartPole-v99",
        entry_point=known.entry_point,
        vector_entry_point="mine:CartPoles",
        max_episode_steps=9,
    )
    try:
        assert as_arrays("CartPole-v99", 2) is None
    finally:
        del gymnasium.registry["CartPole-v99"]


@pytest.mark.parametrize(
    ("name", "value"), [("book_or_nips", "nips"), ("torque_noise_max", 0.1), ("LINK_MASS_2", 2.0)]
)
def test_numbers_set_in_the_class_are_respected(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(acrobot.AcrobotEnv, name, value)
    plain = make_vector_env(EnvSpec(id="Acrobot-v1", num_envs=2)).unwrapped
    assert isinstance(plain, SyncVectorEnv)
