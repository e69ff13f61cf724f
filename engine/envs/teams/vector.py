"""The vector environment of a team: one Dict of observations, one joint action, one reward.

`engine.spaces.team` says what is observed. The reward is the sum of the agents' rewards. Copies
restart in next-step mode: what a step returns with the team's end is the last observation, and the
next step only resets. In that last observation those whose own episode was cut short count as
present, so that their values stand for what would have come.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from engine.spaces.action_parts import parts_of
from engine.spaces.leaves import AnySpace, Structure
from engine.spaces.observations import MASK
from engine.spaces.team import (
    AGENTS,
    CENTRAL_STATE,
    PRESENT,
    REWARD,
    TEAM,
    TERMINATED,
    joint_action,
    joint_observation,
)

Array: TypeAlias = npt.NDArray[Any]
Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
TeamStep: TypeAlias = tuple[dict[str, Any], Floats, Bools, Bools, dict[str, Any]]


class TeamVectorEnv(VectorEnv[Any, Any, Any], ABC):
    """Base of all environments of several agents.

    Args:
        num_envs: B.
        observations: Space of what each agent observes by its name, in order, without a mask.
        actions: Space of each agent's actions.
        state: Space of the central state, if it is to be observed.
        has_action_mask: Whether observations have action masks, of all agents.
        metadata: More of Gymnasium's metadata, such as `render_modes`.

    Attributes:
        agent_observations, agent_actions: Spaces by the name of the agent, as given.
        state_space, has_action_mask: As given.
        num_choices: Entries of a mask of all agents.
    """

    def __init__(
        self,
        num_envs: int,
        observations: Mapping[str, AnySpace],
        actions: Mapping[str, AnySpace],
        state: spaces.Box | None = None,
        *,
        has_action_mask: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.metadata = {**(metadata or {}), "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = num_envs
        self.agent_observations, self.agent_actions = dict(observations), dict(actions)
        self.state_space, self.has_action_mask = state, has_action_mask
        joint = joint_observation(observations, state)
        self.single_action_space = joint_action(actions)
        self.num_choices = parts_of(self.single_action_space).num_logits
        if has_action_mask:
            masks = spaces.MultiBinary(self.num_choices)
            joint = spaces.Dict(OrderedDict([*joint.items(), (MASK, masks)]))
        self.single_observation_space = joint
        self.observation_space = batch_space(joint, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    @property
    def agents(self) -> tuple[str, ...]:
        """All that can ever be there, in order."""
        return tuple(self.agent_observations)


def observation_of(
    observed: Mapping[str, Structure],
    reward: Array,
    present: Array,
    terminated: Array,
    state: Array | None = None,
    mask: Array | None = None,
) -> dict[str, Any]:
    """What a team's environment returns as its observation.

    Args:
        observed: Of each agent by name, each leaf [B, ...].
        reward: For the step that led here, of each agent, [B, agents].
        present: Who chooses an action now, [B, agents].
        terminated: Whose own episode has just ended for good, [B, agents].
        state: Central states, [B, ...], if they are observed.
        mask: Valid choices of all agents, [B, choices], if there are masks.
    """
    of_team = {
        REWARD: reward.astype(np.float32, copy=False),
        PRESENT: present.astype(np.int8, copy=False),
        TERMINATED: terminated.astype(np.int8, copy=False),
    }
    observation: dict[str, Any] = {AGENTS: dict(observed), TEAM: of_team}
    if state is not None:
        observation[CENTRAL_STATE] = state
    if mask is not None:
        observation[MASK] = mask.astype(np.int8)
    return observation


def total_of(reward: Array) -> Floats:
    """The team's reward, [B]: the sum of the agents' rewards as they are observed, so that returns
    of agents add up to those of teams.

    Args:
        reward: Of each agent, [B, agents].
    """
    total: Floats = reward.astype(np.float32, copy=False).sum(axis=1, dtype=np.float64)
    return total


class BatchedTeam(TeamVectorEnv):
    """All copies as arrays, for environments whose agents come and go only together.

    A subclass says how copies begin, move and are observed. What it returns is not written to
    afterwards; neither does this class.

    Args:
        num_envs, observations, actions, state, has_action_mask: See `TeamVectorEnv`.
        max_episode_steps: Longer episodes are truncated; None: never.
    """

    def __init__(
        self,
        num_envs: int,
        observations: Mapping[str, AnySpace],
        actions: Mapping[str, AnySpace],
        state: spaces.Box | None = None,
        *,
        has_action_mask: bool = False,
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(num_envs, observations, actions, state, has_action_mask=has_action_mask)
        self._max_episode_steps = max_episode_steps
        self._shape = (num_envs, len(observations))
        self._age = np.zeros(num_envs, np.int64)
        self._has_ended = np.zeros(num_envs, np.bool_)
        self._everywhere = np.ones(num_envs, np.bool_)
        self._present = np.ones(self._shape, np.int8)
        self._nobody = np.zeros(self._shape, np.int8)
        self._no_reward = np.zeros(self._shape, np.float32)
        self.generator = np.random.default_rng()

    @abstractmethod
    def begin(self, where: Bools) -> None:
        """Begins an episode in these copies, [B]; its randomness comes from `generator`."""

    @abstractmethod
    def move(self, actions: Mapping[str, Array]) -> tuple[Array, Bools]:
        """One step of all copies.

        Args:
            actions: Of each agent by name, [B, ...], values of its action space. Those of a copy
                that is about to begin an episode mean nothing.

        Returns:
            Rewards of each agent, [B, agents], and which episodes have ended for good, [B].
        """

    @abstractmethod
    def observe(self) -> Mapping[str, Structure]:
        """What each agent observes, each leaf [B, ...]."""

    def state(self) -> Array:
        """The central states, [B, ...]; for those that have any."""
        raise NotImplementedError

    def masks(self) -> Array:
        """Valid choices of all agents, one agent after the other, [B, choices]; for those that
        have masks."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begins an episode in every copy; all of them draw from one generator."""
        if seed is not None:
            self.generator = np.random.default_rng(seed if isinstance(seed, int) else seed[0])
        self._age.fill(0)
        self._has_ended = np.zeros(self.num_envs, np.bool_)
        self.begin(self._everywhere)
        return self._observation(self._no_reward, self._present, self._nobody), {}

    def step(self, actions: Mapping[str, Array]) -> TeamStep:
        """One step of all copies; those whose episode has ended only begin another."""
        resets = self._has_ended
        reward, terminated = self.move(actions)
        self._age += 1
        if resets.any():
            self.begin(resets)
            self._age[resets] = 0
            reward = np.where(resets[:, None], 0.0, reward)
            terminated = terminated & ~resets
        truncated = np.zeros(self.num_envs, np.bool_)
        if self._max_episode_steps is not None:
            truncated = (self._age >= self._max_episode_steps) & ~terminated
        self._has_ended = terminated | truncated
        present, ended = self._present, self._nobody
        if terminated.any():
            ended = np.broadcast_to(terminated[:, None], self._shape).astype(np.int8)
            present = 1 - ended
        observation = self._observation(reward, present, ended)
        return observation, total_of(reward), terminated, truncated, {}

    def _observation(self, reward: Array, present: Array, ended: Array) -> dict[str, Any]:
        state = None if self.state_space is None else self.state()
        mask = self.masks() if self.has_action_mask else None
        return observation_of(self.observe(), reward, present, ended, state, mask)
