"""Level-Based Foraging (Papoudakis et al., 2021) in arrays: as lbforaging's, with sight of all.

Agents walk on a square grid and eat food beside them: as many of them at once as are needed for
their levels to add up to that of the food. All food of an episode together is worth 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from engine.envs.teams.vector import Array, BatchedTeam, Bools

Ints: TypeAlias = npt.NDArray[np.int64]

STEPS = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])
"""Where a choice leads: nowhere, north, south, west, east; the last one eats."""
EAT = 5
MAX_AGENT_LEVEL, NUM_LOWEST = 2, 3
MAX_STEPS = 50
MAX_ATTEMPTS = 1000
"""Draws of places for food; where there is none left, an episode has less."""
ID = re.compile(r"Foraging-(\d+)x\1-(\d+)p-(\d+)f(-coop)?-v3")
NOTHING = (-1, -1, 0)
"""How food that is not there is observed."""


class Foraging(BatchedTeam):
    """B grids. Drawn as lbforaging draws, but for one thing: who begins first may begin where
    another one was when the last episode ended.

    Args:
        num_envs: B.
        central_state: Refused: it has no state apart from what agents observe.
        size: Rows and columns, S.
        num_agents: P.
        num_food: F.
        needs_all: Whether all food has the highest level: what the three agents with the lowest
            levels, or fewer, have together. Otherwise it has any up to that.

    Attributes:
        place, level: Of agents, [B, P, 2] (row, column) and [B, P].
        food_place, food_level: Of food, in the order of rows and columns, [B, F, 2] and [B, F];
            level 0 is no food.
        worth: Levels of all food at the beginning, [B].

    Raises:
        ValueError: `central_state` is asked for.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        central_state: bool = False,
        size: int,
        num_agents: int,
        num_food: int,
        needs_all: bool = False,
    ) -> None:
        if central_state:
            raise ValueError("Level-Based Foraging has no state but what agents observe")
        highest = MAX_AGENT_LEVEL * min(num_agents, NUM_LOWEST)
        names = [f"agent_{number}" for number in range(num_agents)]
        low = np.array([NOTHING] * (num_food + num_agents), np.float32).flatten()
        edge = size - 1
        food, agents = [edge, edge, highest], [edge, edge, MAX_AGENT_LEVEL]
        high = np.array(food * num_food + agents * num_agents, np.float32)
        super().__init__(
            num_envs,
            dict.fromkeys(names, spaces.Box(low, high, dtype=np.float32)),
            dict.fromkeys(names, spaces.Discrete(len(STEPS))),
        )
        self._names, self._size = names, size
        self._needs_all = needs_all
        self._copies = np.arange(num_envs)[:, None]
        self._order = np.array(
            [[agent, *np.delete(range(num_agents), agent)] for agent in range(num_agents)]
        )
        self.place: Ints = np.zeros((num_envs, num_agents, 2), np.int64)
        self.level: Ints = np.ones((num_envs, num_agents), np.int64)
        self.food_place: Ints = np.zeros((num_envs, num_food, 2), np.int64)
        self.food_level: Ints = np.zeros((num_envs, num_food), np.int64)
        self.worth: Ints = np.ones(num_envs, np.int64)

    def begin(self, where: Bools) -> None:
        """Places agents, each in a cell of its own, then food, off the edges and not side by
        side."""
        draw, (rows,) = self.generator.integers, np.nonzero(where)
        num_agents, num_food = self.level.shape[1], self.food_level.shape[1]
        cells = self.generator.permuted(np.tile(np.arange(self._size**2), (len(rows), 1)), axis=1)
        self.place[rows] = np.stack(np.divmod(cells[:, :num_agents], self._size), axis=-1)
        self.level[rows] = draw(1, MAX_AGENT_LEVEL + 1, (len(rows), num_agents))
        self.food_level[rows] = 0
        highest = np.sort(self.level[rows], axis=1)[:, :NUM_LOWEST].sum(axis=1)
        count = np.zeros(self.num_envs, np.int64)
        for _ in range(MAX_ATTEMPTS):
            (open_,) = np.nonzero(count[rows] < num_food)
            if not len(open_):
                break
            found = draw(1, self._size - 1, (len(open_), 2))
            fits = self._is_free(rows[open_], found)
            open_, found = open_[fits], found[fits]
            copies = rows[open_]
            lowest = highest[open_] if self._needs_all else np.ones(len(open_), np.int64)
            self.food_place[copies, count[copies]] = found
            self.food_level[copies, count[copies]] = draw(lowest, highest[open_] + 1)
            count[copies] += 1
        self._sort_food(rows)
        self.worth[rows] = self.food_level[rows].sum(axis=1)

    def _is_free(self, copies: Ints, place: Ints) -> Bools:
        """Whether food can be placed there: not beside other food, not even across a corner; not
        two cells away in a row or a column; not on an agent. [N] of places [N, 2]."""
        away = np.abs(self.food_place[copies] - place[:, None])
        is_near = (away.max(axis=-1) <= 1) | ((away.sum(axis=-1) == 2) & (away.min(axis=-1) == 0))
        has_near = (is_near & (self.food_level[copies] > 0)).any(axis=1)
        has_agent = (self.place[copies] == place[:, None]).all(axis=-1).any(axis=1)
        free: Bools = ~(has_near | has_agent)
        return free

    def _sort_food(self, copies: Ints) -> None:
        """By rows and columns, with food that is not there at the end."""
        places, levels = self.food_place[copies], self.food_level[copies]
        cells = places[..., 0] * self._size + places[..., 1]
        order = np.argsort(np.where(levels > 0, cells, self._size**2), axis=1)
        self.food_place[copies] = np.take_along_axis(places, order[..., None], axis=1)
        self.food_level[copies] = np.take_along_axis(levels, order, axis=1)

    def move(self, actions: Mapping[str, Array]) -> tuple[Array, Bools]:
        """See `BatchedTeam`; the time limit ends an episode for good too, as in lbforaging."""
        chosen = np.stack([actions[name] for name in self._names], axis=1)
        self._walk(STEPS[chosen])
        reward = self._eat(chosen == EAT)
        is_over = (self.food_level == 0).all(axis=1) | (self._age + 1 >= MAX_STEPS)
        return reward, is_over

    def _walk(self, steps: Ints) -> None:
        """Agents go where they want to, [B, P, 2], unless food or the edge is there; of several
        that would then be in one cell none goes."""
        to = self.place + steps
        is_outside = ((to < 0) | (to >= self._size)).any(axis=-1)
        is_food = (to[:, :, None] == self.food_place[:, None]).all(axis=-1)
        is_blocked = is_outside | (is_food & (self.food_level > 0)[:, None]).any(axis=-1)
        to = np.where(is_blocked[..., None], self.place, to)
        num_there = (to[:, :, None] == to[:, None]).all(axis=-1).sum(axis=-1)
        self.place = np.where((num_there > 1)[..., None], self.place, to)

    def _eat(self, tries: Bools) -> Array:
        """Food is eaten if those beside it that try, [B, P], have its level together; food is
        never so close to other food that an agent is beside both.

        Returns:
            Rewards, [B, P]: of each its share of their levels, in units of all food.
        """
        away = np.abs(self.place[:, :, None] - self.food_place[:, None]).sum(axis=-1)
        takes = (away == 1) & tries[..., None] & (self.food_level > 0)[:, None]
        together = (takes * self.level[..., None]).sum(axis=1)
        is_eaten = (together >= self.food_level) & (together > 0)
        value = self.food_level / (np.maximum(together, 1) * self.worth[:, None])
        shares = np.where(is_eaten[:, None], takes * self.level[..., None] * value[:, None], 0.0)
        self.food_level = np.where(is_eaten, 0, self.food_level)
        reward: Array = shares.sum(axis=-1)
        return reward

    def observe(self) -> dict[str, Array]:
        """Row, column and level of all food that is left, of the agent itself, of the others."""
        order = np.argsort(self.food_level == 0, axis=1, kind="stable")
        levels = self.food_level[self._copies, order]
        food = np.concatenate((self.food_place[self._copies, order], levels[..., None]), axis=-1)
        food = np.where((levels > 0)[..., None], food, NOTHING)
        agents = np.concatenate((self.place, self.level[..., None]), axis=-1)
        left = food.reshape(self.num_envs, -1)
        return {
            name: np.concatenate(
                (left, agents[:, order].reshape(self.num_envs, -1)), axis=1, dtype=np.float32
            )
            for name, order in zip(self._names, self._order, strict=True)
        }


def foraging_of(env_id: str) -> Callable[..., Foraging] | None:
    """What makes the environment with this id of Gymnasium; None if it is none of these.

    >>> foraging_of("Foraging-8x8-2p-3f-v3")(num_envs=1).agents
    ('agent_0', 'agent_1')
    >>> foraging_of("Foraging-2s-8x8-2p-3f-v3")
    """
    found = ID.fullmatch(env_id)
    if found is None:
        return None
    size, num_agents, num_food = (int(number) for number in found.groups()[:3])
    return partial(
        Foraging,
        size=size,
        num_agents=num_agents,
        num_food=num_food,
        needs_all=found[4] is not None,
    )
