"""Returns and advantages. Time runs along the first axis; row t of a value is v(s_t)."""

from __future__ import annotations

import torch
from torch import Tensor


def generalized_advantages(
    reward: Tensor,
    value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al., 2016, equations 11, 12 and 16).

        delta_t = r_{t+1} + discount (1 - terminated_{t+1}) v(s_{t+1}) - v(s_t)
        A_t     = delta_t + discount lambda (1 - terminated_{t+1} - truncated_{t+1}) A_{t+1}

    A terminated episode has no future value; a truncated one has, and it is bootstrapped from its
    true last observation, which is row t+1. Across either the advantage of what follows is cut.

    Args:
        reward: r_{t+1}, [T, B].
        value: v(s_t), [T+1, B].
        terminated: [T, B] bool; whether step t ended its episode for good.
        truncated: [T, B] bool; whether step t was its episode's last for another reason.
        discount: Gamma.
        gae_lambda: Lambda.

    Returns:
        A_t, [T, B].
    """
    num_steps, num_envs = reward.shape
    assert value.shape == (num_steps + 1, num_envs), value.shape
    assert terminated.shape == truncated.shape == reward.shape
    v_t, v_tp1 = value[:-1], value[1:]
    continues = (~terminated).to(value.dtype)
    delta_t = torch.addcmul(reward - v_t, continues, v_tp1, value=discount)
    trace_t = (discount * gae_lambda) * (~(terminated | truncated)).to(value.dtype)
    advantage = torch.empty_like(delta_t)
    following = torch.zeros_like(delta_t[0])
    for a_t, d_t, c_t in zip(
        reversed(advantage.unbind()),
        reversed(delta_t.unbind()),
        reversed(trace_t.unbind()),
        strict=True,
    ):
        following = torch.addcmul(d_t, c_t, following, out=a_t)
    return advantage
