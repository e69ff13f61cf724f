"""A team's environment that does what a test has written down, in PettingZoo's parallel API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

SEEN = spaces.Box(-10.0, 10.0, (2,), np.float32)


@dataclass(frozen=True)
class Scene:
    """One moment of an episode.

    Attributes:
        agents: Those in `agents` then.
        rewards, terminated, truncated: Of the step that led here; 0 for those who have no reward.
        seen: What agents observe; by default [moment, number of the agent] of all in `agents` and
            of those who have just left.
        masks: Of agents by name.
        infos: Of agents by name.
    """

    agents: Sequence[str]
    rewards: Mapping[str, float] = field(default_factory=dict)
    terminated: Sequence[str] = ()
    truncated: Sequence[str] = ()
    seen: Mapping[str, Any] | None = None
    infos: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class ScriptedTeam:
    """Plays its scenes in every episode; remembers seeds and the actions it is given."""

    def __init__(
        self,
        possible_agents: Sequence[Any],
        scenes: Sequence[Scene],
        observation: spaces.Space[Any] = SEEN,
        action: spaces.Space[Any] | None = None,
    ) -> None:
        self.possible_agents = list(possible_agents)
        self.agents: list[Any] = []
        self.metadata: dict[str, Any] = {}
        self.seeds: list[int | None] = []
        self.chosen: list[dict[str, Any]] = []
        self.is_closed = False
        self._scenes, self._now = scenes, 0
        self._observation, self._action = observation, action or spaces.Discrete(3)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self._observation

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self._action

    def reset(self, seed: int | None = None) -> tuple[Any, Any]:
        self.seeds.append(seed)
        self._now = 0
        seen, *_, infos = self._show(())
        return seen, infos

    def step(self, actions: Mapping[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        self.chosen.append(dict(actions))
        self._now += 1
        return self._show(self.agents)

    def state(self) -> np.ndarray:
        return np.full(4, self._now, np.float32)

    def render(self) -> np.ndarray:
        return np.full((8, 8, 3), self._now, np.uint8)

    def close(self) -> None:
        self.is_closed = True

    def _show(self, before: Sequence[str]) -> tuple[Any, Any, Any, Any, Any]:
        scene = self._scenes[self._now]
        self.agents = list(scene.agents)
        numbers = {name: number for number, name in enumerate(self.possible_agents)}
        seen = scene.seen
        if seen is None:
            who = dict.fromkeys((*before, *scene.agents))
            seen = {name: np.array([self._now, numbers.get(name, -1)], np.float32) for name in who}
        return (
            seen,
            {**dict.fromkeys(before, 0.0), **scene.rewards},
            {name: name in scene.terminated for name in before},
            {name: name in scene.truncated for name in before},
            {name: dict(scene.infos.get(name, {})) for name in scene.agents},
        )
