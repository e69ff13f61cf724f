"""Returns by name, and whose may be asked for."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from engine.errors import ConfigError
from engine.spaces.team import Team, check_return_of
from engine.testing import team_spaces


def team_of(policies: dict[str, tuple[str, ...]]) -> Team:
    names = sorted(name for members in policies.values() for name in members)
    observations = dict.fromkeys(names, Box(-1, 1, (2,), np.float32))
    team = team_spaces(observations, dict.fromkeys(names, Discrete(2)), policies).team
    assert team is not None
    return team


def test_returns_of_policies_are_sums_over_their_agents() -> None:
    team = team_of({"odd": ("a", "c"), "even": ("b",)})
    assert team.by_name([1.0, -2.0, 4.0]) == (
        {"a": 1.0, "b": -2.0, "c": 4.0},
        {"odd": 5.0, "even": -2.0},
    )


@pytest.mark.parametrize("name", [None, "a", "c", "odd", "even"])
def test_an_agent_or_a_policy_can_be_judged(name: str | None) -> None:
    check_return_of(name, team_of({"odd": ("a", "c"), "even": ("b",)}))


def test_an_agent_that_has_a_policy_alone_can_be_judged_by_their_common_name() -> None:
    check_return_of("a", team_of({"a": ("a",), "b": ("b",)}))


def test_whom_there_is_not_cannot_be_judged() -> None:
    with pytest.raises(ConfigError, match="no agent and no policy 'd'") as caught:
        check_return_of("d", team_of({"odd": ("a", "c"), "even": ("b",)}))
    assert (caught.value.where, caught.value.fix) == (
        "stop.return_of",
        "use one of a, b, c, odd, even",
    )


def test_of_one_agent_there_is_nothing_to_choose() -> None:
    with pytest.raises(ConfigError, match="the environment has one agent"):
        check_return_of("a", None)


def test_a_name_with_two_meanings_is_refused() -> None:
    with pytest.raises(ConfigError, match="'a' is an agent, and the policy of others"):
        check_return_of("a", team_of({"a": ("a", "b"), "c": ("c",)}))
