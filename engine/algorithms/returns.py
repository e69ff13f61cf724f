"""Returns and advantages. Time runs along the first axis; row t of a value is v(s_t).

What an update computes from its batch before its steps, without gradients, can be compiled:

    judged = state.preparing.run(state, self.judge, batch)

or, if the target network judges, with `state.target` in place of the first `state`. It runs in
eager mode at first; the runtime can later put a compiled one with the same results into
`state.preparing` (`engine.compilation.prepared`). To be compilable the function reads tensors from
its arguments only, has no side effects and does not branch on values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from engine.layers.flat import FlatParameters


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

    A terminated episode has no future value; a truncated one is bootstrapped from its true last
    observation, which is row t+1. Advantages are cut at the end of either.

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
    advantage_t: Tensor = accumulate(delta_t, trace_t)
    return advantage_t


@dataclass(frozen=True)
class VTrace:
    """The result of V-trace.

    Attributes:
        value_target: vs_t, [T, B].
        advantage: [T, B], for the policy gradient.
    """

    value_target: Tensor
    advantage: Tensor


def vtrace(
    log_ratio: Tensor,
    reward: Tensor,
    value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    discount: float,
    trace_lambda: float = 1.0,
    max_rho: float = 1.0,
    max_c: float = 1.0,
) -> VTrace:
    """V-trace targets and advantages (Espeholt et al., 2018, equation 1, remark 1, section 4.2).

        rho_t   = min(max_rho, pi(a_t | s_t) / mu(a_t | s_t))
        c_t     = lambda min(max_c, pi(a_t | s_t) / mu(a_t | s_t))
        delta_t = rho_t (r_{t+1} + discount v(s_{t+1}) - v(s_t))
        vs_t    = v(s_t) + delta_t + discount c_t (vs_{t+1} - v(s_{t+1}))
        A_t     = rho_t (r_{t+1} + discount vs_{t+1} - v(s_t))

    The recursion starts from vs_T = v(s_T). At the end of an episode it is cut, and vs_{t+1} is
    v(s_{t+1}) of the true last observation; a terminated episode has no future value at all.

    Args:
        log_ratio: ln pi(a_t | s_t) - ln mu(a_t | s_t), [T, B].
        reward: r_{t+1}, [T, B].
        value: v(s_t), [T+1, B].
        terminated, truncated: [T, B] bool, as in `generalized_advantages`.
        discount: Gamma.
        trace_lambda: Lambda of remark 2; 1 is the paper's choice.
        max_rho, max_c: The truncation levels; max_rho >= max_c.
    """
    trace = _trace(
        log_ratio, reward, value, terminated, truncated, discount, trace_lambda, max_rho, max_c
    )
    v_t, v_tp1 = value[:-1], value[1:]
    future_t = torch.addcmul(reward - v_t, trace.discount_t, v_tp1 + trace.excess_tp1)
    return VTrace(v_t + trace.excess_t, trace.rho_t * future_t)


def vtrace_of_actions(
    log_ratio: Tensor,
    reward: Tensor,
    value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    discount: float,
    trace_lambda: float,
    max_rho: float = 1.0,
    max_c: float = 1.0,
) -> VTrace:
    """V-trace for losses that weight the action of a step themselves, as that of PPO does.

        A_t = r_{t+1} + discount (v(s_{t+1}) + lambda (vs_{t+1} - v(s_{t+1}))) - v(s_t)

    Its advantages have no rho_t, and look ahead by lambda as far as the targets do: with ratios of
    1 they are those of `generalized_advantages`.

    Args:
        log_ratio, reward, value, terminated, truncated: As in `vtrace`.
        discount, trace_lambda, max_rho, max_c: As in `vtrace`.
    """
    trace = _trace(
        log_ratio, reward, value, terminated, truncated, discount, trace_lambda, max_rho, max_c
    )
    v_t, v_tp1 = value[:-1], value[1:]
    ahead = torch.add(v_tp1, trace.excess_tp1, alpha=trace_lambda)
    return VTrace(v_t + trace.excess_t, torch.addcmul(reward - v_t, trace.discount_t, ahead))


@dataclass(frozen=True)
class _Trace:
    """What both forms of V-trace have in common, [T, B] each.

    Attributes:
        rho_t, discount_t: Of `vtrace`; the discount is 0 where an episode terminated.
        excess_t: vs_t - v(s_t).
        excess_tp1: vs_{t+1} - v(s_{t+1}) within an episode, else 0.
    """

    rho_t: Tensor
    discount_t: Tensor
    excess_t: Tensor
    excess_tp1: Tensor


def _trace(
    log_ratio: Tensor,
    reward: Tensor,
    value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float,
    trace_lambda: float,
    max_rho: float,
    max_c: float,
) -> _Trace:
    """See `vtrace`."""
    num_steps, num_envs = reward.shape
    assert value.shape == (num_steps + 1, num_envs), value.shape
    assert log_ratio.shape == terminated.shape == truncated.shape == reward.shape
    v_t, v_tp1 = value[:-1], value[1:]
    ratio_t = log_ratio.exp()
    rho_t = ratio_t.clamp(max=max_rho)
    discount_t = discount * (~terminated).to(value.dtype)
    continues_t = (~(terminated | truncated)).to(value.dtype)
    trace_t = ratio_t.clamp(max=max_c) * (discount * trace_lambda) * continues_t
    delta_t = rho_t * torch.addcmul(reward - v_t, discount_t, v_tp1)
    excess_t = accumulate(delta_t, trace_t)
    excess_tp1 = torch.cat((excess_t[1:], torch.zeros_like(excess_t[:1]))) * continues_t
    return _Trace(rho_t, discount_t, excess_t, excess_tp1)


def accumulated(delta_t: Tensor, trace_t: Tensor) -> Tensor:
    """x_t = delta_t + trace_t x_{t+1}, with x_T = 0; all [T, B]."""
    result = torch.empty_like(delta_t)
    following = torch.zeros_like(delta_t[0])
    for x_t, d_t, c_t in zip(
        reversed(result.unbind()),
        reversed(delta_t.unbind()),
        reversed(trace_t.unbind()),
        strict=True,
    ):
        following = torch.addcmul(d_t, c_t, following, out=x_t)
    return result


def _accumulated_shape(delta_t: Tensor, _trace_t: Tensor) -> Tensor:
    return torch.empty_like(delta_t)


# Not by `torch.library.custom_op`, whose first call imports PyTorch's compiler for seconds.
_OPERATIONS = torch.library.Library("tianji", "FRAGMENT")  # type: ignore[no-untyped-call]
if not hasattr(torch.ops.tianji, "accumulate"):  # a process has one registry, whoever imports this
    _OPERATIONS.define(  # type: ignore[no-untyped-call]
        "accumulate(Tensor delta_t, Tensor trace_t) -> Tensor"
    )
    _OPERATIONS.impl(  # type: ignore[no-untyped-call]
        "accumulate", accumulated, "CompositeExplicitAutograd"
    )
    torch.library.register_fake("tianji::accumulate", _accumulated_shape, lib=_OPERATIONS)
accumulate = torch.ops.tianji.accumulate.default
"""The same as one operation, of which a compiled function would have several for each step
otherwise; it calls `engine/compilation/cpp/accumulate.cpp`."""


Judge: TypeAlias = Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]
"""(network, batch) -> tensors by name."""


class FlatNetwork(Protocol):
    """A network whose parameters are views on flat ones: a `LearnerState`, or a `TargetNetwork`."""

    @property
    def network(self) -> nn.Module: ...

    @property
    def weights(self) -> FlatParameters: ...


class Preparing(Protocol):
    """Computes it."""

    def run(self, of: FlatNetwork, judge: Judge, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `judge` returns of the network and a batch, without gradients."""
        ...


class EagerPreparing:
    """Computes it kernel by kernel: the reference for compiled functions."""

    def run(self, of: FlatNetwork, judge: Judge, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Preparing`."""
        with torch.no_grad():
            return judge(of.network, batch)
