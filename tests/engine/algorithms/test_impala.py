"""IMPALA's loss against a second implementation in NumPy, and what it promises to roles."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from msgspec.structs import replace

from engine.algorithms.base import EnvSlice, Spaces
from engine.algorithms.impala import Impala, ImpalaConfig
from engine.algorithms.networks import PolicyValueNetwork
from engine.algorithms.registry import make_algorithm
from engine.algorithms.schedules import beside
from engine.errors import ConfigError
from engine.spec import NetworkSpec, StalenessSpec
from engine.testing import discrete_spaces, make_experiment
from tests.helpers.engine.policy_by_hand import forward, make_batch
from tests.helpers.engine.vtrace_by_hand import targets_by_hand

NETWORK = NetworkSpec(hidden_sizes=(8, 8))
CONFIG = ImpalaConfig(rollout_steps=6, batch_steps=24, entropy_coefficient=0.05, max_rho=1.2)
CONTINUOUS = Spaces(discrete_spaces().observation, gymnasium.spaces.Box(-1, 1, (2,)))


def policy_by_hand(
    network: PolicyValueNetwork, batch: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """ln pi(a_t | s_t) and the entropy, [T, B]."""
    outputs = forward(network, "policy", batch["observation"][:-1])
    if batch["action"].ndim == 2:
        log_probs = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
        chosen = np.take_along_axis(log_probs, batch["action"][..., None], -1)[..., 0]
        return chosen, -(np.exp(log_probs) * log_probs).sum(-1)
    log_std = network.log_std.detach().double().numpy()
    z = (batch["action"] - outputs) / np.exp(log_std)
    log_prob = -(z**2 / 2 + log_std + np.log(2 * np.pi) / 2).sum(-1)
    entropy = (log_std + np.log(2 * np.pi * np.e) / 2).sum()
    return log_prob, np.full(log_prob.shape, entropy)


@pytest.mark.parametrize("final", [None, 0.3], ids=["constant", "schedule"])
@pytest.mark.parametrize("spaces", [discrete_spaces(), CONTINUOUS], ids=["discrete", "continuous"])
def test_the_loss_is_that_of_the_paper(spaces: Spaces, final: float | None):
    impala = Impala(replace(CONFIG, entropy_coefficient_final=final), NETWORK, spaces)
    state = impala.init(seed=3)
    assert isinstance(state.network, PolicyValueNetwork)
    tensors = make_batch(is_discrete=spaces is not CONTINUOUS)
    batch = {name: values.numpy() for name, values in tensors.items()}
    log_prob, entropy = policy_by_hand(state.network, batch)
    value = forward(state.network, "value", batch["observation"])[..., 0]
    targets, advantages = targets_by_hand(
        log_prob - batch["log_prob"],
        batch["reward"],
        value,
        batch["terminated"],
        batch["truncated"],
        CONFIG.discount,
        CONFIG.trace_lambda,
        CONFIG.max_rho,
        CONFIG.max_c,
    )
    valid = batch["valid"]
    policy_loss = -(advantages * log_prob)[valid].mean()
    value_loss = ((value[:-1] - targets) ** 2)[valid].mean()
    wanted = policy_loss + CONFIG.value_coefficient * value_loss
    wanted -= (final or CONFIG.entropy_coefficient) * entropy[valid].mean()
    network = state.network.double()
    doubled = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    if final is not None:
        doubled |= beside(doubled["log_prob"], {"entropy_coefficient": final})
    loss, metrics, _ = impala._loss(network, doubled)
    assert loss.item() == pytest.approx(wanted, abs=1e-6)
    assert metrics[:3].tolist() == pytest.approx(
        [policy_loss, value_loss, entropy[valid].mean()], abs=1e-6
    )


def test_schedules_are_at_half_progress_where_their_mean_is():
    config = replace(CONFIG, learning_rate_final=2e-4, entropy_coefficient_final=0.45)
    there = replace(CONFIG, learning_rate=4e-4, entropy_coefficient=0.25)
    states = []
    for impala in (Impala(each, NETWORK, discrete_spaces()) for each in (config, there)):
        state = impala.init(seed=3)
        state.progress = 0.5
        metrics = [impala.update(state, make_batch(seed)).metrics for seed in range(3)]
        states.append(state)
        told = metrics[-1].get("entropy_coefficient", 0.25)
        assert told == pytest.approx(0.25)
    one, other = (state.weights.vector for state in states)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_mode_correct_is_for_algorithms_that_correct():
    staleness = StalenessSpec(mode="correct")
    with pytest.raises(ConfigError, match="ppo does not correct") as error:
        make_algorithm(make_experiment(staleness=staleness), discrete_spaces())
    assert error.value.where == "staleness.mode"
    spec = make_experiment(staleness=staleness)
    wanted = {"name": "impala", "rollout_steps": 10, "batch_steps": 80}
    impala = make_algorithm(
        type(spec)(name="t", env=spec.env, algorithm=wanted, staleness=staleness),
        discrete_spaces(),
    )
    assert impala.samples().corrects_staleness


def test_truncation_levels_must_be_ordered():
    with pytest.raises(ConfigError, match="max_rho") as error:
        Impala(ImpalaConfig(max_rho=0.5, max_c=1.0), NETWORK, discrete_spaces())
    assert error.value.where == "algorithm.max_rho"


def test_a_continuous_rewarded_action_becomes_more_probable():
    impala = Impala(
        ImpalaConfig(learning_rate=1e-2, rollout_steps=1, batch_steps=64), NETWORK, CONTINUOUS
    )
    state = impala.init(seed=0)
    observation = torch.ones(2, 64, 4)
    for _ in range(200):
        with torch.no_grad():
            noise = impala.noise(state.generator, 1, EnvSlice(0, 64, 64))
            chosen = impala.act(state.network, observation[0], noise[0])
        ends = torch.ones(1, 64, dtype=torch.bool)
        reward = -(chosen["action"] - torch.tensor([0.5, -0.5])).square().sum(-1)
        batch = {name: values.unsqueeze(0) for name, values in chosen.items()}
        batch |= {"observation": observation, "reward": reward.unsqueeze(0)}
        batch |= {"terminated": ends, "truncated": ~ends, "valid": ends}
        impala.update(state, batch)
    best = impala.act_greedily(state.network, observation[0, :1]).squeeze(0)
    torch.testing.assert_close(best, torch.tensor([0.5, -0.5]), rtol=0, atol=0.15)
