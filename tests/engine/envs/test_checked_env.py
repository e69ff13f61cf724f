"""What environments must not return is refused by name, before anything acts on it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import VectorEnv

from engine.envs.checked import CheckedVectorEnv
from engine.envs.make import make_vector_env
from engine.errors import RunFailedError
from engine.spec import EnvSpec

B = 3


class Scripted(VectorEnv):
    """Returns what it is told to."""

    num_envs = B
    single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    single_action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.observation = np.zeros((B, 2), np.float32)
        self.row = (np.zeros(B), np.zeros(B, bool), np.zeros(B, bool))

    def reset(self, *, seed=None, options=None):
        return self.observation, {}

    def step(self, actions):
        return (self.observation, *self.row, {})


@pytest.fixture
def inner() -> Scripted:
    return Scripted()


@pytest.fixture
def env(inner: Scripted) -> CheckedVectorEnv:
    return CheckedVectorEnv(inner, "Odd-v0")


ACTIONS = np.zeros(B, np.int64)


@pytest.mark.parametrize("name", ["observation", "reward"])
def test_what_is_infinite_in_single_precision_is_refused(inner: Scripted, env, name: str):
    """A simulation that blows up passes through such numbers before it comes to infinity."""
    inner.observation = np.zeros((B, 2), np.float64)
    values = inner.observation if name == "observation" else inner.row[0]
    values[1] = 3e38
    env.step(ACTIONS)
    values[1] = -1e39
    with pytest.raises(RunFailedError, match=rf"{name} of environment 1 is -1e\+39"):
        env.step(ACTIONS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["observation", "reward"])
def test_what_is_no_number_is_refused_by_name(inner: Scripted, env, name: str, value: float):
    env.reset()
    env.step(ACTIONS)
    values = inner.observation if name == "observation" else inner.row[0]
    values[1] = value
    with pytest.raises(RunFailedError) as caught:
        env.step(ACTIONS)
    assert str(caught.value) == (
        f"env.id Odd-v0: {name} of environment 1 is {values[1].flat[0]} in step 2;"
        " nothing is learnt from it"
    )


def test_a_first_observation_is_checked_as_well(inner: Scripted, env):
    inner.observation[2, 0] = np.nan
    with pytest.raises(RunFailedError, match="environment 2 is nan in reset"):
        env.reset()


def test_large_numbers_are_numbers(inner: Scripted, env):
    """The quick check overflows with them, and the exact one decides."""
    inner.observation[:] = np.finfo(np.float32).max
    inner.row[0][:] = -np.finfo(np.float32).max
    env.reset()
    assert env.step(ACTIONS)[0] is inner.observation


@pytest.mark.parametrize(
    ("position", "name", "shape"),
    [
        (0, "observation", (2,)),
        (0, "observation", (1, 2)),
        (0, "observation", (B, 3)),
        (1, "reward", (1,)),
        (1, "reward", (B, 1)),
        (2, "terminated", (1,)),
        (3, "truncated", ()),
    ],
)
def test_a_shape_that_was_not_announced_is_refused(
    inner: Scripted, env, position: int, name: str, shape: tuple[int, ...]
):
    env.reset()
    row = [inner.observation, *inner.row]
    row[position] = np.zeros(shape, row[position].dtype)
    inner.observation, inner.row = row[0], tuple(row[1:])
    with pytest.raises(RunFailedError) as caught:
        env.step(ACTIONS)
    assert f"{name} has shape {shape}; expected {(B, 2) if position == 0 else (B,)}" in (
        str(caught.value)
    )


def test_what_an_environment_raises_gets_its_name_and_step(inner: Scripted, env, monkeypatch):
    def fall(actions):
        raise ValueError("the simulator fell over")

    env.reset()
    env.step(ACTIONS)
    monkeypatch.setattr(inner, "step", fall)
    with pytest.raises(ValueError, match="fell over") as caught:
        env.step(ACTIONS)
    assert caught.value.__notes__ == ["Odd-v0 raised this in step 2"]


def test_every_environment_is_checked_beneath_what_changes_its_actions():
    env = make_vector_env(EnvSpec(id="Pendulum-v1", num_envs=2))
    assert isinstance(env.env, CheckedVectorEnv)
    env.close()
