"""Squashing: bounded reals get tanh of what is chosen, everything else what it got before."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from engine.envs.make import make_vector_env
from engine.envs.torch_envs import TORCH_ENVIRONMENTS, make_torch_env
from engine.errors import ConfigError, RunFailedError
from engine.spec import EnvSpec

CPU = torch.device("cpu")
HYBRID = spaces.Dict(
    {
        "free": spaces.Box(-np.inf, np.inf, (1,)),
        "gear": spaces.Discrete(3, start=1),
        "steer": spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float64),
    }
)


class Taker(gymnasium.Env[Any, Any]):
    """Keeps the actions that it is given."""

    observation_space = spaces.Box(-1, 1, (1,))
    taken: list[Any] = []  # noqa: RUF012

    def __init__(self, space: Any = HYBRID) -> None:  # noqa: ANN401
        self.action_space = space

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:  # noqa: ANN401
        assert self.action_space.contains(action)
        self.taken.append(action)
        return np.zeros(1, np.float32), 0.0, False, False, {}


def taken_by(space: gymnasium.Space[Any], actions: np.ndarray, monkeypatch) -> list[Any]:
    monkeypatch.setattr("gymnasium.envs.registration.registry", dict(gymnasium.registry))
    gymnasium.register("Taker-v0", entry_point=lambda: Taker(space))
    env = make_vector_env(EnvSpec(id="Taker-v0", num_envs=len(actions), squash_actions=True))
    env.reset(seed=0)
    Taker.taken.clear()
    env.step(actions)
    return list(Taker.taken)


def test_bounded_entries_are_squashed_and_others_passed_on(monkeypatch):
    flat = np.array([[2, 7.5, 0.5, -3.0], [0, -1e6, 0.0, 50.0]], np.float32)
    one, other = taken_by(HYBRID, flat, monkeypatch)
    assert (one["gear"], other["gear"]) == (3, 1)
    assert (one["free"].item(), other["free"].item()) == (7.5, -1e6)
    np.testing.assert_allclose(one["steer"], [2 * np.tanh(0.5), 5 + 5 * np.tanh(-3)], atol=1e-5)
    np.testing.assert_allclose(other["steer"], [0.0, 10.0], atol=1e-5)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_number_that_is_not_finite_is_refused_before_tanh_hides_it(bad: float, monkeypatch):
    flat = np.array([[0.1, 0.2], [0.3, bad]], np.float32)
    with pytest.raises(RunFailedError, match="the action for environment 1 is"):
        taken_by(spaces.Box(-1, 1, (2,)), flat, monkeypatch)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-np.inf, np.inf, (2,))])
def test_without_a_bounded_entry_it_is_refused(space: gymnasium.Space[Any], monkeypatch):
    with pytest.raises(ConfigError, match="nothing to squash") as error:
        taken_by(space, np.zeros((1, 2)), monkeypatch)
    assert error.value.where == "env.squash_actions"


def test_environments_of_tensors_get_the_same(monkeypatch):
    class TorchTaker:
        single_observation_space = spaces.Box(-1, 1, (1,))
        single_action_space = spaces.Box(-2, 2, (3,))

        def __init__(self, num_envs: int, device: torch.device) -> None:
            self.taken: list[torch.Tensor] = []

        def step(self, action: torch.Tensor) -> Any:  # noqa: ANN401
            self.taken.append(action)
            return (torch.zeros(len(action), 1),)

    made: list[TorchTaker] = []

    def make(num_envs: int, device: torch.device) -> Any:  # noqa: ANN401
        made.append(TorchTaker(num_envs, device))
        return made[-1]

    monkeypatch.setitem(TORCH_ENVIRONMENTS, "Taker-v0", make)
    env = make_torch_env(EnvSpec(id="Taker-v0", num_envs=2, squash_actions=True), CPU)
    chosen = torch.tensor([[0.0, 0.5, -3.0], [9.0, -0.1, 1.0]])
    env.step(chosen)
    torch.testing.assert_close(made[0].taken[0], 2 * torch.tanh(chosen))
