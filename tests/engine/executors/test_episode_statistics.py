"""Books kept once a rollout are those of a clerk who sits by and writes down every step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.executors.episode_statistics import EpisodeStatistics


class Clerk:
    """Step by step, environment by environment."""

    def __init__(self, num_envs: int) -> None:
        self.resets = [False] * num_envs
        self.returns = [0.0] * num_envs
        self.lengths = [0] * num_envs

    def enter(self, reward: torch.Tensor, done: torch.Tensor):
        valid, ended = torch.ones_like(done), []
        for t in range(len(done)):
            for env in range(done.shape[1]):
                valid[t, env] = not self.resets[env]
                if valid[t, env]:
                    self.returns[env] += float(reward[t, env])
                    self.lengths[env] += 1
                self.resets[env] = bool(done[t, env])
                if done[t, env]:
                    ended.append((t, self.returns[env], self.lengths[env]))
                    self.returns[env], self.lengths[env] = 0.0, 0
        return valid, ended


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    rows=st.lists(st.integers(0, 7), min_size=1, max_size=6),
    num_envs=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_they_agree_with_a_clerk(seed: int, rows: list[int], num_envs: int, share: float):
    random = torch.Generator().manual_seed(seed)
    rollout_ledger, clerk = EpisodeStatistics(num_envs), Clerk(num_envs)
    for num_rows in rows:
        reward = torch.randn(num_rows, num_envs, generator=random)
        done = torch.rand(num_rows, num_envs, generator=random) < share
        entries, (valid, ended) = (
            rollout_ledger.enter(reward.numpy(), done.numpy()),
            clerk.enter(reward, done),
        )
        assert np.array_equal(entries.valid, valid.numpy())
        assert entries.num_env_steps == int(valid.sum())
        assert [(t, length) for t, _, length in entries.ended] == [(t, n) for t, _, n in ended]
        found = [total for _, total, _ in entries.ended]
        assert found == pytest.approx([total for _, total, _ in ended], abs=1e-4)


@pytest.mark.parametrize("count", [2, 3])
def test_actors_in_the_same_environments_count_each_step_and_episode_once(count: int):
    done = torch.rand(12, 5, generator=torch.Generator().manual_seed(0)) < 0.2
    whole = EpisodeStatistics(5).enter(np.ones((12, 5)), done.numpy())
    shares = [whole.share(number, count) for number in range(count)]
    assert sum(item.num_env_steps for item in shares) == whole.num_env_steps < done.numel()
    episodes = [episode for item in shares for episode in item.ended]
    assert sorted(episodes) == sorted(whole.ended)
    assert len(whole.ended) > 5
