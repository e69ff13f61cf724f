"""Random seeds of a run's parts, all from the experiment's one."""

from __future__ import annotations

import numpy as np

MAX_SEED = 2**30
"""Atari wants seeds of environments, this plus their number, to be 32-bit integers with a sign."""


def actor_seeds(seed: int, index: int, epoch: int, resumes: int = 0) -> tuple[int, int]:
    """For one incarnation of an actor: of its actions, and of its environments."""
    entropy = [seed, index, epoch, *_again(resumes)]
    of_actions, of_env = np.random.SeedSequence(entropy).generate_state(2)
    return int(of_actions), int(of_env) % MAX_SEED


def buffer_random(seed: int, index: int, resumes: int = 0) -> np.random.Generator:
    """What a replay buffer draws samples with."""
    return np.random.default_rng([seed, index, *_again(resumes)])


def _again(resumes: int) -> list[int]:
    """A run that goes on must not meet the random numbers again that it began with."""
    return [resumes] if resumes else []
