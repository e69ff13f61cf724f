"""Games of two agents whose best and whose attainable returns are known.

`TwoStep-v0` is the two-step game of Rashid et al. (2018), appendix A.2: the first agent's choice
in the first step decides which payoffs both play for in the second. One of them is 7 whatever they
do, the other 8 only if both choose the second action; a sum of the agents' values cannot
represent that and settles for 7. `Climbing-v0` is the climbing game of Claus & Boutilier (1998):
the best joint action, 11, is next to the worst ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from engine.envs.teams.vector import Array, BatchedTeam, Bools

AGENTS = ("agent_0", "agent_1")
FIRST, SAFE, RISKY = 0, 1, 2
"""States of the two-step game."""
SAFE_PAYOFFS = np.full((2, 2), 7.0)
RISKY_PAYOFFS = np.array([[0.0, 1.0], [1.0, 8.0]])
CLIMBING_PAYOFFS = np.array([[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]])


class TwoStepGame(BatchedTeam):
    """Both agents see the state, one hot; each gets half of the payoff.

    Args:
        num_envs: B.
        central_state: Whether the state is observed apart too.
    """

    def __init__(self, num_envs: int, *, central_state: bool = False) -> None:
        seen = spaces.Box(0.0, 1.0, (3,), np.float32)
        super().__init__(
            num_envs,
            dict.fromkeys(AGENTS, seen),
            dict.fromkeys(AGENTS, spaces.Discrete(2)),
            seen if central_state else None,
        )
        self._payoffs = np.stack((np.zeros((2, 2)), SAFE_PAYOFFS, RISKY_PAYOFFS))
        self._one_hot = np.eye(3, dtype=np.float32)
        self._now = np.full(num_envs, FIRST)

    def begin(self, where: Bools) -> None:
        self._now = np.where(where, FIRST, self._now)

    def move(self, actions: Mapping[str, Array]) -> tuple[Array, Bools]:
        first, second = (actions[name] for name in AGENTS)
        payoff = self._payoffs[self._now, first, second]
        has_ended = self._now != FIRST
        self._now = np.where(has_ended, self._now, np.where(first == 0, SAFE, RISKY))
        return np.stack((payoff, payoff), axis=1) / 2, has_ended

    def observe(self) -> dict[str, Array]:
        return dict.fromkeys(AGENTS, self.state())

    def state(self) -> Array:
        states: Array = self._one_hot[self._now]
        return states


class MatrixGame(BatchedTeam):
    """One choice of each agent, and the episode ends; each gets half of the payoff.

    Args:
        num_envs: B.
        payoffs: Of both together, by their choices, [N, M].
        central_state: Whether what both see, a constant, is observed apart too.
    """

    def __init__(self, num_envs: int, payoffs: Array, *, central_state: bool = False) -> None:
        seen = spaces.Box(0.0, 1.0, (1,), np.float32)
        choices = zip(AGENTS, payoffs.shape, strict=True)
        super().__init__(
            num_envs,
            dict.fromkeys(AGENTS, seen),
            {name: spaces.Discrete(size) for name, size in choices},
            seen if central_state else None,
        )
        self._payoffs = payoffs
        self._seen = np.ones((num_envs, 1), np.float32)

    def begin(self, where: Bools) -> None:
        """Nothing differs between episodes."""

    def move(self, actions: Mapping[str, Array]) -> tuple[Array, Bools]:
        payoff = self._payoffs[tuple(actions[name] for name in AGENTS)]
        return np.stack((payoff, payoff), axis=1) / 2, np.ones(self.num_envs, np.bool_)

    def observe(self) -> dict[str, Array]:
        return dict.fromkeys(AGENTS, self._seen)

    def state(self) -> Array:
        return self._seen


def climbing_game(num_envs: int, *, central_state: bool = False) -> MatrixGame:
    """The climbing game of B copies."""
    return MatrixGame(num_envs, CLIMBING_PAYOFFS, central_state=central_state)
