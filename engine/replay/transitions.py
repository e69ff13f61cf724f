"""n-step transitions of one rollout, all at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.rollout import Arrays

__all__ = ["initial_errors", "n_step_transitions"]

FloatArray = npt.NDArray[np.float32]


def n_step_transitions(
    outcomes: Arrays, n_step: int, discount: float
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int32]]:
    """Rewards, discounts and lengths of the transitions that begin at each step.

    From step t a transition spans k = n_step steps, or fewer if its episode or its rollout ends:

        reward   = sum over j < k of discount^j r_{t+1+j}
        discount = discount^k, or 0 if the episode terminated within
        next observation = s_{t+k}

    After a truncation s_{t+k} is the episode's true last observation, and is bootstrapped from.
    Source: Sutton (1988); as used in Horgan et al. (2018), section 3.

    Args:
        outcomes: `reward`, `terminated`, `truncated`, `valid`, each [T, B].
        n_step: Longest transition, at least 1.
        discount: Gamma.

    Returns:
        reward, discount and k, each [T, B]; k is 0 where a step only reset its environment.
    """
    terminated = np.asarray(outcomes["terminated"], np.bool_)
    ends = terminated | np.asarray(outcomes["truncated"], np.bool_)
    reward_t = np.asarray(outcomes["reward"], np.float64)
    num_steps = len(reward_t)
    goes_on = np.array(outcomes["valid"], np.bool_)
    reward = np.zeros(reward_t.shape)
    span = np.zeros(reward_t.shape, np.int32)
    has_terminated = np.zeros(reward_t.shape, np.bool_)
    for j in range(min(n_step, num_steps)):
        first = slice(0, num_steps - j)  # transitions whose step j is still within the rollout
        alive = goes_on[first]
        reward[first] += alive * discount**j * reward_t[j:]
        span[first] += alive
        has_terminated[first] |= alive & terminated[j:]
        alive &= ~ends[j:]
    future = np.where(has_terminated, 0.0, discount ** span.astype(np.float64))
    return reward.astype(np.float32), future.astype(np.float32), span


def initial_errors(
    transitions: tuple[FloatArray, FloatArray, npt.NDArray[np.int32]],
    taken: npt.NDArray[np.floating],
    best: npt.NDArray[np.floating],
) -> npt.NDArray[np.float64]:
    """Absolute TD errors as the actor saw them (Horgan et al., 2018, algorithm 1).

        |reward + discount max_a q(s_{t+k}, a) - q(s_t, a_t)|

    The actor has no values of the state after its rollout. Transitions that would need them get the
    largest error of the others, so that they are soon drawn and corrected.

    Args:
        transitions: From `n_step_transitions`, each [T, B].
        taken: q(s_t, a_t), [T, B].
        best: max_a q(s_t, a), [T, B].

    Returns:
        [T, B]; 0 where a step only reset its environment.
    """
    reward, future, span = transitions
    num_steps = len(reward)
    later = np.arange(num_steps)[:, None] + span
    is_known = (later < num_steps) | (future == 0)
    following = np.take_along_axis(best, np.minimum(later, num_steps - 1), axis=0)
    errors = np.abs(reward + future * following - taken).astype(np.float64)
    is_transition = span > 0
    known = errors[is_known & is_transition]
    errors[~is_known] = known.max() if len(known) else 1.0
    return np.where(is_transition, errors, 0.0)
