"""Environments of PettingZoo's parallel API, one copy after the other, as one vector of a team."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from gymnasium import spaces

from engine.envs.teams.agent_ids import AgentIds
from engine.envs.teams.moment import TeamLayout, TeamMoment
from engine.envs.teams.returned import ByAgent, Occasion, of_reset
from engine.envs.teams.vector import Array, TeamStep, TeamVectorEnv, total_of
from engine.errors import ConfigError
from engine.spaces.leaves import AnySpace, Structure, leaf_values, structure_of
from engine.spaces.observations import MASK, has_mask_key, without_mask

AgentId: TypeAlias = Any
"""Any object that can be a key; text as a rule."""


class ParallelEnvironment(Protocol):
    """What is used of a `pettingzoo.ParallelEnv`; `close` need not be there."""

    possible_agents: list[AgentId]
    metadata: dict[str, Any]

    @property
    def agents(self) -> list[AgentId]: ...

    @property
    def observation_space(self) -> Callable[[AgentId], AnySpace]: ...

    @property
    def action_space(self) -> Callable[[AgentId], AnySpace]: ...

    def reset(self, seed: int | None = None) -> tuple[ByAgent, ByAgent]: ...

    def step(self, actions: ByAgent) -> tuple[ByAgent, ByAgent, ByAgent, ByAgent, ByAgent]: ...

    @property
    def state(self) -> Callable[[], Array]: ...

    @property
    def render(self) -> Callable[[], object]: ...

    @property
    def close(self) -> Callable[[], None]: ...


class ParallelTeam(TeamVectorEnv):
    """Copies that are stepped one after the other.

    Whoever is in `agents` after a reset or a step is present. The team's episode ends when nobody
    is left: for good if everyone whose episode ended then has terminated, otherwise by truncation.
    Action masks are read from observations or, if the first reset has some there, from infos.

    Args:
        envs: The copies, B of them, which have equal agents and spaces.
        env_id: For errors.
        central_state: Whether their states are observed.

    Raises:
        ConfigError: It names no agents, or has no central state that can be observed.
    """

    def __init__(
        self, envs: Sequence[ParallelEnvironment], env_id: str, *, central_state: bool = False
    ) -> None:
        first = envs[0]
        self._envs = list(envs)
        self._ids = ids = AgentIds(getattr(first, "possible_agents", ()), env_id)
        declared = {name: first.observation_space(ids.by_name[name]) for name in ids.names}
        super().__init__(
            len(envs),
            {name: without_mask(space) for name, space in declared.items()},
            {name: first.action_space(ids.by_name[name]) for name in ids.names},
            _state_space(first, env_id) if central_state else None,
            has_action_mask=any(map(has_mask_key, declared.values())),
            metadata=first.metadata,
        )
        self.render_mode = getattr(first, "render_mode", None)
        self._layout = TeamLayout(self, ids, env_id)
        self._reads_infos = False
        self._present = np.zeros((self.num_envs, len(ids.names)), np.bool_)
        self._has_ended = np.zeros(self.num_envs, np.bool_)
        self._num_steps = 0

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Resets every copy, each with the seed after that of the one before."""
        seeds: Sequence[int | None] = [None] * self.num_envs
        if seed is not None:
            seeds = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed
        given = [
            self._reset(copy, one) for copy, one in zip(range(self.num_envs), seeds, strict=True)
        ]
        self._reads_infos = not self._layout.has_mask_key and any(
            info and MASK in info for _, infos in given for info in infos.values()
        )
        now = TeamMoment(self._layout, self._reads_infos, self._num_steps)
        for copy, (observed, infos) in enumerate(given):
            now.begin(copy, self._envs[copy].agents, observed, infos)
        return self._finish(now)[0], now.info

    def step(self, actions: Mapping[str, Any]) -> TeamStep:
        """One step of all copies; those whose episode has ended only begin another.

        Args:
            actions: Of each agent by name, values of its action space for all copies.
        """
        choice_of = [
            _single(self.agent_actions[name], actions[name], self._ids.by_name[name])
            for name in self._ids.names
        ]
        self._num_steps += 1
        now = TeamMoment(self._layout, self._reads_infos, self._num_steps)
        for copy, env in enumerate(self._envs):
            if self._has_ended[copy]:
                observed, infos = self._reset(copy)
                now.begin(copy, env.agents, observed, infos)
            else:
                there = np.flatnonzero(self._present[copy])
                result = env.step(dict(choice_of[agent](copy) for agent in there))
                now.enter(copy, env.agents, result, self._present[copy])
        return self._finish(now)

    def _reset(self, copy: int, seed: int | None = None) -> tuple[ByAgent, ByAgent]:
        occasion = Occasion(self._layout.env_id, copy, self._num_steps)
        return of_reset(self._envs[copy].reset(seed=seed), occasion)

    def _finish(self, now: TeamMoment) -> TeamStep:
        if self.state_space is not None:
            for copy, env in enumerate(self._envs):
                now.put_state(copy, env.state())
        self._present = now.present
        self._has_ended = now.team_terminated | now.team_truncated
        total = total_of(now.reward)
        return now.observation, total, now.team_terminated, now.team_truncated, now.info

    def render(self) -> tuple[Any, ...]:
        """What each copy looks like, as it shows itself."""
        return tuple(env.render() for env in self._envs)

    def close_extras(self, **kwargs: object) -> None:
        """Closes the copies that have anything to close."""
        for env in self._envs:
            if hasattr(env, "close"):
                env.close()


def _single(
    space: AnySpace,
    actions: Structure,
    agent: AgentId,
) -> Callable[[int], tuple[AgentId, Any]]:
    """A function from a copy to the agent and its action there."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return lambda copy: (agent, actions[copy])
    leaves = leaf_values(space, actions)
    return lambda copy: (agent, structure_of(space, (leaf[copy] for leaf in leaves)))


def _state_space(env: ParallelEnvironment, env_id: str) -> spaces.Box:
    """The space of central states: as declared, or what the first one looks like.

    Raises:
        ConfigError: There is none, or it is no array.
    """
    declared = getattr(env, "state_space", None)
    if isinstance(declared, spaces.Box):
        return declared
    try:
        env.reset(seed=0)
        state = np.asarray(env.state())
    except (NotImplementedError, AttributeError) as error:
        raise ConfigError(
            f"{env_id} has no central state: its state() is not implemented",
            where="env.central_state",
            fix="leave it out: a central critic then sees what all agents observe",
        ) from error
    if state.dtype.kind not in "biuf":
        raise ConfigError(
            f"the central state of {env_id} is no array of numbers but {state!r:.60}",
            where="env.central_state",
            fix="leave it out",
        )
    return spaces.Box(-np.inf, np.inf, state.shape, np.float32)
