"""A team of two policies, random samples of it, and the loss of VDN and QMIX by slow loops."""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium
import numpy as np
import torch
from torch import Tensor

from engine.algorithms.base import Spaces
from engine.algorithms.q_network import ActionValues
from engine.algorithms.teams.mixing import MonotoneMixer
from engine.algorithms.teams.team_q_network import TeamQNetwork
from engine.testing import team_spaces

WIDTHS = {"zoe": 3, "adam": 2, "bob": 3}
CHOICES = {"zoe": 3, "adam": 4, "bob": 3}
FIRSTS = {"zoe": 0, "adam": 3, "bob": 7}
"""Where an agent's choices begin in a mask."""
NUMBERS = {"zoe": (0, 0), "adam": (1, 0), "bob": (0, 1)}
"""Which policy an agent has, and its number in it."""
AGENTS = tuple(WIDTHS)


def spaces(*, masks: bool = True) -> Spaces:
    seen = {name: gymnasium.spaces.Box(-9, 9, (width,)) for name, width in WIDTHS.items()}
    actions = {
        "zoe": gymnasium.spaces.Discrete(3),
        "adam": gymnasium.spaces.MultiDiscrete([4]),
        "bob": gymnasium.spaces.Discrete(3),
    }
    members = {"pair": ("zoe", "bob"), "adam": ("adam",)}
    return team_spaces(seen, actions, members, has_action_mask=masks)


def observed(
    random: np.random.Generator, lead: tuple[int, ...], prefix: str = "observation"
) -> dict[str, np.ndarray]:
    """States in which agents come and go."""
    found: dict[str, np.ndarray] = {
        f"{prefix}.agents.{name}": random.normal(size=(*lead, width))
        for name, width in WIDTHS.items()
    }
    for name in ("present", "terminated"):
        found[f"{prefix}.team.{name}"] = random.integers(0, 2, (*lead, 3)).astype(np.int8)
    found[f"{prefix}.team.reward"] = random.normal(size=(*lead, 3))
    mask = random.random((*lead, 10)) < 0.5
    for name, first in FIRSTS.items():
        always = random.integers(first, first + CHOICES[name], (*lead, 1))
        np.put_along_axis(mask, always, True, -1)
    key = "action_mask" if prefix == "observation" else "next_action_mask"
    return {**found, key: mask}


def actions(random: np.random.Generator, lead: tuple[int, ...]) -> np.ndarray:
    return np.stack([random.integers(0, n, lead) for n in CHOICES.values()], -1)


def seen_by(name: str, samples: Mapping[str, Tensor], prefix: str = "observation") -> Tensor:
    """What the network of an agent takes, [..., D]."""
    own = samples[f"{prefix}.agents.{name}"]
    if name == "adam":
        return own
    number = torch.zeros(*own.shape[:-1], 2, dtype=own.dtype)
    number[..., NUMBERS[name][1]] = 1
    return torch.cat((own, number), -1)


def network_of(name: str, network: TeamQNetwork) -> ActionValues:
    found = network.agents[NUMBERS[name][0]]
    assert isinstance(found, ActionValues)
    return found


def mixed(network: TeamQNetwork, values: list[Tensor], state: Tensor) -> Tensor:
    """Q_tot of three values and one state, [D], entry by entry."""
    mixer = network.mixer
    if not isinstance(mixer, MonotoneMixer):
        return values[0] + values[1] + values[2]
    one = state[None]
    hidden = mixer.first_bias(one)[0]
    size = len(hidden)
    first = mixer.first(one)[0].abs()
    units = []
    for unit in range(size):
        total = hidden[unit]
        for agent, value in enumerate(values):
            total = total + first[agent * size + unit] * value
        units.append(total if total > 0 else total.exp() - 1)
    second = mixer.second(one)[0].abs()
    whole = mixer.second_bias(one)[0, 0]
    for unit in range(size):
        whole = whole + second[unit] * units[unit]
    return whole


def whole_state(samples: Mapping[str, Tensor], prefix: str = "observation") -> Tensor:
    return torch.cat([samples[f"{prefix}.agents.{name}"] for name in AGENTS], -1)


def best_of(name: str, ranking: Tensor, mask: Tensor) -> int:
    """The best valid choice; values [choices], mask of all agents [10]."""
    first = FIRSTS[name]
    allowed = mask[first : first + CHOICES[name]]
    return int(torch.where(allowed, ranking.detach(), -torch.inf).argmax())


def walk(
    network: TeamQNetwork, name: str, samples: Mapping[str, Tensor], i: int, first: int, size: int
) -> list[Tensor]:
    """q(s_0, .) to q(s_T, .) of one agent in one sequence, one step after the other."""
    order = [0, 2, 1]  # the memories of the pair's agents come first
    place = order.index(AGENTS.index(name))
    state = samples["state"][i, place * size : (place + 1) * size][None]
    seen, valid = seen_by(name, samples)[i], samples["valid"][i]
    present = samples["observation.team.present"][i, :, AGENTS.index(name)]
    own = network_of(name, network)
    found = []
    begin = 0 if samples["has_burn_in"][i] else first
    for t in range(begin, len(seen)):
        with torch.set_grad_enabled(t >= first and torch.is_grad_enabled()):
            q, state = own.step(seen[t : t + 1], state)
        if t >= first:
            found.append(q[0])
        if t < len(valid) and not (valid[t] and present[t]):
            state = torch.zeros_like(state)
    return found


def huber(delta: Tensor) -> Tensor:
    size = delta.abs()
    return size**2 / 2 if size < 1 else size - 0.5
