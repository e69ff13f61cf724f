"""A user's environment of several agents, with PettingZoo's parallel API: they come and go, see
different things, and cannot always do everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

ENV_ID = "team_envs:convoy"
MEMBERS = {"pair": ("ann", "ben"), "cat": ("cat",)}
NUM_STEPS = 6
CAT_COMES, BEN_LEAVES = 2, 4
NUM_CHOICES = {"ann": 3, "ben": 3, "cat": 2}


class Convoy:
    """Ann is always there, Cat comes in step 2, and Ben's own episode ends in step 4. Each has one
    random choice that is not valid; choosing it is an error."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.possible_agents = ["ann", "ben", "cat"]
        self.agents: list[str] = []
        self.render_mode = render_mode
        self._random = np.random.default_rng()
        self._now = 0
        self._masks: dict[str, np.ndarray] = {}

    def observation_space(self, agent: str) -> spaces.Dict:
        mask = spaces.MultiBinary(NUM_CHOICES[agent])
        if agent == "cat":
            camera = spaces.Box(0, 255, (2, 3), np.uint8)
            return spaces.Dict(camera=camera, gear=spaces.Discrete(4, start=1), action_mask=mask)
        return spaces.Dict(observation=spaces.Box(-1, 1, (3,), np.float32), action_mask=mask)

    def action_space(self, agent: str) -> spaces.Discrete:
        return spaces.Discrete(NUM_CHOICES[agent])

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self._now, self.agents = 0, ["ann", "ben"]
        return self._observe(self.agents), {}

    def step(self, actions: Mapping[str, int]) -> tuple[dict[str, Any], ...]:
        before = list(self.agents)
        assert list(actions) == before, (actions, before)
        for agent, action in actions.items():
            assert self._masks[agent][action], (agent, action)
        rewards = {agent: float(action) - 0.5 * self._now for agent, action in actions.items()}
        self._now += 1
        is_over = self._now == NUM_STEPS
        ended = {agent: self._now == BEN_LEAVES and agent == "ben" for agent in before}
        self.agents = [agent for agent in before if not ended[agent]]
        if self._now == CAT_COMES:
            self.agents.append("cat")
        seen = self._observe(dict.fromkeys((*before, *self.agents)))
        cut = {agent: is_over and not ended[agent] for agent in before}
        if is_over:
            self.agents = []
        return seen, rewards, ended, cut, {}

    def render(self) -> np.ndarray:
        return np.full((8, 8, 3), 10 * self._now, np.uint8)

    def close(self) -> None:
        """Nothing is open."""

    def _observe(self, agents: Any) -> dict[str, Any]:  # noqa: ANN401 - any iterable of names
        seen = {}
        for agent in agents:
            mask = np.ones(NUM_CHOICES[agent], np.int8)
            mask[self._random.integers(len(mask))] = 0
            self._masks[agent] = mask
            seen[agent] = {**self._sight(agent), "action_mask": mask}
        return seen

    def _sight(self, agent: str) -> dict[str, Any]:
        if agent == "cat":
            camera = self._random.integers(0, 256, (2, 3), np.uint8)
            return {"camera": camera, "gear": np.int64(self._random.integers(1, 5))}
        return {"observation": self._random.uniform(-1, 1, 3).astype(np.float32)}


def convoy(**options: Any) -> Convoy:  # noqa: ANN401 - as of the class
    """What `env.id` names."""
    return Convoy(**options)
