"""Agents that come and go, ends of single agents and of the team, masks, seeds, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from engine.envs.actions.vector import with_actions
from engine.envs.checked import checked
from engine.envs.make import VectorEnvironment
from engine.envs.teams.parallel import ParallelTeam
from engine.errors import ConfigError, RunFailedError
from tests.helpers.engine.scripted_team import SEEN, Scene, ScriptedTeam

ALL = ("a", "b", "c")


def vector_of(*copies: ScriptedTeam, central_state: bool = False) -> VectorEnvironment:
    team = ParallelTeam(copies, "scripted", central_state=central_state)
    return with_actions(checked(team, "scripted"))


def play(scenes: list[Scene], num_steps: int, **options):
    """What one copy returns: its observations, and (reward, terminated, truncated) of each step."""
    copy = ScriptedTeam(ALL, scenes, **options)
    env = vector_of(copy)
    seen, outcomes = [env.reset(seed=0)[0]], []
    for _ in range(num_steps):
        observation, reward, terminated, truncated, _ = env.step(np.array([[0, 1, 2]]))
        seen.append(observation)
        outcomes.append((float(reward[0]), bool(terminated[0]), bool(truncated[0])))
    return copy, seen, outcomes


def team(seen, leaf):
    return [one["team"][leaf][0].tolist() for one in seen]


def test_agents_that_come_and_go_are_observed_while_they_are_there():
    scenes = [
        Scene(["a", "b"]),
        Scene(["a", "b", "c"], {"a": 1.0, "b": 2.0}),
        Scene(["b", "c"], {"a": 5.0, "c": 0.5}, terminated=["a"]),
        Scene(["a", "b"], {"b": 1.0, "c": 4.0}, truncated=["c"]),
    ]
    copy, seen, outcomes = play(scenes, 3)
    assert team(seen, "present") == [[1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 1, 0]]
    assert team(seen, "terminated") == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert team(seen, "reward") == [[0, 0, 0], [1, 2, 0], [5, 0, 0.5], [0, 1, 4]]
    assert [reward for reward, *_ in outcomes] == [3.0, 5.5, 5.0]
    assert not any(terminated or truncated for _, terminated, truncated in outcomes)
    of_a = [one["agents"]["a"][0].tolist() for one in seen]
    assert of_a == [[0, 0], [1, 0], [2, 0], [3, 0]]  # the last one, and then it is there again
    of_c = [one["agents"]["c"][0].tolist() for one in seen]
    assert of_c == [[0, 0], [1, 2], [2, 2], [3, 2]]  # zeros; and the last one when it was cut short
    assert [sorted(chosen) for chosen in copy.chosen] == [["a", "b"], ["a", "b", "c"], ["b", "c"]]
    assert copy.chosen[1] == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize(
    ("last", "terminated", "truncated", "present"),
    [
        (Scene([], terminated=["a", "b"]), True, False, [0, 0, 0]),
        (Scene([], truncated=["a", "b"]), False, True, [1, 1, 0]),
        (Scene([], terminated=["a"], truncated=["b"]), False, True, [0, 1, 0]),
        (Scene([]), False, True, [0, 0, 0]),
        (Scene(["a", "b"], terminated=["a", "b"]), True, False, [0, 0, 0]),  # not taken out
    ],
    ids=["all for good", "all cut short", "both", "without a word", "still listed"],
)
def test_the_team_ends_when_nobody_is_left(last, terminated, truncated, present):
    _, seen, outcomes = play([Scene(["a", "b"]), last], 3)
    assert outcomes[0] == (0.0, terminated, truncated)
    assert outcomes[1] == (0.0, False, False)  # only resets
    assert outcomes[2] == outcomes[0]
    assert team(seen, "present") == [[1, 1, 0], present, [1, 1, 0], present]
    assert seen[2]["agents"]["b"].tolist() == [[0, 1]]


def test_each_copy_has_its_own_seed_and_episode():
    short = ScriptedTeam(ALL, [Scene(ALL), Scene([], terminated=ALL)])
    longer = ScriptedTeam(ALL, [Scene(ALL), Scene(ALL), Scene([], truncated=ALL)])
    env = vector_of(short, longer, central_state=True)
    observation, _ = env.reset(seed=7)
    states, ends = [observation["state"][:, 0].tolist()], []
    for _ in range(4):
        observation, _, terminated, truncated, _ = env.step(np.zeros((2, 3), np.int64))
        states.append(observation["state"][:, 0].tolist())
        ends.append((terminated.tolist(), truncated.tolist()))
    assert (short.seeds, longer.seeds) == ([0, 7, None, None], [8, None])  # 0 to see a state
    assert states == [[0, 0], [1, 1], [0, 2], [1, 0], [0, 1]]
    assert ends[0] == ([True, False], [False, False])
    assert ends[1] == ([False, False], [False, True])
    env.close()
    assert short.is_closed
    assert longer.is_closed


MASKED = spaces.Dict({"observation": SEEN, "action_mask": spaces.MultiBinary(3)})


def test_masks_lie_beside_what_is_observed():
    def seen(*masks: tuple[str, list[int]]):
        return {name: {"observation": np.ones(2), "action_mask": mask} for name, mask in masks}

    scenes = [
        Scene(["a", "b"], seen=seen(("a", [1, 0, 0]), ("b", [0, 1, 1]))),
        Scene(["b"], seen=seen(("a", [0, 0, 0]), ("b", [0, 0, 1])), terminated=["a"]),
    ]
    _, observed, _ = play(scenes, 1, observation=MASKED)
    assert [one["action_mask"][0].tolist() for one in observed] == [
        [1, 0, 0, 0, 1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0, 1, 1, 1, 1],
    ]
    assert list(observed[0]["agents"]["a"]) == ["observation"]


def test_masks_in_infos_are_those_of_all_agents():
    scenes = [
        Scene(["a", "b"], infos={"a": {"action_mask": [0, 1, 0]}}),
        Scene(["a", "b"], infos={"a": {"action_mask": np.array([0, 0, 1])}}),
    ]
    env = vector_of(ScriptedTeam(ALL, scenes))
    _, info = env.reset()
    assert info["action_mask"].tolist() == [[False, True, False] + [True] * 6]
    *_, info = env.step(np.zeros((1, 3), np.int64))
    assert info["action_mask"].tolist() == [[False, False, True] + [True] * 6]


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (
            Scene(["a", "z"]),
            "there is an agent 'z', which is none of a, b, c, in environment 0 in step 1",
        ),
        (Scene(["a"], {"z": 1.0}), "there is an agent 'z'"),
        (
            Scene(["a"], seen={"a": np.ones(3)}),
            "the observation of a has shape (3,) and dtype float64",
        ),
        (Scene(["a"], seen={"a": [np.nan, 0.0]}), "observation agents.a of environment 0 is nan"),
        (
            Scene(["a"], {"a": np.inf}),
            "the reward of a is inf; expected a finite number, in environment 0 in step 1",
        ),
        (Scene(["a"], {"a": np.array([1.0])}), "the reward of a is array([1.]); expected a"),
        (Scene(["a"], {"a": None}), "the reward of a is None"),
        (
            Scene(["a", "b"], seen={"a": np.ones(2)}),
            "b is there and has no observation, in environment 0 in step 1",
        ),
        (  # the value of what it would have gone on to see counts
            Scene([], truncated=["b"], seen={}),
            "b is there and has no observation",
        ),
    ],
)
def test_what_is_not_declared_is_refused(scene, words):
    env = vector_of(ScriptedTeam(ALL, [Scene(ALL), scene]))
    env.reset()
    with pytest.raises(RunFailedError) as raised:
        env.step(np.zeros((1, 3), np.int64))
    assert words in raised.value.what


class Slipping(ScriptedTeam):
    """What its functions return is changed on the way."""

    def __init__(self, *, of_reset=None, of_step=None):
        super().__init__(ALL, [Scene(ALL), Scene(ALL)])
        self._of_reset, self._of_step = of_reset, of_step

    def reset(self, seed=None):
        result = super().reset(seed)
        return result if self._of_reset is None else self._of_reset(*result)

    def step(self, actions):
        result = super().step(actions)
        return result if self._of_step is None else self._of_step(*result)


@pytest.mark.parametrize(
    ("of_step", "words"),
    [
        (lambda o, r, t, c, i: (o, r, t, i), "step returned 4 values; expected (observations, rew"),
        (lambda o, r, t, c, i: None, "step returned None; expected (observations, rewards"),
        (lambda o, r, t, c, i: (o, 1.0, t, c, i), "rewards of step are 1.0; expected a dict"),
        (lambda o, r, t, c, i: (o, {"a": 1.0}, t, c, i), "b was there and has no reward"),
    ],
)
def test_a_step_that_returns_something_else_is_refused(of_step, words):
    env = vector_of(Slipping(of_step=of_step))
    env.reset()
    with pytest.raises(RunFailedError) as raised:
        env.step(np.zeros((1, 3), np.int64))
    assert words in raised.value.what
    assert "in environment 0 in step 1" in raised.value.what


@pytest.mark.parametrize(
    ("of_reset", "words"),
    [
        (lambda o, i: o, "reset returned {'a'"),
        (lambda o, i: (o, None), "infos of reset are None; expected a dict"),
        (lambda o, i: ({"a": o["a"], "c": o["c"]}, i), "b is there and has no observation"),
    ],
)
def test_a_reset_that_returns_something_else_is_refused(of_reset, words):
    with pytest.raises(RunFailedError) as raised:
        vector_of(Slipping(of_reset=of_reset)).reset()
    assert words in raised.value.what
    assert "in environment 0 in reset" in raised.value.what


def test_an_environment_need_not_have_anything_to_close():
    class Open(ScriptedTeam):
        close = property()  # getting it raises AttributeError

    env = vector_of(Open(ALL, [Scene(ALL)]))
    env.reset()
    env.close()


def test_a_shape_inside_of_an_observation_is_told_once():
    seen = {"a": {"observation": np.ones(3), "action_mask": [1, 1, 1]}}
    env = vector_of(ScriptedTeam(ALL, [Scene(["a"], seen=seen)], observation=MASKED))
    with pytest.raises(RunFailedError, match=r": the observation of a has shape \(3,\)"):
        env.reset()


def test_a_mask_without_a_choice_names_its_agent():
    scenes = [
        Scene(["a", "b"], infos={"a": {"action_mask": [0, 1, 0]}}),
        Scene(["a", "b"], infos={"b": {"action_mask": [0, 0, 0]}}),
    ]
    env = vector_of(ScriptedTeam(ALL, scenes))
    env.reset()
    with pytest.raises(RunFailedError, match=r"of b has no valid choice, .* in step 1"):
        env.step(np.zeros((1, 3), np.int64))


def test_structured_actions_reach_each_agent():
    action = spaces.Dict({"gear": spaces.Discrete(3, start=1), "steer": spaces.Box(-2, 2, (1,))})
    copy = ScriptedTeam(("a", "b"), [Scene(["a", "b"]), Scene(["a", "b"])], action=action)
    env = vector_of(copy)
    env.reset()
    env.step(np.array([[0, 2, 0.5, -1.0]], np.float32))
    assert copy.chosen[0]["a"] == {"gear": 1, "steer": np.array([1.0], np.float32)}
    assert copy.chosen[0]["b"] == {"gear": 3, "steer": np.array([-2.0], np.float32)}


def test_names_are_text_and_have_no_dots():
    env = ParallelTeam([ScriptedTeam([0, "x.y"], [Scene([])])], "scripted")
    assert env.agents == ("0", "x_y")


def test_a_central_state_has_to_be_there():
    class Without(ScriptedTeam):
        def state(self) -> np.ndarray:
            raise NotImplementedError

    with pytest.raises(ConfigError) as raised:
        ParallelTeam([Without(ALL, [Scene(ALL)])], "scripted", central_state=True)
    assert raised.value.where == "env.central_state"


@pytest.mark.parametrize("possible", [[], [1, "1"]])
def test_agents_need_names_that_differ(possible):
    with pytest.raises(ConfigError, match="agents"):
        ParallelTeam([ScriptedTeam(possible, [Scene([])])], "scripted")
