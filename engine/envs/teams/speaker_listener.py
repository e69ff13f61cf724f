"""`simple_speaker_listener` of MPE in arrays: as mpe2's `simple_speaker_listener_v4`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.envs.teams.particles import (
    Reals,
    amounts_of,
    choices_of,
    free_observation,
    moved,
    moves,
    thrust_of,
)
from engine.envs.teams.vector import Array, BatchedTeam, Bools

SPEAKER, LISTENER = "speaker_0", "listener_0"
COLORS = np.array([(0.65, 0.15, 0.15), (0.15, 0.65, 0.15), (0.15, 0.15, 0.65)], np.float32)
"""Of the landmarks; the speaker sees that of the goal."""
NUM_LANDMARKS = len(COLORS)


class SimpleSpeakerListener(BatchedTeam):
    """A listener is to go to one of three landmarks; only a speaker, who cannot move, sees which.

    Args:
        num_envs: B.
        central_state: Whether both observations together are observed apart too.
        max_cycles, continuous_actions: As mpe2 has them.

    Attributes:
        goal: Number of the landmark to go to, [B].
        said: What the speaker has just said, [B, 3].
        velocity, position: Of the listener, [B, 2].
        landmarks: Their positions, [B, 3, 2].
    """

    def __init__(
        self,
        num_envs: int,
        *,
        central_state: bool = False,
        max_cycles: int = 25,
        continuous_actions: bool = False,
    ) -> None:
        size = 2 + 2 * NUM_LANDMARKS + NUM_LANDMARKS
        super().__init__(
            num_envs,
            {SPEAKER: free_observation(3), LISTENER: free_observation(size)},
            {
                SPEAKER: choices_of(NUM_LANDMARKS, is_continuous=continuous_actions),
                LISTENER: moves(is_continuous=continuous_actions),
            },
            free_observation(3 + size) if central_state else None,
            max_episode_steps=max_cycles,
        )
        self._copies = np.arange(num_envs)
        self.goal = np.zeros(num_envs, np.int64)
        self.said: Array = np.zeros((num_envs, NUM_LANDMARKS))
        self.velocity: Reals = np.zeros((num_envs, 2))
        self.position: Reals = np.zeros((num_envs, 2))
        self.landmarks: Reals = np.zeros((num_envs, NUM_LANDMARKS, 2))

    def begin(self, where: Bools) -> None:
        """Everything is placed uniformly in (-1, 1), at rest and in silence."""
        count = int(where.sum())
        drawn = self.generator.uniform(-1, 1, (count, 1 + NUM_LANDMARKS, 2))
        self.goal[where] = self.generator.integers(NUM_LANDMARKS, size=count)
        self.position[where], self.landmarks[where] = drawn[:, 0], drawn[:, 1:]
        self.velocity[where] = self.said[where] = 0

    def move(self, actions: Mapping[str, Array]) -> tuple[Array, Bools]:
        """See `BatchedTeam`; the reward of both is minus the squared distance to the goal."""
        self.said = amounts_of(actions[SPEAKER], NUM_LANDMARKS)
        force = thrust_of(actions[LISTENER])
        self.velocity, self.position = moved(self.velocity, self.position, force)
        missing = self.landmarks[self._copies, self.goal] - self.position
        distance = np.square(missing).sum(axis=1, keepdims=True)
        return np.repeat(-distance, 2, axis=1), np.zeros(self.num_envs, np.bool_)

    def observe(self) -> dict[str, Array]:
        seen = (self.landmarks - self.position[:, None]).reshape(self.num_envs, -1)
        heard = np.concatenate((self.velocity, seen, self.said), axis=1)
        return {SPEAKER: COLORS[self.goal], LISTENER: heard.astype(np.float32)}

    def state(self) -> Array:
        return np.concatenate(list(self.observe().values()), axis=1)
