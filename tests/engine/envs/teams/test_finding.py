"""Which ids are teams; PettingZoo's and Gymnasium's environments are stepped as they are."""

from __future__ import annotations

import sys
from types import ModuleType

import gymnasium
import numpy as np
import pytest

from engine.envs.make import make_vector_env, spaces_of
from engine.envs.rendering import make_rendered_env
from engine.envs.teams.finding import find_team
from engine.envs.teams.registry import TEAMS
from engine.envs.teams.vector import TeamVectorEnv
from engine.errors import ConfigError
from engine.spec import EnvSpec
from tests.helpers.engine.scripted_team import Scene, ScriptedTeam

SPREAD = "pettingzoo:mpe2.simple_spread_v3"
FORAGING = "lbforaging:Foraging-5x5-2p-1f-v3"


@pytest.fixture
def only_pettingzoo(monkeypatch):
    """No faster versions of PettingZoo's environments."""
    for name in [name for name in TEAMS if name.startswith("pettingzoo:")]:
        monkeypatch.delitem(TEAMS, name)


@pytest.mark.usefixtures("only_pettingzoo")
def test_a_parallel_environment_is_stepped_as_it_is():
    mpe = pytest.importorskip("mpe2.simple_spread_v3")
    own = mpe.parallel_env(max_cycles=3)
    env = make_vector_env(
        EnvSpec(id=SPREAD, num_envs=2, central_state=True, kwargs={"max_cycles": 3})
    )
    observation, _ = env.reset(seed=5)
    wanted, _ = own.reset(seed=6)
    rng = np.random.default_rng(0)
    for step in range(7):
        for name, value in wanted.items():
            np.testing.assert_array_equal(observation["agents"][name][1], value)
        np.testing.assert_array_equal(observation["state"][1], own.state())
        actions = rng.integers(0, 5, (2, 3))
        observation, reward, terminated, truncated, _ = env.step(actions)
        if step % 4 == 3:  # resets only
            wanted, _ = own.reset()
            continue
        wanted, rewards, _, ends, _ = own.step(dict(zip(own.agents, actions[1], strict=True)))
        assert reward[1] == pytest.approx(sum(rewards.values()))
        assert observation["team"]["reward"][1] == pytest.approx(list(rewards.values()))
        assert bool(truncated[1]) == all(ends.values())
        assert not terminated.any()


def test_a_game_of_turns_leaves_those_who_wait_one_choice():
    pytest.importorskip("pettingzoo.classic.tictactoe_v3")
    env = make_vector_env(EnvSpec(id="pettingzoo:classic.tictactoe_v3", num_envs=1))
    assert spaces_of(env).has_action_mask
    observation, _ = env.reset(seed=0)
    rewards = []
    for move in (0, 1, 3, 4, 6):  # the first player fills a column
        mask = observation["action_mask"].reshape(2, 9)
        turn = len(rewards) % 2
        assert mask[turn, move]
        assert mask[1 - turn].tolist() == [1] + [0] * 8
        action = np.zeros((1, 2), np.int64)
        action[0, turn] = move
        observation, _, terminated, truncated, _ = env.step(action)
        rewards.append(observation["team"]["reward"][0].tolist())
    assert rewards == [[0.0, 0.0]] * 4 + [[1.0, -1.0]]  # the loser has its part too
    assert (terminated.tolist(), truncated.tolist()) == ([True], [False])


def test_tuples_of_gymnasium_are_agents():
    pytest.importorskip("lbforaging")
    env = make_vector_env(EnvSpec(id=FORAGING, num_envs=2, kwargs={"sight": 5}))
    own = gymnasium.make(FORAGING, disable_env_checker=True)
    assert spaces_of(env).team is not None
    observation, _ = env.reset(seed=3)
    wanted, _ = own.reset(seed=4)
    rng = np.random.default_rng(1)
    for _ in range(40):
        for number, value in enumerate(wanted):
            np.testing.assert_array_equal(observation["agents"][f"agent_{number}"][1], value)
        actions = rng.integers(0, 6, (2, 2))
        observation, reward, terminated, truncated, _ = env.step(actions)
        wanted, rewards, is_over, _, _ = own.step(tuple(actions[1]))
        assert reward[1] == pytest.approx(sum(rewards))
        assert (bool(terminated[1]), bool(truncated[1])) == (is_over, False)
        if is_over:
            break


def test_a_function_of_a_module_makes_a_team(monkeypatch):
    module = ModuleType("own_teams")
    module.make_team = lambda agents=2: ScriptedTeam(  # type: ignore[attr-defined]
        [f"w{number}" for number in range(agents)], [Scene(["w0"]), Scene([])]
    )
    module.make_single = lambda: gymnasium.make("CartPole-v1")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_teams", module)
    env = make_vector_env(EnvSpec(id="own_teams:make_team", num_envs=2, kwargs={"agents": 3}))
    assert isinstance(env.unwrapped, TeamVectorEnv)
    assert env.unwrapped.agents == ("w0", "w1", "w2")
    with pytest.raises(ConfigError, match="has to be registered"):
        make_vector_env(EnvSpec(id="own_teams:make_single"))
    with pytest.raises(ConfigError, match="unknown environment"):
        make_vector_env(EnvSpec(id="own_teams:Nothing-v0"))


def test_slips_of_a_function_that_makes_a_team_are_told(monkeypatch, tmp_path):
    text = "import gymnasium\n\n\ndef _own(): ...\n\n\ndef make_herd():\n    _own()\n"
    (tmp_path / "herd_slips.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as raised:
        make_vector_env(EnvSpec(id="herd_slips:nothing"))
    assert raised.value.what == "the module herd_slips has no 'nothing'"
    assert raised.value.fix == "it has make_herd"
    with pytest.raises(ConfigError, match="herd_slips:make_herd returned None") as raised:
        make_vector_env(EnvSpec(id="herd_slips:make_herd"))
    assert raised.value.where == "env.id"


def test_a_team_is_rendered_by_its_environment(monkeypatch):
    pytest.importorskip("mpe2")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    rendered = make_rendered_env(EnvSpec(id=SPREAD))
    rendered.reset(3)
    first = rendered.frame()
    for _ in range(2):  # the first one only gives them speed
        rendered.step(np.array([[1, 2, 3]]))
    assert (first.shape, rendered.fps) == ((700, 700, 3), 10.0)
    assert (first != rendered.frame()).any()
    rendered.close()


def test_other_ids_are_no_teams():
    assert find_team(EnvSpec(id="CartPole-v1")) is None


@pytest.mark.usefixtures("only_pettingzoo")
@pytest.mark.parametrize(
    ("env_id", "words", "fix"),
    [
        ("pettingzoo:mpe2.simple_spread_v2", "no", "'pettingzoo:mpe2.simple_spread_v3'"),
        ("pettingzoo:simple_spread_v3", "no", "'pettingzoo:mpe2.simple_spread_v3'"),
        ("pettingzoo:nothing.like_it_v1", "has a module 'nothing.like_it_v1'", "such as"),
        ("pettingzoo:mpe2", "has neither parallel_env nor env", "pettingzoo:mpe2.simple"),
    ],
)
def test_an_unknown_module_is_told_with_the_nearest(env_id, words, fix):
    pytest.importorskip("mpe2")
    with pytest.raises(ConfigError) as raised:
        make_vector_env(EnvSpec(id=env_id))
    assert raised.value.where == "env.id"
    assert words in raised.value.what
    assert fix in raised.value.fix


def test_a_missing_package_is_told_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package pettingzoo") as raised:
        make_vector_env(EnvSpec(id="pettingzoo:butterfly.pistonball_v6"))
    assert "marl" in raised.value.fix or "pettingzoo" in raised.value.fix


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"clip_reward": True}, "env.clip_reward"),
        ({"life_loss_terminates": True}, "env.life_loss_terminates"),
        ({"wrappers": ({"name": "TimeLimit", "max_episode_steps": 5},)}, "env.wrappers"),
        ({"backend": "envpool"}, "env"),
    ],
)
def test_settings_without_a_meaning_for_teams_are_refused(settings, where):
    with pytest.raises(ConfigError) as raised:
        make_vector_env(EnvSpec(id="TwoStep-v0", **settings))
    assert raised.value.where is not None
    assert raised.value.where.startswith(where)


def test_a_single_agent_has_no_central_state_and_shares_nothing():
    with pytest.raises(ConfigError) as raised:
        make_vector_env(EnvSpec(id="CartPole-v1", central_state=True))
    assert raised.value.where == "env.central_state"
    with pytest.raises(ConfigError) as raised:
        spaces_of(make_vector_env(EnvSpec(id="CartPole-v1")), "shared")
    assert raised.value.where == "agents"


def test_wrappers_of_gymnasium_go_around_tuples():
    pytest.importorskip("lbforaging")
    limit = {"name": "TimeLimit", "max_episode_steps": 2}
    env = make_vector_env(EnvSpec(id=FORAGING, num_envs=1, wrappers=(limit,)))
    env.reset(seed=0)
    ends = [bool(env.step(np.zeros((1, 2), np.int64))[3][0]) for _ in range(3)]
    assert ends == [False, True, False]
