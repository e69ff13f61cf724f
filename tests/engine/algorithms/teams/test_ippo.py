"""IPPO: the update of PPO for each policy, whoever is absent, alone or with other learners."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch import Tensor

from engine.algorithms.base import LearnerState, Spaces
from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import PpoConfig
from engine.algorithms.teams.ippo import Ippo, IppoConfig, TeamNetwork
from engine.algorithms.teams.mappo import Mappo, MappoConfig
from engine.errors import ConfigError
from engine.layers.flat import span_of
from engine.layers.inputs import STATE
from engine.spec import CoreSpec, EncoderSpec, NetworkSpec
from engine.testing import discrete_spaces, team_spaces
from tests.helpers.engine.functional_steps import FunctionalTaker
from tests.helpers.engine.replica_learners import learn_together, one_thread
from tests.helpers.engine.team_batches import EYES, TWINS, B, T, collect, spoil_absent, unlike

SIZES = {"rollout_steps": T, "batch_steps": T * B, "minibatch_steps": 12, "num_epochs": 2}
PLAIN = NetworkSpec(hidden_sizes=(8,))
GRU = NetworkSpec(hidden_sizes=(8,), core=CoreSpec(name="gru", size=5))
NETWORKS = pytest.mark.parametrize("network", [PLAIN, GRU], ids=["plain", "gru"])
KINDS = pytest.mark.parametrize(("kind", "config"), [(Ippo, IppoConfig), (Mappo, MappoConfig)])


_one_thread = pytest.fixture(autouse=True)(one_thread)


def ippo(spaces: Spaces, network: NetworkSpec = PLAIN, **hyperparameters: float) -> Ippo:
    return Ippo(IppoConfig(**(SIZES | hyperparameters)), network, spaces)  # type: ignore[arg-type]


def moved(state: LearnerState, algorithm: Ippo) -> Tensor:
    return (state.weights.vector - algorithm.init(3).weights.vector).abs().max()


CORRECTED = {
    **{"decoupled": True, "advantages": "vtrace", "ess_learning_rate": 0.5, "lag_weights": True}
}


@pytest.mark.parametrize("options", [{}, CORRECTED], ids=["", "corrected"])
@NETWORKS
def test_a_lone_agent_learns_what_ppo_learns(network: NetworkSpec, options: dict) -> None:
    team = ippo(team_spaces({"a": EYES}, {"a": Discrete(3)}), network, **options)
    alone = Ppo(PpoConfig(**SIZES, **options), network, Spaces(EYES, Discrete(3)))
    batch = {**collect(team), "version": -torch.arange(B)}
    batch["log_prob"] += torch.randn(batch["log_prob"].shape) * 0.1
    batch["observation.team.present"][:] = 1
    batch["observation.team.terminated"][:] = 0
    own = {
        **{name: batch[name] for name in ("terminated", "truncated", "valid", "version")},
        "observation": batch["observation.agents.a"],
        "action": batch["action"].squeeze(-1),
        "log_prob": batch["log_prob"].squeeze(-1),
        "reward": batch["observation.team.reward"][1:].squeeze(-1),
    }
    if network.core is not None:
        own[STATE] = batch[STATE]
    states = team.init(3), alone.init(3)
    results = team.update(states[0], batch), alone.update(states[1], own)
    assert results[0] == results[1]
    assert torch.equal(states[0].weights.vector, states[1].weights.vector)
    assert moved(states[0], team) > 1e-4


@KINDS
@NETWORKS
def test_whoever_is_absent_changes_nothing(
    kind: type[Ippo], config: type[IppoConfig], network: NetworkSpec
) -> None:
    algorithm = kind(config(**SIZES), network, unlike())  # type: ignore[arg-type]
    batch = collect(algorithm)
    spoilt = spoil_absent(batch, unlike(), sees_all=kind is Mappo)
    assert not torch.equal(spoilt["action"], batch["action"])
    states = algorithm.init(3), algorithm.init(3)
    results = [
        algorithm.update(state, data) for state, data in zip(states, (batch, spoilt), strict=True)
    ]
    assert results[0] == results[1]
    assert torch.equal(states[0].weights.vector, states[1].weights.vector)
    assert moved(states[0], algorithm) > 1e-4


@KINDS
@NETWORKS
def test_what_was_done_is_as_likely_to_the_learner(
    kind: type[Ippo], config: type[IppoConfig], network: NetworkSpec
) -> None:
    """Also after a minibatch is gathered; and who was away has forgotten."""
    spaces = unlike(has_action_mask=True)
    algorithm = kind(config(**SIZES | {"num_epochs": 1}), network, spaces)  # type: ignore[arg-type]
    batch = collect(algorithm)
    state = algorithm.init(3)
    assert isinstance(state.network, TeamNetwork)
    view = algorithm._view
    for policy in view.policies:
        own = algorithm._batch(batch, policy)
        member = algorithm._members[policy.name]
        samples = member.prepare(state.network.policies[policy.name], own)
        divergence = member.loss(state.network.policies[policy.name], samples)[1][-1]
        assert abs(float(divergence)) < 1e-6
        assert 0 < int(own["valid"].sum()) < own["valid"].numel()


@pytest.mark.parametrize("lag_weights", [False, True])
@KINDS
def test_policies_learn_together_what_each_learns_alone(
    kind: type[Ippo], config: type[IppoConfig], lag_weights: bool
) -> None:
    spaces = unlike()
    hyperparameters = config(
        **SIZES, max_gradient_norm=0.05, learning_rate=1e-2, lag_weights=lag_weights
    )  # type: ignore[arg-type]
    both = kind(hyperparameters, PLAIN, spaces)
    batch, together = {**collect(both), "version": -torch.arange(B)}, both.init(3)
    both.update(together, batch)
    assert spaces.team is not None
    for name in ("pair", "lone"):
        own = replace(spaces, team=replace(spaces.team, own=frozenset({name})))
        one = kind(hyperparameters, PLAIN, own)
        state = one.init(3)
        one.update(state, batch)
        span = span_of(state.network, f"policies.{name}")
        apart, first = state.weights.vector, one.init(3).weights.vector
        assert torch.equal(apart[span], together.weights.vector[span])
        changed = apart != first
        assert changed[span].any()
        changed[span] = False
        assert not changed.any()


OPTIONS = {
    "plain": {},
    "shared reward": {"share_reward": True, "normalize_reward": True},
    "ends early": {"target_kl": 1e-5, "value_clip_range": 0.2},
    "schedules": {"entropy_coefficient_final": 0.1, "clip_range_final": 0.1},
    "corrected": CORRECTED,
}


@KINDS
def test_two_learners_on_parts_of_batches_equal_one_on_whole_batches(
    kind: type[Ippo], config: type[IppoConfig]
) -> None:
    network = msgspec.structs.replace(PLAIN, normalize_observation=True)
    for options in OPTIONS.values():
        algorithm = kind(config(**SIZES | options), network, unlike())  # type: ignore[arg-type]
        batches = [collect(algorithm, seed) for seed in range(3)]
        alone = algorithm.init(7)
        for number, batch in enumerate(batches):
            alone.progress = number / len(batches)
            algorithm.update(alone, batch)
        for state in learn_together(algorithm, batches, (3, 1)):
            torch.testing.assert_close(
                state.weights.vector, alone.weights.vector, rtol=0, atol=1e-5
            )
            assert state.num_updates == alone.num_updates


@KINDS
@NETWORKS
def test_steps_that_are_compiled_are_those_of_eager_mode(
    kind: type[Ippo], config: type[IppoConfig], network: NetworkSpec
) -> None:
    hyperparameters = config(**SIZES, max_gradient_norm=0.05)  # type: ignore[arg-type]
    algorithm = kind(hyperparameters, network, unlike(has_action_mask=True))
    batch, eager, functional = collect(algorithm), algorithm.init(3), algorithm.init(3)
    functional.steps = FunctionalTaker()
    wanted, found = algorithm.update(eager, batch), algorithm.update(functional, batch)
    torch.testing.assert_close(functional.weights.vector, eager.weights.vector, rtol=0, atol=1e-6)
    assert found.metrics == pytest.approx(wanted.metrics, abs=1e-5)
    norms = [
        state.weights.steps.metrics for state in (eager, functional) if state.weights.steps.count()
    ]
    assert norms[0]["gradient_norm"] == pytest.approx(norms[1]["gradient_norm"], rel=1e-4)


def test_every_agent_can_learn_from_the_sum_of_all_rewards() -> None:
    algorithm = ippo(TWINS, share_reward=True)
    batch = collect(algorithm)
    (policy,) = algorithm._view.policies
    own = algorithm._batch(batch, policy)
    reward = own["reward"].view(T, B, 3)
    of_team = batch["observation.team.reward"][1:].sum(-1, keepdim=True).expand(T, B, 3)
    valid = own["valid"].view(T, B, 3)
    assert torch.equal(reward[valid], of_team[valid])
    assert not reward[~valid].any()


def test_agents_of_one_policy_are_told_apart() -> None:
    algorithm = ippo(TWINS)
    network = algorithm.init(0).network
    batch = collect(algorithm)
    states = {name: values[0] for name, values in batch.items() if name.startswith("obs")}
    for name in "bc":
        states[f"observation.agents.{name}"] = states["observation.agents.a"]
    (policy,) = algorithm._view.policies
    seen = algorithm._view.inputs(states, policy)["observation"].view(B, 3, 6)
    assert torch.equal(seen[:, 0, :3], seen[:, 2, :3])
    assert seen[0, :, 3:].tolist() == torch.eye(3).tolist()
    assert isinstance(network, TeamNetwork)


def test_encoders_are_those_of_the_policies_that_have_the_leaf() -> None:
    camera = Box(0, 255, (8, 8, 3), np.uint8)
    spaces = team_spaces(
        {"a": Dict(camera=camera, speed=EYES), "b": Dict(sonar=EYES, speed=EYES)},
        dict.fromkeys("ab", Discrete(2)),
        {"a": ("a",), "b": ("b",)},
    )
    encoders = {name: EncoderSpec(name="flatten") for name in ("camera", "sonar", "speed")}
    ippo(spaces, msgspec.structs.replace(PLAIN, encoders=encoders)).init(0)
    wrong = msgspec.structs.replace(PLAIN, encoders={"sonra": EncoderSpec()})
    with pytest.raises(ConfigError, match="no leaf 'sonra'"):
        ippo(spaces, wrong).init(0)


def test_one_agent_is_no_team() -> None:
    with pytest.raises(ConfigError, match="ippo is for several agents"):
        ippo(discrete_spaces())
