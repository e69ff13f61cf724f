"""Observations of any structure and action masks, as vector environments return them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from engine.algorithms.base import Spaces
from engine.envs.checked import checked
from engine.envs.make import make_vector_env, register_environment, spaces_of
from engine.envs.masks import MaskReader
from engine.envs.observed import Observed, look_at_first
from engine.errors import RunFailedError
from engine.spec import EnvSpec

INNER = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3, start=1)})
CHOICES = spaces.Dict({"kind": spaces.MultiDiscrete([2, 3]), "size": spaces.Box(0, 1, (1,))})
FLAT = np.array([1, 0, 0, 1, 1], np.int8)


class Masked(gymnasium.Env[Any, Any]):
    """Gives the mask that it was made with; its episodes end after two steps."""

    observation_space: gymnasium.Space[Any] = INNER
    action_space: gymnasium.Space[Any] = CHOICES

    def __init__(self, mask: object = None, last: object = None, inside: bool = False) -> None:
        self._mask, self._last, self._inside = mask, last, inside
        if inside:
            self.observation_space = spaces.Dict(
                {"action_mask": spaces.MultiBinary(5), "observation": INNER}
            )

    def _told(self, mask: object) -> tuple[Any, dict[str, Any]]:
        seen = {"a": np.array([self._age, 0], np.float32), "b": 1 + self._age}
        if self._inside:
            return {"observation": seen, "action_mask": mask}, {}
        return seen, {} if mask is None else {"action_mask": mask}

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self._age = 0
        return self._told(self._mask)

    def step(self, action: object) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._age += 1
        ends = self._age == 2
        seen, info = self._told(self._last if ends else self._mask)
        return seen, 0.0, ends, False, info


def vector(**kwargs: object) -> SyncVectorEnv:
    return SyncVectorEnv(
        [lambda: Masked(**kwargs)] * 2,  # type: ignore[arg-type]
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )


def observed(env: SyncVectorEnv) -> Observed:
    spaces_, _ = look_at_first(env, spaces_of(env), EnvSpec(id="Masked-v0", num_envs=2), 0)
    return Observed(env.single_observation_space, spaces_, 2, "Masked-v0")


@pytest.mark.parametrize(
    "mask",
    [
        FLAT,
        FLAT.astype(bool),
        FLAT.tolist(),
        (np.array([1, 0]), np.array([0, 1, 1])),
        {"kind": FLAT},
        {"kind": (np.array([1, 0]), np.array([0, 1, 1])), "size": None},
        {"kind": FLAT.tolist()},
    ],
    ids=["int8", "bool", "list", "tuple", "by leaf", "by leaf and entry", "by leaf, list"],
)
def test_masks_of_every_form_are_flat_over_the_choices(mask: object):
    env = vector(mask=mask)
    arrays = observed(env).arrays(*env.reset(seed=0))
    assert arrays["action_mask"].dtype == np.bool_
    assert arrays["action_mask"].astype(int).tolist() == [FLAT.tolist()] * 2
    assert set(arrays) == {"observation.a", "observation.b", "action_mask"}


def test_a_mask_beside_the_observation_is_no_part_of_it():
    env = vector(mask=FLAT, inside=True)
    assert spaces_of(env).has_action_mask
    assert spaces_of(env).observation == spaces.Dict({"observation": INNER})
    arrays = observed(env).arrays(*env.reset(seed=0))
    assert set(arrays) == {"observation.observation.a", "observation.observation.b", "action_mask"}
    assert arrays["action_mask"].astype(int).tolist() == [FLAT.tolist()] * 2


@pytest.mark.parametrize("last", [None, np.zeros(5, np.int8)], ids=["missing", "nothing valid"])
def test_after_an_episode_s_end_a_mask_may_be_empty(last: object):
    env = vector(mask=FLAT, last=last)
    of = observed(env)
    of.arrays(*env.reset(seed=0))
    actions = env.action_space.sample()
    for _ in range(2):
        seen, _, ended, _, info = env.step(actions)
        arrays = of.arrays(seen, info, ended)
    assert ended.all()
    assert arrays["action_mask"].all()
    seen, _, ended, _, info = env.step(actions)  # only resets
    assert of.arrays(seen, info, ended)["action_mask"].astype(int).tolist() == [FLAT.tolist()] * 2


@pytest.mark.parametrize(
    ("mask", "what"),
    [
        (np.array([1, 0, 0, 0, 0]), "of environment 1 has no valid choice in step 1"),
        (np.array([0, 0, 1, 0, 0]), "of environment 1 has no valid choice in step 1"),
        (np.ones(4), "has 4 entries; expected 5"),
        (None, "of environment 1 is missing in step 1"),
    ],
    ids=["second entry", "first entry", "size", "missing"],
)
def test_a_mask_that_leaves_no_choice_names_environment_and_step(mask: object, what: str):
    reader = MaskReader(CHOICES, "info", 2, "Masked-v0")
    reader.read({}, {"action_mask": np.stack([FLAT, FLAT]), "_action_mask": np.array([True, True])})
    given = np.empty(2, object)
    given[0], given[1] = FLAT, mask
    has = np.array([True, mask is not None])
    with pytest.raises(RunFailedError, match=what) as error:
        reader.read({}, {"action_mask": given, "_action_mask": has}, np.zeros(2, bool))
    assert error.value.where == "env.id Masked-v0"


def test_a_flat_list_for_a_tuple_of_actions_is_not_taken_for_its_parts():
    action = spaces.Tuple((spaces.Discrete(3), spaces.Discrete(2)))
    given = np.empty(1, object)
    given[0] = [1, 0, 1, 0, 1]
    reader = MaskReader(action, "info", 1, "")
    assert reader.read({}, {"action_mask": given}).astype(int).tolist() == [[1, 0, 1, 0, 1]]


def test_keys_of_actions_may_begin_with_an_underscore():
    action = spaces.Dict({"_a": spaces.Discrete(2), "b": spaces.Discrete(2)})
    given = {"_a": np.array([[1, 0]]), "__a": np.array([True]), "b": np.array([[0, 1]])}
    reader = MaskReader(action, "info", 1, "")
    assert reader.read({}, {"action_mask": given}).astype(int).tolist() == [[1, 0, 0, 1]]


def test_errors_count_environments_over_splits_and_steps_from_the_reset():
    reader = MaskReader(spaces.Discrete(2), "info", 2, "", first_env=4)
    good = {"action_mask": np.ones((2, 2))}
    ended = np.zeros(2, bool)
    for _ in range(2):
        reader.read({}, good)
        reader.read({}, good, ended)
    with pytest.raises(RunFailedError, match="of environment 5 has no valid choice in step 2"):
        reader.read({}, {"action_mask": np.array([[1, 1], [0, 0]])}, ended)


def test_a_mask_that_only_step_gives_is_an_error():
    class Late(Masked):
        def reset(self, *, seed: int | None = None, options: object = None) -> tuple[Any, Any]:
            return super().reset(seed=seed)[0], {}

    env = checked(SyncVectorEnv([lambda: Late(mask=FLAT)]), "Late-v0")
    env.reset(seed=0)
    with pytest.raises(RunFailedError, match="action_mask is in the info of step, and was not"):
        env.step(env.action_space.sample())


def test_without_choices_to_make_a_key_of_that_name_is_observed():
    class Continuous(Masked):
        action_space = spaces.Box(0, 1, (2,))

    env = SyncVectorEnv([lambda: Continuous(mask=FLAT, inside=True)])
    found = spaces_of(env)
    assert found == Spaces(env.single_observation_space, env.single_action_space)
    arrays = Observed(env.single_observation_space, found, 1, "").arrays(*env.reset(seed=0))
    assert "observation.action_mask" in arrays


class Wrong(gymnasium.Env[Any, Any]):
    """Returns one wrong leaf in its first step."""

    observation_space = spaces.Dict(
        {
            "real": spaces.Box(-np.inf, np.inf, (2,)),
            "gear": spaces.Discrete(3, start=1),
            "dials": spaces.Tuple((spaces.MultiDiscrete([2, 5]), spaces.MultiBinary(2))),
        }
    )
    action_space = spaces.Discrete(2)

    def __init__(self, leaf: str = "", value: object = None) -> None:
        self._leaf, self._value = leaf, value

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        return self._right(), {}

    def _right(self) -> dict[str, Any]:
        dials = (np.array([1, 4]), np.array([0, 1], np.int8))
        return {"real": np.zeros(2, np.float32), "gear": 3, "dials": dials}

    def step(self, action: object) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return {**self._right(), self._leaf: self._value}, 0.0, False, False, {}


@pytest.mark.parametrize(
    ("leaf", "value", "what"),
    [
        ("real", np.array([0, np.nan], np.float32), "observation real of environment 0 is nan"),
        ("real", np.zeros(3, np.float32), r"observation real of environment 0 has shape \(3,\)"),
        ("gear", 4, "observation gear of environment 0 is 4, outside its space"),
        ("gear", 0, "observation gear of environment 0 is 0, outside its space"),
        (
            "dials",
            (np.array([1, 5]), np.array([0, 1], np.int8)),
            "observation dials.0 of environment 0 is 5",
        ),
        (
            "dials",
            (np.array([1, 4]), np.array([0, 2], np.int8)),
            "observation dials.1 of environment 0 is 2",
        ),
    ],
)
def test_a_wrong_leaf_is_named(leaf: str, value: object, what: str):
    env = checked(SyncVectorEnv([lambda: Wrong(leaf, value)] * 2), "Wrong-v0")  # type: ignore[list-item]
    env.reset(seed=0)
    with pytest.raises(RunFailedError, match=what) as error:
        env.step(np.zeros(2, np.int64))
    assert "in step 1" in error.value.what


def test_a_structure_that_is_another_is_named():
    class Lacking(Wrong):
        def step(self, action: object) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return {"real": np.zeros(2, np.float32)}, 0.0, False, False, {}

    env = checked(SyncVectorEnv([Lacking]), "Wrong-v0")
    env.reset(seed=0)
    with pytest.raises(RunFailedError, match=r"observation of environment 0 is .'real'"):
        env.step(np.zeros(1, np.int64))


def test_spaces_without_a_fixed_size_are_refused_when_the_environment_is_made():
    class Speaks(Wrong):
        observation_space = spaces.Dict({"said": spaces.Text(5)})

    register_environment("Speaks-v0", Speaks)
    with pytest.raises(Exception, match="'said' of the observation space is a Text"):
        make_vector_env(EnvSpec(id="Speaks-v0"))
