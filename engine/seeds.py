"""Random seeds of a run's parts, all from the experiment's one."""

from __future__ import annotations

import numpy as np

MAX_SEED = 2**30
"""Atari requires seeds of environments, this plus their number, to be signed 32-bit integers."""


def actor_seeds(seed: int, index: int, epoch: int, resumes: int = 0) -> tuple[int, int]:
    """Seeds of one incarnation of an actor: for its actions, and for its environments."""
    entropy = [seed, index, epoch, *_again(resumes)]
    of_actions, of_env = np.random.SeedSequence(entropy).generate_state(2)
    return int(of_actions), int(of_env) % MAX_SEED


def buffer_random(seed: int, index: int, resumes: int = 0) -> np.random.Generator:
    """The random generator with which a replay buffer draws samples."""
    return np.random.default_rng([seed, index, *_again(resumes)])


def _again(resumes: int) -> list[int]:
    """A resumed run must not repeat the random numbers of its start."""
    return [resumes] if resumes else []
