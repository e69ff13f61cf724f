"""Random seeds of a run's parts, all from the experiment's one."""

from __future__ import annotations

import numpy as np

MAX_SEED = 2**30
"""Atari wants seeds of environments, this plus their number, to be 32-bit integers with a sign."""


def actor_seeds(seed: int, index: int, epoch: int) -> tuple[int, int]:
    """For one incarnation of an actor: of its actions, and of its environments."""
    of_actions, of_env = np.random.SeedSequence([seed, index, epoch]).generate_state(2)
    return int(of_actions), int(of_env) % MAX_SEED
