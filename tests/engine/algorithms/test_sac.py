"""SAC against an implementation of its equations in float64, written from the paper."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from engine.algorithms.base import EnvSlice, LearnerState, Spaces
from engine.algorithms.q_network import PolicyCriticsNetwork
from engine.algorithms.sac import Sac, SacConfig
from engine.errors import ConfigError
from engine.layers.distributions import SquashedGaussian
from engine.spec import NetworkSpec
from tests.helpers.engine.continuous import (
    SPACES,
    Adam64,
    Parameters,
    critics64,
    named64,
    of_state,
    policy64,
    random_batch,
)
from tests.helpers.engine.functional_steps import FunctionalTaker

NETWORK = NetworkSpec(hidden_sizes=(8, 6), activation="relu")


def make(**hyperparameters: object) -> Sac:
    sizes = {"batch_size": 16, "updates_per_batch": 3, "learning_rate": 1e-2}
    return Sac(SacConfig(**{**sizes, **hyperparameters}), NETWORK, SPACES)  # type: ignore[arg-type]


def sampled64(parameters: Parameters, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """a = tanh(u) and ln pi(a | s) = ln N(u) - sum of ln(1 - a^2), appendix C, equation 21 of the
    first paper."""
    mean, log_std = policy64(parameters, observation).chunk(2, -1)
    std = log_std.clamp(-20, 2).exp()
    u = mean + std * noise
    action = torch.tanh(u)
    log_normal = -((u - mean) ** 2) / (2 * std**2) - std.log() - math.log(math.sqrt(2 * math.pi))
    return action, (log_normal - torch.log(1 - action**2)).sum(-1)


def step64(
    parameters: Parameters, target: Parameters, adam: Adam64, sample: Parameters, entropy: float
) -> list[float]:
    """Algorithm 1 of the paper on one minibatch, in place; returns the metrics."""
    noise = sample["noise"]
    alpha = parameters["temperature.log_coefficient"].detach().exp()
    with torch.no_grad():
        action, log_prob = sampled64(parameters, sample["next_observation"], noise[:, 0])
        q = critics64(target, sample["next_observation"], action)
        soft = torch.minimum(q[0], q[1]) - alpha * log_prob
        y = sample["reward"] + sample["discount"] * soft
    q = critics64(parameters, sample["observation"], sample["action"])
    critic_loss = sum(0.5 * ((one - y) ** 2).mean() for one in q)
    adam.step(critic_loss, parameters, "critics")
    metrics = [critic_loss.item(), torch.stack(list(q)).mean().item()]

    action, log_prob = sampled64(parameters, sample["observation"], noise[:, 1])
    q = critics64(parameters, sample["observation"], action)
    policy_loss = (alpha * log_prob - torch.minimum(q[0], q[1])).mean()
    of_temperature = parameters["temperature.log_coefficient"]
    temperature_loss = -(of_temperature * (log_prob.detach() + entropy)).mean()
    adam.step(policy_loss + temperature_loss, parameters, "policy", "temperature")
    for name in target:
        target[name] += 0.005 * (parameters[name].detach() - target[name])
    return [*metrics, policy_loss.item(), -log_prob.mean().item(), alpha.item()]


@pytest.mark.parametrize("taker", [None, FunctionalTaker()], ids=["eager", "functional"])
def test_steps_are_those_of_the_paper(taker: FunctionalTaker | None):
    algorithm = make(entropy_coefficient_initial=0.3)
    state = algorithm.init(0)
    if taker is not None:
        state.steps = taker
    parameters, target = of_state(state)
    batch = random_batch(algorithm, 1)
    drawn = torch.Generator()
    drawn.set_state(state.generator.get_state())
    noise = torch.randn(3, 16, 2, 2, generator=drawn)
    adam, metrics = Adam64(1e-2), []
    for number in range(3):
        sample = named64({name: values[number] for name, values in batch.items()})
        sample["noise"] = noise[number].double()
        metrics.append(step64(parameters, target, adam, sample, entropy=-2.0))
    result = algorithm.update(state, batch)
    assert list(result.metrics.values()) == pytest.approx(np.mean(metrics, 0), rel=2e-5)
    found, followed = of_state(state)
    for name, values in parameters.items():
        torch.testing.assert_close(found[name], values, atol=2e-5, rtol=0, msg=name)
    for name, values in target.items():
        torch.testing.assert_close(followed[name], values, atol=1e-6, rtol=0, msg=name)
    assert result.samples_trained == 48
    assert state.num_updates == 3
    assert state.optimizer.num_steps == 3


def test_the_temperature_falls_while_the_entropy_is_above_its_target_and_rises_below():
    for wanted, sign in ((-50.0, -1.0), (50.0, 1.0)):
        algorithm = make(target_entropy=wanted)
        state = algorithm.init(0)
        before = temperature(state)
        algorithm.update(state, random_batch(algorithm, 2))
        assert (temperature(state) - before) * sign > 0


def temperature(state: LearnerState) -> float:
    assert isinstance(state.network, PolicyCriticsNetwork)
    return float(state.network.temperature.log_coefficient.detach())


def test_a_fixed_coefficient_stays():
    algorithm = make(entropy_coefficient=0.25)
    state = algorithm.init(0)
    assert not [n for n, _ in state.network.named_parameters() if "temperature" in n]
    result = algorithm.update(state, random_batch(algorithm, 2))
    assert result.metrics["entropy_coefficient"] == 0.25


def test_the_log_probability_is_exact_where_tanh_is_one():
    """There the other form, ln(1 - tanh(u)^2), is minus infinity, in float64 too."""
    means = torch.tensor([[0.0], [12.0], [-30.0], [200.0]], requires_grad=True)
    outputs = torch.cat((means, torch.zeros_like(means)), -1)
    action, log_prob = SquashedGaussian(outputs).sample(torch.zeros_like(means))
    u = means.detach().double()
    # 1 - tanh(u)^2 = 4 / (e^u + e^-u)^2
    exact = -0.5 * math.log(2 * math.pi) - (math.log(4) - 2 * torch.logaddexp(u, -u)).squeeze(-1)
    torch.testing.assert_close(log_prob.detach().double(), exact, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(log_prob.sum(), means)
    torch.testing.assert_close(gradient.double(), 2 * torch.tanh(u), rtol=1e-5, atol=1e-6)
    assert (action.abs() <= 1).all()


def test_before_training_actions_are_uniform_and_then_those_of_the_policy():
    algorithm = make()
    network = algorithm.network()
    generator = torch.Generator().manual_seed(0)
    noise = algorithm.noise(generator, 500, EnvSlice(0, 8, 8)).flatten(0, 1)
    observation = torch.zeros(len(noise), 3)
    action = algorithm.act(network, observation, noise)["action"]
    counts = torch.histc(action, bins=10, min=-1, max=1)
    assert counts.sum() == action.numel()
    assert (counts / action.numel() - 0.1).abs().max() < 0.02
    network.acts_uniformly.data.zero_()
    of_policy = algorithm.act(network, observation, noise)["action"]
    expected, _ = SquashedGaussian(network.policy(observation)).sample(noise)
    assert torch.equal(of_policy, expected)
    state = algorithm.init(0)
    assert isinstance(state.network, PolicyCriticsNetwork)
    assert state.network.acts_uniformly == 1
    algorithm.update(state, random_batch(algorithm, 0))
    assert state.network.acts_uniformly == 0


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (gymnasium.spaces.Discrete(3), "sac needs continuous actions"),
        (gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32), "two bounds"),
    ],
)
def test_other_actions_are_refused(action: gymnasium.Space, message: str):
    with pytest.raises(ConfigError, match=message) as error:
        Sac(SacConfig(), NETWORK, Spaces(SPACES.observation, action))
    assert error.value.where == "env.id"
    assert "ppo or impala" in (error.value.fix or "")
