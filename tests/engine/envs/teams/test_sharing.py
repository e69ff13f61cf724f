"""Who shares a policy."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from engine.envs.teams.sharing import policies_of
from engine.errors import ConfigError

WIDE, NARROW = spaces.Box(-1, 1, (4,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
OBSERVATIONS = {"wolf_0": WIDE, "sheep_0": NARROW, "wolf_1": WIDE, "sheep_1": NARROW}
ACTIONS = {name: spaces.Discrete(5 if name.startswith("wolf") else 3) for name in OBSERVATIONS}


def members(sharing, observations=OBSERVATIONS, actions=ACTIONS):
    return [(p.name, p.agents) for p in policies_of(sharing, observations, actions)]


def test_groups_are_patterns_and_come_in_the_order_of_their_agents():
    found = members({"prey": ("sheep_*",), "hunters": ("wolf_0", "wolf_1")})
    assert found == [("hunters", (0, 2)), ("prey", (1, 3))]


def test_a_policy_has_the_spaces_of_its_agents():
    hunters, prey = policies_of({"h": ("wolf_*",), "p": ("*sheep*",)}, OBSERVATIONS, ACTIONS)
    assert (hunters.observation, prey.observation) == (WIDE, NARROW)
    assert (hunters.action, prey.action) == (spaces.Discrete(5), spaces.Discrete(3))


def test_separate_agents_have_their_own_names():
    assert members("separate") == [(name, (i,)) for i, name in enumerate(OBSERVATIONS)]


def test_null_is_shared():
    equal = dict.fromkeys(["a", "b"], WIDE)
    actions = dict.fromkeys(["a", "b"], spaces.Discrete(2))
    assert (
        members(None, equal, actions) == members("shared", equal, actions) == [("shared", (0, 1))]
    )


@pytest.mark.parametrize(
    ("sharing", "words"),
    [
        (None, "wolf_0 and sheep_0 cannot share the policy 'shared': they observe in different"),
        ({"all": ("*",)}, "cannot share the policy 'all'"),
        ({"h": ("wolf_*",)}, "sheep_0, sheep_1 have no policy"),
        ({"h": ("wolf_*", "sheep_0"), "p": ("sheep_*",)}, "sheep_0 has the policy h already"),
        ({"h": ("wolf_*",), "p": ("goat_*",)}, "'goat_*' is no agent"),
        ({"h": (), "p": ("*",)}, "it has no agents"),
        ({"h.1": ("*",)}, "'h.1' cannot be the name of a policy"),
        ({}, "it names no policy"),
        ({"train": ("*",)}, "'train' cannot be the name of a policy"),
    ],
)
def test_what_does_not_fit_is_told(sharing, words):
    with pytest.raises(ConfigError) as raised:
        policies_of(sharing, OBSERVATIONS, ACTIONS)
    assert words in str(raised.value)
    assert raised.value.where is not None
    assert raised.value.where.startswith("agents")
