"""TD3 and DDPG against an implementation of their equations in float64, written from the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.algorithms.base import EnvSlice
from engine.algorithms.td3 import DdpgConfig, Td3, Td3Config
from engine.errors import ConfigError
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
SIZES = {"batch_size": 16, "updates_per_batch": 4, "learning_rate": 1e-2}
CONFIGS = {
    "td3": Td3Config(**SIZES, policy_noise=0.6, policy_noise_limit=0.5),  # type: ignore[arg-type]
    "ddpg": DdpgConfig(**SIZES),  # type: ignore[arg-type]
}


def reference(
    config: Td3Config, parameters: Parameters, target: Parameters, samples: list[Parameters]
) -> list[tuple[float, ...]]:
    """Algorithm 1 of Fujimoto et al. (2018), in place; returns the losses of each iteration."""
    adam, losses = Adam64(config.learning_rate), []
    for t, sample in enumerate(samples, start=1):
        with torch.no_grad():
            noise = config.policy_noise * sample["noise"][:, 0]
            noise = noise.clip(-config.policy_noise_limit, config.policy_noise_limit)
            action = torch.tanh(policy64(target, sample["next_observation"])) + noise
            q = critics64(target, sample["next_observation"], action.clip(-1, 1))
            least = torch.stack(q).min(0).values
            y = sample["reward"] + sample["discount"] * least
        q = critics64(parameters, sample["observation"], sample["action"])
        critic_loss = torch.stack([((y - one) ** 2).mean() for one in q]).sum()
        adam.step(critic_loss, parameters, "critics")
        losses.append((critic_loss.detach().item(), torch.stack(q).mean().item()))
        if t % config.policy_delay == 0:
            action = torch.tanh(policy64(parameters, sample["observation"]))
            policy_loss = -critics64(parameters, sample["observation"], action)[0].mean()
            adam.step(policy_loss, parameters, "policy")
            losses.append((policy_loss.item(),))
            for name in target:
                target[name] += 0.005 * (parameters[name].detach() - target[name])
    return losses


@pytest.mark.parametrize("taker", [None, FunctionalTaker()], ids=["eager", "functional"])
@pytest.mark.parametrize("name", CONFIGS)
def test_steps_are_those_of_the_paper(name: str, taker: FunctionalTaker | None):
    config = CONFIGS[name]
    algorithm = Td3(config, NETWORK, SPACES)
    state = algorithm.init(0)
    if taker is not None:
        state.steps = taker
    parameters, target = of_state(state)
    batch = random_batch(algorithm, 1)
    drawn = torch.Generator()
    drawn.set_state(state.generator.get_state())
    noise = torch.randn(4, 16, 2, 2, generator=drawn)
    assert ((0.6 * noise[:, :, 0]).abs() > 0.5).any(), "some of it is clipped"
    samples = [
        {**named64({n: v[number] for n, v in batch.items()}), "noise": noise[number].double()}
        for number in range(4)
    ]
    losses = reference(config, parameters, target, samples)
    result = algorithm.update(state, batch)
    of_critics = np.mean([row for row in losses if len(row) == 2], 0)
    of_policy = np.mean([row for row in losses if len(row) == 1])
    assert list(result.metrics.values()) == pytest.approx([*of_critics, of_policy], rel=2e-5)
    found, followed = of_state(state)
    for key, values in parameters.items():
        torch.testing.assert_close(found[key], values, atol=2e-5, rtol=0, msg=key)
    for key, values in target.items():
        torch.testing.assert_close(followed[key], values, atol=1e-6, rtol=0, msg=key)
    assert state.num_updates == 4
    assert state.optimizer.num_steps == 4 // config.policy_delay


def test_actions_have_noise_within_their_bounds_and_greedy_ones_have_none():
    algorithm = Td3(Td3Config(exploration_noise=0.5), NETWORK, SPACES)
    network = algorithm.network()
    network.acts_uniformly.data.zero_()
    noise = algorithm.noise(torch.Generator().manual_seed(0), 100, EnvSlice(0, 4, 4)).flatten(0, 1)
    observation = torch.randn(len(noise), 3)
    with torch.no_grad():
        greedy = algorithm.act_greedily(network, observation)
        action = algorithm.act(network, observation, noise)["action"]
    assert torch.equal(action, (greedy + 0.5 * noise).clamp(-1, 1))
    assert (action.abs() == 1).any()


def test_a_message_is_whole_updates_of_the_policy():
    with pytest.raises(ConfigError, match="no multiple of policy_delay 3") as error:
        Td3(Td3Config(updates_per_batch=16, policy_delay=3), NETWORK, SPACES)
    assert error.value.fix == "try 18"
