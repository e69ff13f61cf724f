"""MAPPO: central values and advantages against a second implementation in double precision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from msgspec.structs import replace
from torch import Tensor

from engine.algorithms.base import Spaces
from engine.algorithms.networks import CENTRAL, PolicyValueNetwork
from engine.algorithms.teams.ippo import TeamNetwork
from engine.algorithms.teams.mappo import Mappo, MappoConfig
from engine.spaces.team import SharedPolicy
from engine.spec import CoreSpec, NetworkSpec
from engine.testing import team_spaces
from tests.helpers.engine.policy_by_hand import forward
from tests.helpers.engine.team_batches import EYES, TWINS, B, T, collect, unlike

SIZES = {"rollout_steps": T, "batch_steps": T * B, "minibatch_steps": 12, "num_epochs": 2}
PLAIN = NetworkSpec(hidden_sizes=(8, 8))
GRU = NetworkSpec(hidden_sizes=(8,), core=CoreSpec(name="gru", size=5))
Numbers = npt.NDArray[np.float64]


def mappo(spaces: Spaces, network: NetworkSpec = PLAIN) -> Mappo:
    return Mappo(MappoConfig(**SIZES), network, spaces)  # type: ignore[arg-type]


def network_of(algorithm: Mappo, policy: SharedPolicy) -> PolicyValueNetwork:
    network = algorithm.init(3).network
    assert isinstance(network, TeamNetwork)
    own = network.policies[policy.name]
    assert isinstance(own, PolicyValueNetwork)
    return own


def state_by_hand(batch: dict[str, Tensor], t: int, env: int) -> Numbers:
    """What the agents of `unlike` observe, one after the other."""
    parts = [batch["observation.agents.a"][t, env]]
    age = torch.zeros(4)
    age[int(batch["observation.agents.b.age"][t, env])] = 1
    parts += [batch["observation.agents.b.x"][t, env], age, batch["observation.agents.c"][t, env]]
    return torch.cat(parts).double().numpy()


def values_by_hand(
    algorithm: Mappo, policy: SharedPolicy, batch: dict[str, Tensor], env: int, number: int
) -> Numbers:
    """v of one agent along T + 1 states: a perceptron on the state and the agent's number."""
    size = len(policy.agents)
    told = np.eye(size)[number] if size > 1 else np.zeros(0)
    states = [state_by_hand(batch, t, env) for t in range(T + 1)]
    seen = np.stack([np.concatenate((state, told)) for state in states])
    return forward(network_of(algorithm, policy), "value", seen)[:, 0]


def advantages_by_hand(batch: dict[str, Tensor], env: int, agent: int, value: Numbers) -> Numbers:
    """A_t = sum of (discount lambda)^k delta_{t+k} until the agent's own episode ends; NaN where
    it does not act."""
    present = batch["observation.team.present"][:, env, agent].bool().tolist()
    has_ended = batch["observation.team.terminated"][:, env, agent].bool().tolist()
    reward = batch["observation.team.reward"][:, env, agent].double().tolist()
    advantage = np.full(T, np.nan)
    for start in range(T):
        if not (present[start] and batch["valid"][start, env]):
            continue
        total, factor = 0.0, 1.0
        for t in range(start, T):
            terminates = has_ended[t + 1] or bool(batch["terminated"][t, env])
            future = 0.0 if terminates else value[t + 1]
            total += factor * (reward[t + 1] + 0.99 * future - value[t])
            if terminates or not present[t + 1] or bool(batch["truncated"][t, env]):
                break
            factor *= 0.99 * 0.95
        advantage[start] = total
    return advantage


def test_central_advantages_are_those_by_hand_whoever_comes_and_goes() -> None:
    algorithm = mappo(unlike())
    batch = collect(algorithm)
    seen = 0
    for policy in algorithm._view.policies:
        own = algorithm._batch(batch, policy)
        network = network_of(algorithm, policy)
        size = len(policy.agents)
        found = algorithm._members[policy.name].prepare(network, own)
        advantage = found["advantage"].view(T, B, size).double().numpy()
        target = found["value_target"].view(T, B, size).double().numpy()
        for env in range(B):
            for number, agent in enumerate(policy.agents):
                value = values_by_hand(algorithm, policy, batch, env, number)
                wanted = advantages_by_hand(batch, env, agent, value)
                acts = ~np.isnan(wanted)
                seen += int(acts.sum())
                mine = advantage[:, env, number]
                np.testing.assert_allclose(mine[acts], wanted[acts], atol=1e-5)
                np.testing.assert_allclose(
                    target[acts, env, number], (wanted + value[:-1])[acts], atol=1e-5
                )
    assert T * B < seen < 3 * T * B


@pytest.mark.parametrize("network", [PLAIN, GRU], ids=["plain", "gru"])
def test_a_value_sees_what_only_others_observe_and_a_policy_does_not(network: NetworkSpec) -> None:
    algorithm = mappo(TWINS, network)
    batch = collect(algorithm)
    (policy,) = algorithm._view.policies
    changed = batch | {"observation.agents.c": batch["observation.agents.c"] + 1}
    parts = [algorithm._batch(data, policy) for data in (batch, changed)]
    values = [
        algorithm._members[policy.name]._values(network_of(algorithm, policy), part).view(-1, B, 3)
        for part in parts
    ]
    assert (values[0] != values[1]).all()
    states = [
        {name: data[name][0] for name in data if name.startswith("observation")}
        | ({"state": data["state"][0]} if "state" in data else {})
        for data in (batch, changed)
    ]
    actions = [
        algorithm._members[policy.name]
        ._policy(network_of(algorithm, policy), algorithm._view.inputs(state, policy))[0]
        .log_prob(torch.zeros(3 * B, dtype=torch.int64))
        .view(B, 3)
        for state in states
    ]
    assert torch.equal(actions[0][:, :2], actions[1][:, :2])
    assert not torch.equal(actions[0][:, 2], actions[1][:, 2])


def test_the_environments_own_state_takes_the_place_of_all_observations() -> None:
    spaces = team_spaces(
        dict.fromkeys("ab", EYES),
        dict.fromkeys("ab", Discrete(2)),
        state=Box(-1, 1, (2, 2), np.float32),
    )
    algorithm = mappo(spaces)
    batch = collect(algorithm)
    (policy,) = algorithm._view.policies
    seen = algorithm._batch(batch, policy)[CENTRAL].view(T + 1, B, 2, 6)
    assert torch.equal(seen[:, :, 0, :4], batch["observation.state"].flatten(2))
    assert seen[0, 0, :, 4:].tolist() == [[1, 0], [0, 1]]


def test_what_a_central_value_sees_is_normalised_apart() -> None:
    algorithm = mappo(TWINS, replace(PLAIN, normalize_observation=True))
    batch, state = collect(algorithm), algorithm.init(3)
    algorithm.update(state, batch)
    assert isinstance(state.network, TeamNetwork)
    (policy,) = algorithm._view.policies
    own = state.network.policies[policy.name]
    part = algorithm._batch(batch, policy)
    seen = part[CENTRAL][:-1][part["valid"]]
    assert isinstance(own, PolicyValueNetwork)
    assert own.central_input is not None
    torch.testing.assert_close(own.central_input.statistics.mean, seen.mean(0), atol=1e-5, rtol=0)
    assert own.input.statistics.mean.shape == (6,)
