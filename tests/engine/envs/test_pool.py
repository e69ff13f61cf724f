"""EnvPool as a back end: what it is told, what is refused, and how it restarts; without it."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from engine.envs.extras import install_command
from engine.envs.make import make_vector_env
from engine.envs.pool.catalogue import gymnasium_twin, notes_on_backend, task_of
from engine.envs.pool.vector import NO_LIMIT, PoolVectorEnv
from engine.envs.torch_envs import make_torch_env
from engine.errors import ConfigError
from engine.export.recipe import recipe_of
from engine.spec import EnvSpec, Experiment


def spec(env_id: str = "CartPole-v1", **fields) -> EnvSpec:
    return EnvSpec(id=env_id, num_envs=3, backend="envpool", **fields)


class FakePool:
    """Counts steps as EnvPool does: environment i terminates its episode after `lengths[i]`."""

    lengths = (3, 100, 4)
    _state_keys = ("elapsed_step", "done", "reward", "obs", "info:lives")

    def __init__(self, name: str, seed: list[int], num_envs: int, **options) -> None:
        self.name, self.seed, self.options = name, seed, options
        self.elapsed = np.full(num_envs, -1, np.int32)
        self.actions = np.full(num_envs, -1)
        self.asked: list[tuple[str, list[int]]] = []

    def _reset(self, ids: np.ndarray) -> None:
        self.asked.append(("reset", ids.tolist()))
        self.ids, self.elapsed[ids], self.actions[ids] = ids, 0, -1

    def _send(self, sent: list[np.ndarray]) -> None:
        ids, _, actions = sent
        self.asked.append(("step", ids.tolist()))
        restarts = self.elapsed[ids] >= np.array(self.lengths)[ids]
        self.ids, self.actions[ids] = ids, actions
        self.elapsed[ids] = np.where(restarts, 0, self.elapsed[ids] + 1)

    def _recv(self) -> list[np.ndarray]:
        elapsed = self.elapsed[self.ids].copy()
        done = elapsed >= np.array(self.lengths)[self.ids]
        seen = np.stack([self.ids, elapsed, self.actions[self.ids]], 1).astype(np.float32)
        return [elapsed, done, (elapsed > 0).astype(np.float32), seen, self.ids.copy()]


@pytest.fixture
def fake_pool(monkeypatch: pytest.MonkeyPatch) -> type[FakePool]:
    module: Any = ModuleType("envpool")
    module.make_gymnasium = FakePool
    module.make_spec = lambda _name, **_options: SimpleNamespace(
        observation_space=Box(-9, 9, (3,), np.float32), action_space=Discrete(5)
    )
    monkeypatch.setitem(sys.modules, "envpool", module)
    return FakePool


def pooled(**kwargs) -> PoolVectorEnv:
    return PoolVectorEnv(task_of(spec(kwargs=kwargs)), 3)


def played(env: PoolVectorEnv, num_steps: int) -> list[tuple[np.ndarray, ...]]:
    env.reset(seed=7)
    return [env.step(np.arange(3) + 10 * t)[:4] for t in range(num_steps)]


def test_episodes_end_and_restart_as_in_gymnasium(fake_pool) -> None:
    steps = played(pooled(max_episode_steps=4), 10)
    elapsed = np.array([observation[:, 1] for observation, *_ in steps]).T.tolist()
    assert elapsed == [
        [1, 2, 3, 0, 1, 2, 3, 0, 1, 2],  # terminates after 3, and restarts by itself
        [1, 2, 3, 4, 0, 1, 2, 3, 4, 0],  # is truncated after 4, and restarted
        [1, 2, 3, 4, 0, 1, 2, 3, 4, 0],  # both in the same step
    ]
    terminated = np.array([step[2] for step in steps]).T
    truncated = np.array([step[3] for step in steps]).T
    assert [np.flatnonzero(row).tolist() for row in terminated] == [[2, 6], [], [3, 8]]
    assert [np.flatnonzero(row).tolist() for row in truncated] == [[], [3, 8], [3, 8]]
    rewards = np.array([step[1] for step in steps]).T.tolist()
    assert [row.count(0.0) for row in rewards] == [2, 2, 2]


def test_every_environment_keeps_its_row_and_gets_its_action(fake_pool) -> None:
    for t, (observation, *_) in enumerate(played(pooled(max_episode_steps=4), 10)):
        assert observation[:, 0].tolist() == [0, 1, 2]
        starts = observation[:, 1] == 0
        assert observation[~starts, 2].tolist() == (np.arange(3) + 10 * t)[~starts].tolist()


def test_all_restart_at_once_if_all_are_late(fake_pool) -> None:
    env = pooled(max_episode_steps=2)
    played(env, 3)
    assert env._pool.asked[-2:] == [("step", [0, 1, 2]), ("reset", [0, 1, 2])]


def test_seeds_are_those_of_gymnasium_and_wrap_around(fake_pool) -> None:
    env = pooled()
    env.reset(seed=7)
    first = env._pool
    assert first.seed == [7, 8, 9]
    assert first.options == {"num_threads": 1, "max_episode_steps": NO_LIMIT}
    env.reset()
    assert env._pool is first, "without a seed random numbers continue"
    env.reset(seed=2**31 - 1)
    assert env._pool.seed == [2**31 - 1, 0, 1]
    env.close()
    env.close()
    env.reset()
    assert len(set(env._pool.seed)) == 3, "they are drawn"


def test_actions_of_another_shape_never_reach_it(fake_pool) -> None:
    env = pooled()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        env.step(np.zeros(2, np.int64))


def test_a_lost_life_and_black_frames_are_seen_as_with_ale_py(fake_pool, monkeypatch) -> None:
    monkeypatch.setattr(fake_pool, "_recv", lambda self: [self.elapsed.copy(), self.elapsed < 0,
        np.zeros(3, np.float32), np.ones((3, 4, 2, 2), np.uint8), np.array([3, 2, 1])])  # fmt: skip
    monkeypatch.setattr(fake_pool, "lengths", (100, 100, 100))
    env = PoolVectorEnv(task_of(spec("ALE/Pong-v5")), 3)
    frames = [env.reset(seed=0)[0]]
    frames += [env.step(np.zeros(3, np.int64))[0] for _ in range(4)]
    assert [frame[0, :, 0, 0].tolist() for frame in frames] == [
        [0, 0, 0, 1],
        [0, 0, 1, 1],
        [0, 1, 1, 1],
        [1, 1, 1, 1],
        [1, 1, 1, 1],
    ]
    assert env.step(np.zeros(3, np.int64))[4]["lives"].tolist() == [3, 2, 1]


def test_what_envpool_is_told() -> None:
    assert task_of(spec()).limit == 500
    hopper = task_of(spec("Hopper-v5", kwargs={"healthy_reward": 0.5, "num_threads": 2}))
    assert (hopper.name, hopper.limit) == ("Hopper-v5", 1000)
    assert hopper.options == {"healthy_reward": 0.5, "num_threads": 2}
    walker = task_of(spec("BipedalWalker-v3", kwargs={"hardcore": True}))
    assert (walker.name, walker.limit) == ("BipedalWalker-v3", 1600)
    assert walker.options["hardcore"] is True
    assert walker.bounds is not None
    pong = task_of(spec("ALE/Pong-v5", kwargs={"frameskip": 2, "stack_num": 2, "maxpool": True}))
    assert (pong.name, pong.limit, pong.num_blank, pong.ends_once) == ("Pong-v5", 54_000, 1, True)
    assert pong.options == {
        "num_threads": 1,
        "frame_skip": 2,
        "noop_max": 30,
        "repeat_action_probability": 0.25,
        "stack_num": 2,
    }


@pytest.mark.parametrize(
    ("given", "where", "fix"),
    [
        (spec("Hopper-v3"), "env.backend", "env.id=Hopper-v4 or Hopper-v5"),
        (spec("mine:Corridor-v0"), "env.backend", "set env.backend=gymnasium"),
        (spec("CarRacing-v3"), "env.backend", "set env.backend=gymnasium"),
        (spec("ALE/Ping-v5"), "env.backend", "set env.backend=gymnasium"),
        (spec("LunarLander-v3"), "env.backend", "set env.backend=gymnasium"),
        (spec("BipedalWalker-v2"), "env.backend", "env.id=BipedalWalker-v3"),
        (spec(wrappers=({"name": "ClipReward"},)), "env.wrappers", "env.clip_reward"),
        (spec(kwargs={"sutton_barto_reward": True}), "env.kwargs.sutton_barto_reward", "leave it"),
        (spec("Hopper-v5", kwargs={"xml_file": "my.xml"}), "env.kwargs.xml_file", "healthy_reward"),
        (spec("Hopper-v4", kwargs={"frame_skip": 2}), "env.kwargs.frame_skip", "leave it out"),
        (spec("ALE/Pong-v5", kwargs={"episodic_life": True}), "env.kwargs.episodic_life",
         "env.life_loss_terminates"),
        (spec("ALE/Pong-v5", kwargs={"grayscale": False}), "env.kwargs.grayscale", "leave it out"),
        (spec("ALE/Pong-v5", kwargs={"mode": 1}), "env.kwargs.mode", "frameskip"),
        (spec("ALE/Pong-v5", kwargs={"stack_num": "4"}), "env.kwargs.stack_num", ""),
        (spec("ALE/Pong-v5", kwargs={"noop_max": 0}), "env.kwargs.noop_max", ""),
        (spec("ALE/Pong-v5", kwargs={"max_num_frames_per_episode": 101}),
         "env.kwargs.max_num_frames_per_episode", "a multiple of 4"),
        (spec(kwargs={"num_threads": 0}), "env.kwargs.num_threads", ""),
        (spec(kwargs={"max_episode_steps": 0}), "env.kwargs.max_episode_steps", ""),
    ],
)  # fmt: skip
def test_what_would_be_another_environment_is_refused(given: EnvSpec, where: str, fix: str) -> None:
    with pytest.raises(ConfigError) as error:
        task_of(given)
    assert error.value.where == where
    assert fix in error.value.fix


def test_a_known_difference_is_told() -> None:
    with pytest.raises(ConfigError, match=r"LunarLander-v3 .*its ground is 1 % higher"):
        task_of(spec("LunarLander-v3"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="CartPole-v1 needs the package envpool") as error:
        make_vector_env(spec())
    assert error.value.where == "env.backend"
    assert error.value.fix == install_command("envpool", "envpool")


def test_an_argument_that_it_rejects_is_named(fake_pool, monkeypatch) -> None:
    def rejects(*_args, **_options) -> None:
        raise TypeError("frame_skip must be int")

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: True)
    monkeypatch.setattr(sys.modules["envpool"], "make_spec", rejects)
    with pytest.raises(ConfigError, match="frame_skip must be int") as error:
        make_vector_env(spec("Hopper-v5", kwargs={"frame_skip": 2}))
    assert error.value.fix == "env.kwargs gives frame_skip"


def test_an_on_device_loop_has_environments_of_its_own() -> None:
    with pytest.raises(ConfigError, match="not envpool's") as error:
        make_torch_env(spec(), torch.device("cpu"))
    assert error.value.where == "env.backend"


def test_what_is_shown_or_exported_is_gymnasiums() -> None:
    hopper = spec("Hopper-v5", kwargs={"num_threads": 2, "healthy_reward": 0.5})
    twin = gymnasium_twin(hopper)
    assert (twin.backend, twin.kwargs) == ("gymnasium", {"healthy_reward": 0.5})
    assert gymnasium_twin(twin) is twin
    assert gymnasium_twin(spec("ALE/Pong-v5", kwargs={"num_threads": 2})).kwargs
    run = Experiment(name="a", env=hopper, algorithm={"name": "ppo"})
    assert recipe_of(run).makes == ('env = gymnasium.make("Hopper-v5", healthy_reward=0.5)',)


def test_a_difference_that_is_left_is_told() -> None:
    (note,) = notes_on_backend(spec("ALE/Pong-v5"))
    assert "before FIRE" in note
    assert notes_on_backend(spec("ALE/Pong-v5", kwargs={"noop_max": 1})) == ()
    assert notes_on_backend(EnvSpec(id="ALE/Pong-v5")) == notes_on_backend(spec()) == ()


def test_nothing_of_it_is_imported_for_gymnasium() -> None:
    before = "envpool" in sys.modules
    env = make_vector_env(EnvSpec(id="CartPole-v1"))
    env.close()
    assert ("envpool" in sys.modules) == before
    assert "CartPole-v1" in gymnasium.registry
