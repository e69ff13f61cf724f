"""Returns of agents are those of a clerk who sits by and writes down every step of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.executors.episode_statistics import EpisodeStatistics
from engine.executors.team_statistics import TeamStatistics, TeamTally
from engine.testing import team_spaces

NAMES = ("hunter_0", "hunter_1", "prey")
SPACES = team_spaces(
    dict.fromkeys(NAMES, Box(-1, 1, (2,), np.float32)),
    dict.fromkeys(NAMES, Discrete(3)),
    {"hunters": ("hunter_0", "hunter_1"), "prey": ("prey",)},
)
assert SPACES.team is not None
TEAM = SPACES.team


def clerk(reward: torch.Tensor, present: torch.Tensor, done: torch.Tensor):
    """Agent steps, and each agent's return in each episode, in the order of rows."""
    num_envs, steps, ended = done.shape[1], 0, []
    resets, returns = [False] * num_envs, [[0.0] * 3 for _ in range(num_envs)]
    for t in range(len(done)):
        for env in range(num_envs):
            if not resets[env]:
                steps += int(present[t, env].sum())
                for agent in range(3):
                    returns[env][agent] += float(reward[t, env, agent])
            resets[env] = bool(done[t, env])
            if done[t, env]:
                ended.append(returns[env])
                returns[env] = [0.0] * 3
    return steps, ended


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    rows=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    num_envs=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_they_agree_with_a_clerk(seed: int, rows: list[int], num_envs: int, share: float) -> None:
    random = torch.Generator().manual_seed(seed)
    shape = (sum(rows), num_envs)
    reward = torch.randn(*shape, 3, generator=random)
    present = (torch.rand(*shape, 3, generator=random) < 0.7).to(torch.int8)
    done = torch.rand(*shape, generator=random) < share
    episodes = EpisodeStatistics(num_envs)
    statistics = TeamStatistics(TEAM, num_envs)
    steps, found = 0, []
    for part in torch.arange(sum(rows)).split(rows) if rows else ():
        entries = episodes.enter(reward[part].sum(-1).numpy(), done[part].numpy())
        entered = statistics.enter(reward[part].numpy(), present[part].numpy(), entries)
        steps += entered.agent_steps
        found += entered.ended
        parts = [entered.share(number, 2) for number in range(2)]
        assert sum(one.agent_steps for one in parts) == entered.agent_steps
        assert sum(len(one.ended) for one in parts) == len(entered.ended)
        totals = [total for _, total, _ in entries.ended]
        assert [sum(one.agents.values()) for one in entered.ended] == pytest.approx(
            totals, abs=1e-4
        )
    wanted_steps, ended = clerk(reward, present, done)
    assert steps == wanted_steps
    assert [list(one.agents.values()) for one in found] == [
        pytest.approx(returns, abs=1e-4) for returns in ended
    ]
    for one in found:
        assert list(one.agents) == list(NAMES)
        hunters = one.agents["hunter_0"] + one.agents["hunter_1"]
        assert one.policies == {"hunters": pytest.approx(hunters), "prey": one.agents["prey"]}


def test_a_tally_counts_only_first_episodes() -> None:
    tally = TeamTally(TEAM, num_envs=2)
    tally.add(np.full((2, 3), 2.0, np.float32), np.array([True, True]))
    tally.add(np.full((2, 3), 4.0, np.float32), np.array([True, False]))
    assert tally.mean.agents == {"hunter_0": 4.0, "hunter_1": 4.0, "prey": 4.0}  # of 6 and 2
    assert tally.mean.policies == {"hunters": 8.0, "prey": 4.0}
