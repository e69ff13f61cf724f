"""Batches of a team whose agents come and go, as actors collect them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch import Tensor

from engine.algorithms.base import Algorithm, EnvSlice, Spaces
from engine.algorithms.teams.agents import TeamView
from engine.layers.inputs import STATE
from engine.rollout import Layout
from engine.spaces.leaves import AnySpace
from engine.spaces.observations import MASK
from engine.testing import team_spaces

T, B = 6, 4
EYES = Box(-1, 1, (3,), np.float32)
ARMS = Dict(grip=Discrete(3), reach=Box(-1, 1, (2,), np.float32))
TWINS = team_spaces(dict.fromkeys("abc", EYES), dict.fromkeys("abc", Discrete(3)))
OBSERVATIONS: dict[str, AnySpace] = {"a": EYES, "b": Dict(x=EYES, age=Discrete(4)), "c": EYES}
ACTIONS: dict[str, AnySpace] = {"a": Discrete(3), "b": ARMS, "c": Discrete(3)}
MEMBERS: Mapping[str, Sequence[str]] = {"pair": ("a", "c"), "lone": ("b",)}


def unlike(*, has_action_mask: bool = False) -> Spaces:
    """Two twins, and between them an agent with other spaces and a policy of its own."""
    return team_spaces(OBSERVATIONS, ACTIONS, MEMBERS, has_action_mask=has_action_mask)


def collect(algorithm: Algorithm, seed: int = 0) -> dict[str, Tensor]:
    """Random states, and in each what the initial policy does, [T, B].

    The episode of environment 0 terminates in step 2, that of environment 1 is truncated in step 3;
    the step after only resets. Agents 0 and 1 are absent now and then; of those that leave, some
    have terminated.
    """
    random = torch.Generator().manual_seed(seed)
    fields = algorithm.samples().fields
    layout = Layout(fields, T, B)
    batch = {
        field.name: _random(layout.shape(field), field.dtype, random)
        for field in fields
        if field.extra_rows or field.num_rows
    }
    present = torch.rand(T + 1, B, batch["observation.team.present"].shape[-1], generator=random)
    batch["observation.team.present"] = (present < 0.7).to(torch.int8)
    batch["observation.team.present"][..., 2:] = 1
    if MASK in batch:
        batch[MASK] |= torch.rand(batch[MASK].shape, generator=random) < 0.6
    ends = torch.zeros(2, T, B, dtype=torch.bool)
    ends[0, 2, 0] = ends[1, 3, 1] = True
    valid = torch.ones(T, B, dtype=torch.bool)
    valid[3, 0] = valid[4, 1] = False
    chosen = _act(algorithm, batch, random, valid)
    reward = torch.randn(T, B, generator=random)
    named = {"reward": reward, "terminated": ends[0], "truncated": ends[1], "valid": valid}
    return batch | chosen | named


def _act(
    algorithm: Algorithm, batch: dict[str, Tensor], random: torch.Generator, valid: Tensor
) -> dict[str, Tensor]:
    """What is chosen along the way, with a memory that begins anew with each episode."""
    network = algorithm.init(3).network
    noise = algorithm.noise(random, T, EnvSlice(0, B, B))
    steps, state = [], {STATE: batch[STATE][0]} if STATE in batch else {}
    for t in range(T):
        states = {name: values[t] for name, values in batch.items() if name != STATE}
        with torch.no_grad():
            chosen = algorithm.act(network, states | state, noise[t])
        if state:
            state = {STATE: chosen.pop(STATE) * valid[t].unsqueeze(-1)}
        steps.append(chosen)
    return {name: torch.stack([step[name] for step in steps]) for name in steps[0]}


def _random(shape: tuple[int, ...], dtype: str, random: torch.Generator) -> Tensor:
    if dtype == "float32":
        return torch.randn(shape, generator=random)
    return torch.randint(2, shape, generator=random).to(getattr(torch, dtype))


def spoil_absent(
    batch: Mapping[str, Tensor], spaces: Spaces, *, sees_all: bool
) -> dict[str, Tensor]:
    """Other actions, likelihoods and rewards of those who do not act; and other observations of
    those who have been away for longer, unless someone else sees them.

    Args:
        batch: As `collect` gives it.
        spaces: Its spaces.
        sees_all: Whether a value sees what all observe.
    """
    team, view = spaces.team, TeamView("test", spaces)
    assert team is not None
    spoilt = {name: values.clone() for name, values in batch.items()}
    is_away = spoilt["observation.team.present"] == 0
    absent = is_away[:-1] | ~spoilt["valid"].unsqueeze(-1)
    spoilt["observation.team.reward"][1:][absent] = 99.0
    spoilt["log_prob"][absent] -= 3.0
    chosen = {policy.name: view.actions(batch["action"], policy) for policy in team.policies}
    for policy in team.policies:
        own, gone = chosen[policy.name], absent[..., list(policy.agents)]
        own[gone] = (own[gone] + 1) % 3 if own.dtype == torch.int64 else own[gone] * 0
    spoilt["action"] = view.joint_action(chosen)
    was_away = torch.cat((torch.ones_like(is_away[:1]), is_away[:-1]))
    for number, agent in enumerate(team.agents) if not sees_all else ():
        long_gone = (is_away & was_away)[..., number]
        for name in (name for name in spoilt if f".agents.{agent}" in name):
            spoilt[name][long_gone] = 1 - spoilt[name][long_gone]
    return spoilt
