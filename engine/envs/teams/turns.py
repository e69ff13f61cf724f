"""PettingZoo's environments in which one agent acts at a time, such as board games."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.envs.teams.parallel import AgentId, ParallelEnvironment
from engine.envs.teams.returned import ByAgent
from engine.envs.teams.vector import Array
from engine.spaces.action_parts import parts_of
from engine.spaces.leaves import AnySpace
from engine.spaces.observations import MASK, has_mask_key


class TurnBased:
    """Gives the agents that wait for their turn an action mask with a single choice.

    In PettingZoo's own conversion all agents are there, and only the choice of the one whose turn
    it is counts. With that mask nothing is learnt from the choices of the others, while their
    values and rewards go on, such as that for a game which is lost in another's turn. Real numbers
    have no masks; those that the others choose are ignored.

    Args:
        env: What PettingZoo has made of it.
        whose_turn: The agent that acts next.
    """

    def __init__(self, env: ParallelEnvironment, whose_turn: Callable[[], AgentId]) -> None:
        self._env, self._whose_turn = env, whose_turn
        self.possible_agents, self.metadata = env.possible_agents, env.metadata
        self.render_mode = getattr(env, "render_mode", None)
        self.state_space = getattr(env, "state_space", None)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.state, self.render, self.close = env.state, env.render, env.close
        self._waiting = {
            agent: _first_choices(env.action_space(agent)) for agent in self.possible_agents
        }

    @property
    def agents(self) -> list[AgentId]:
        return self._env.agents

    def reset(self, seed: int | None = None) -> tuple[ByAgent, ByAgent]:
        return self._masked(*self._env.reset(seed=seed))

    def step(self, actions: ByAgent) -> tuple[ByAgent, ByAgent, ByAgent, ByAgent, ByAgent]:
        observed, rewards, terminations, truncations, infos = self._env.step(actions)
        observed, infos = self._masked(observed, infos)
        return observed, rewards, terminations, truncations, infos

    def _masked(self, observed: ByAgent, infos: ByAgent) -> tuple[ByAgent, ByAgent]:
        seen: dict[AgentId, Any] = dict(observed)
        told: dict[AgentId, Any] = {agent: dict(info) for agent, info in infos.items()}
        turn = self._whose_turn() if self.agents else None
        for agent in self.agents:
            waiting = self._waiting[agent]
            if not waiting.size:
                continue
            if has_mask_key(self.observation_space(agent)):
                if agent != turn:
                    seen[agent] = {**seen[agent], MASK: waiting}
            else:
                own = told.setdefault(agent, {})
                own[MASK] = own.get(MASK, np.ones_like(waiting)) if agent == turn else waiting
        return seen, told


def _first_choices(action: AnySpace) -> Array:
    """A mask that leaves the first choice of each entry; empty if there is nothing to choose."""
    masks = [np.eye(1, num_choices, dtype=np.int8)[0] for num_choices in parts_of(action).nvec]
    return np.concatenate(masks) if masks else np.zeros(0, np.int8)
