"""Plays whole episodes with a trained policy."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
import torch

from engine.envs.observed import Observed
from engine.envs.rendering import RenderedEnv
from engine.envs.torch_vector import make_any_vector_env
from engine.executors.policy_runner import PolicyRunner
from engine.executors.team_statistics import TeamTally
from engine.layers.flat import flatten
from engine.spaces.team import REWARD_FIELD, Team, TeamReturns
from engine.trained.load import Trained

EndedBy: TypeAlias = Literal["terminated", "truncated", "limit"]
"""`limit`: it had not ended after as many env steps as an episode may take."""


@dataclass(frozen=True)
class PlayRules:
    """How episodes are played.

    Attributes:
        is_sampled: Actions are sampled as in training, exploration included; else they are the
            best known ones.
        max_env_steps: An episode that has not ended after so many ends there.
    """

    is_sampled: bool = False
    max_env_steps: int = 100_000


class PlayedEpisode(NamedTuple):
    """An episode that has ended.

    Attributes:
        number: That of its environment.
        episode_return: Undiscounted sum of the environment's own rewards.
        length_env_steps: Its length.
        ended_by: Why it ended.
        of_team: The returns within a team; None of a single agent.
    """

    number: int
    episode_return: float
    length_env_steps: int
    ended_by: EndedBy
    of_team: TeamReturns | None


def play_group(
    trained: Trained, num_envs: int, seed: int, rules: PlayRules
) -> Iterator[list[PlayedEpisode]]:
    """Plays the first episode of each of some environments that step together.

    They are made as an evaluator makes them, so the returns are the environment's own: rewards are
    neither scaled nor clipped, and a lost life ends nothing. Greedy episodes equal those of an
    evaluator with as many episodes and this seed.

    Args:
        trained: Who plays.
        num_envs: B.
        seed: Environment i starts from seed + i, where environments have seeds of their own. Also
            that of sampled actions.
        rules: How.

    Yields:
        After each vector step, the episodes that ended with it.

    Raises:
        ConfigError: The environment cannot be made.
        RunFailedError: It returned something invalid.
    """
    _seed_globally(seed)
    spec = msgspec.structs.replace(
        trained.experiment.env, num_envs=num_envs, num_splits=1, step_latency_ms=0.0
    )
    env = make_any_vector_env(spec)
    try:
        of = Observed(env.single_observation_space, trained.spaces, num_envs, spec.id)
        runner = _runner(trained, num_envs, seed, rules)
        arrays = of.arrays(*env.reset(seed=seed))
        tally = _Tally(trained.spaces.team, num_envs, rules.max_env_steps)
        while tally.plays.any():
            observation, reward, terminated, truncated, info = env.step(runner.act(arrays))
            arrays = of.arrays(observation, info, terminated | truncated)
            yield tally.count(reward, terminated, truncated, arrays)
    finally:
        env.close()


@dataclass(frozen=True)
class Moment:
    """An episode under way.

    Attributes:
        episode_return: So far.
        length_env_steps: So far.
        ended_by: Why it has ended; None if it has not.
        of_team: The returns within a team, once it has ended.
    """

    episode_return: float
    length_env_steps: int
    ended_by: EndedBy | None
    of_team: TeamReturns | None = None


def play_rendered(
    trained: Trained, env: RenderedEnv, seed: int, rules: PlayRules
) -> Iterator[Moment]:
    """Plays one episode in an environment that is rendered.

    Args:
        trained: Who plays.
        env: Where.
        seed: The episode starts from it. Also that of sampled actions.
        rules: How.

    Yields:
        After the reset, and after each step; the last one tells why the episode has ended.
    """
    _seed_globally(seed)
    spec = trained.experiment.env
    tally = _Tally(trained.spaces.team, 1, rules.max_env_steps)
    of = Observed(env.env.single_observation_space, trained.spaces, 1, spec.id)
    runner = _runner(trained, 1, seed, rules)
    arrays = of.arrays(*env.reset(seed))
    yield Moment(0.0, 0, None)
    while tally.plays.any():
        observation, reward, terminated, truncated, info = env.step(runner.act(arrays))
        arrays = of.arrays(observation, info, terminated | truncated)
        ended = tally.count(reward, terminated, truncated, arrays)
        ended_by, of_team = (ended[0].ended_by, ended[0].of_team) if ended else (None, None)
        yield Moment(float(tally.returns[0]), int(tally.lengths[0]), ended_by, of_team)


class _Tally:
    """Returns and lengths of the first episodes of B environments.

    Args:
        team: The agents; None: one.
        num_envs: B.
        max_env_steps: See `PlayRules`.
    """

    def __init__(self, team: Team | None, num_envs: int, max_env_steps: int) -> None:
        self._of_team = None if team is None else TeamTally(team, num_envs)
        self.plays = np.ones(num_envs, np.bool_)
        self.returns = np.zeros(num_envs, np.float64)
        self.lengths = np.zeros(num_envs, np.int64)
        self._max_env_steps = max_env_steps

    def count(
        self,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        arrays: Mapping[str, np.ndarray],
    ) -> list[PlayedEpisode]:
        """Counts a step, with what it led to by field name; returns the episodes that ended with
        it."""
        self.returns += reward * self.plays
        if self._of_team is not None:
            self._of_team.add(arrays[REWARD_FIELD], self.plays)
        self.lengths += self.plays
        is_over = terminated | truncated | (self.lengths >= self._max_env_steps)
        ended = np.flatnonzero(self.plays & is_over)
        self.plays &= ~is_over
        return [self._ended(int(i), bool(terminated[i]), bool(truncated[i])) for i in ended]

    def _ended(self, index: int, terminated: bool, truncated: bool) -> PlayedEpisode:
        ended_by: EndedBy = "terminated" if terminated else "truncated" if truncated else "limit"
        of_team = None if self._of_team is None else self._of_team.of(index)
        total, length = float(self.returns[index]), int(self.lengths[index])
        return PlayedEpisode(index, total, length, ended_by, of_team)


def _runner(trained: Trained, num_envs: int, seed: int, rules: PlayRules) -> PolicyRunner:
    flatten(trained.network)  # as actors have it: the place of parameters decides the last digits
    generator = torch.Generator().manual_seed(seed) if rules.is_sampled else None
    return trained.runner(num_envs, generator)


def _seed_globally(seed: int) -> None:
    """For environments that draw from generators of the whole process, not from their own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
