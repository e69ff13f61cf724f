"""Physics of MPE, the particle environments of Lowe et al. (2017), of many worlds at once.

As in mpe2 1.1: particles of mass 1 that are driven, damped and pushed apart where they touch.
Positions, velocities and forces are float64, [..., 2].
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from engine.envs.teams.vector import Array

Reals: TypeAlias = npt.NDArray[np.float64]

STEP_S = 0.1
KEPT_SPEED = 0.75
"""Of a velocity, after one step without force: mpe2's damping is 0.25."""
CONTACT_FORCE, CONTACT_MARGIN = 100.0, 1e-3
TINY = 1e-12
"""Smaller distances are taken as this one."""
THRUST = 5.0
"""Of an action at its bound: mpe2's sensitivity."""
_THRUSTS = THRUST * np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)], np.float64)
"""Of each choice: nothing, left, right, down, up."""


def free_observation(size: int) -> spaces.Box:
    """The space of an observation of this many real numbers."""
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)


def choices_of(size: int, *, is_continuous: bool) -> spaces.Discrete | spaces.Box:
    """The space of actions: one of this many choices, or how much of each."""
    return spaces.Box(0.0, 1.0, (size,), np.float32) if is_continuous else spaces.Discrete(size)


def moves(*, is_continuous: bool) -> spaces.Discrete | spaces.Box:
    """The space of an agent's moves, for `thrust_of`."""
    return choices_of(len(_THRUSTS), is_continuous=is_continuous)


def amounts_of(action: Array, size: int) -> Array:
    """How much of each choice there is, [..., size]; see `choices_of`. mpe2 clips to (0, 1)."""
    return action.clip(0, 1) if action.dtype.kind == "f" else np.eye(size)[action]


def thrust_of(action: Array) -> Reals:
    """The force that agents choose, [..., 2]; see `moves`."""
    if action.dtype.kind != "f":
        chosen: Reals = _THRUSTS[action]
        return chosen
    bounded = action.clip(0, 1)
    towards: Reals = (bounded[..., (2, 4)] - bounded[..., (1, 3)]).astype(np.float64)
    return THRUST * towards


def push_of(away: Reals, distance: Reals, reach: float) -> Reals:
    """The contact force on a particle, [..., 2]: it grows softly with how deep others are in it.

    Args:
        away: From each of the others to the particle, [..., others, 2].
        distance: The length of that, [..., others].
        reach: Distance at which two of them touch.

    Particles at the very same point, where mpe2 has a force that is not a number, do not push.
    """
    depth = CONTACT_MARGIN * np.logaddexp(0, (reach - distance) / CONTACT_MARGIN)
    strength = CONTACT_FORCE * depth / np.maximum(distance, TINY)
    force: Reals = (away * strength[..., None]).sum(axis=-2)
    return force


def moved(velocity: Reals, position: Reals, force: Reals) -> tuple[Reals, Reals]:
    """Velocity and position one step later: a force shows in the position a step after that."""
    return velocity * KEPT_SPEED + force * STEP_S, position + velocity * STEP_S
