"""`simple_spread` of MPE in arrays: as mpe2's `simple_spread_v3`, all copies at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.envs.teams.particles import (
    Reals,
    free_observation,
    moved,
    moves,
    push_of,
    thrust_of,
)
from engine.envs.teams.vector import Array, BatchedTeam, Bools

REACH = 0.3
"""Two agents touch at this distance: twice their size."""


class SimpleSpread(BatchedTeam):
    """As many agents as landmarks are to cover these without touching each other.

    Args:
        num_envs: B.
        central_state: Whether all observations together are observed apart too.
        N, local_ratio, max_cycles, continuous_actions: As mpe2 has them.

    Attributes:
        particles: Velocities and positions of agents, and positions of landmarks, [B, 3, N, 2].

    Raises:
        ValueError: A value that mpe2 refuses too.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        central_state: bool = False,
        N: int = 3,
        local_ratio: float = 0.5,
        max_cycles: int = 25,
        continuous_actions: bool = False,
    ) -> None:
        if N < 1 or not 0 <= local_ratio <= 1:
            raise ValueError(f"N is {N} and local_ratio {local_ratio}: at least 1, and from 0 to 1")
        names = [f"agent_{number}" for number in range(N)]
        seen = free_observation(6 * N)
        super().__init__(
            num_envs,
            dict.fromkeys(names, seen),
            dict.fromkeys(names, moves(is_continuous=continuous_actions)),
            free_observation(6 * N * N) if central_state else None,
            max_episode_steps=max_cycles,
        )
        self._names, self._local_ratio = names, local_ratio
        self._views = _views(N)
        self._landmarks, self._others = slice(2, 2 + N), slice(2 + N, 1 + 2 * N)
        self.particles: Reals = np.zeros((num_envs, 3, N, 2))
        self._look()

    def begin(self, where: Bools) -> None:
        """Everything is placed uniformly in (-1, 1), at rest."""
        drawn = self.generator.uniform(-1, 1, (int(where.sum()), *self.particles.shape[1:]))
        drawn[:, 0] = 0
        self.particles[where] = drawn
        self._look()

    def move(self, actions: Mapping[str, Array]) -> tuple[Array, Bools]:
        """See `BatchedTeam`; nobody's episode ends before its last step."""
        away, distance = -self._vectors[..., self._others, :], self._lengths[..., self._others]
        chosen = np.stack([actions[name] for name in self._names], axis=1)
        force = thrust_of(chosen) + push_of(away, distance, REACH)
        velocity, position = self.particles[:, 0], self.particles[:, 1]
        velocity[...], position[...] = moved(velocity, position, force)
        self._look()
        uncovered = self._lengths[..., self._landmarks].min(axis=1).sum(axis=1, keepdims=True)
        touched = (self._lengths[..., self._others] < REACH).sum(axis=2)
        reward = -(1 - self._local_ratio) * uncovered - self._local_ratio * touched
        return reward, np.zeros(self.num_envs, np.bool_)

    def observe(self) -> dict[str, Array]:
        return {name: self._seen[:, number] for number, name in enumerate(self._names)}

    def state(self) -> Array:
        return self._seen.reshape(self.num_envs, -1)

    def _look(self) -> None:
        """Finds all that agents see, and how far away it is, of the particles as they are now."""
        shape = (self.num_envs, len(self._names), -1)
        seen = self.particles.reshape(self.num_envs, -1) @ self._views
        self._seen = seen.reshape(shape).astype(np.float32)
        self._vectors = seen.reshape(*shape, 2)
        square = np.square(self._vectors)
        self._lengths = np.sqrt(square[..., 0] + square[..., 1])


def _views(num_agents: int) -> Reals:
    """What agents see is linear in the particles: [3 * N * 2, N * 6 * N].

    Each agent sees its velocity, its position, and landmarks and other agents as seen from there;
    then the zeros that the others say.
    """
    velocity, position, landmarks = np.eye(3 * num_agents).reshape(3, num_agents, -1)
    views = []
    for agent in range(num_agents):
        others = np.delete(position, agent, axis=0)
        seen_from_there = np.concatenate((landmarks, others)) - position[agent]
        views += [velocity[[agent]], position[[agent]], seen_from_there, np.zeros_like(others)]
    return np.ascontiguousarray(np.kron(np.concatenate(views), np.eye(2)).T)
