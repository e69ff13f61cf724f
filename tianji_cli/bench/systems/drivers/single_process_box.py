"""What the plain loops of SAC and TD3 share: actions in a Box, a replay store, twin critics."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from single_process_replay import Replay
from single_process_run import make_envs
from torch import Tensor, nn
from torch_nets import ACTIVATIONS


def layers(network: dict[str, Any], num_in: int, num_out: int) -> nn.Sequential:
    """The task's hidden layers and an output, with PyTorch's own initial weights."""
    parts: list[nn.Module] = []
    for size in network["hidden_sizes"]:
        parts += [nn.Linear(num_in, size), ACTIVATIONS[network["activation"]]()]
        num_in = size
    return nn.Sequential(*parts, nn.Linear(num_in, num_out))


class Critics(nn.Module):
    """Two action values of one state and action."""

    def __init__(self, network: dict[str, Any], num_in: int) -> None:
        super().__init__()
        self.first, self.second = layers(network, num_in, 1), layers(network, num_in, 1)

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([observation, action], -1)
        return self.first(both).squeeze(-1), self.second(both).squeeze(-1)


class BoxLoop:
    """A trainer without a policy.

    Args:
        task: The resolved task of `job.json`.
        seed: Of networks, actions, samples and environments.
    """

    def __init__(self, task: dict[str, Any], seed: int) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed)
        self.hp = task["algorithm"]
        self.envs = make_envs(task, AutoresetMode.SAME_STEP)
        space, action = self.envs.single_observation_space, self.envs.single_action_space
        assert isinstance(action, gymnasium.spaces.Box)
        assert space.shape is not None
        self.num_inputs, self.num_actions = int(np.prod(space.shape)), int(np.prod(action.shape))
        self.low, self.high = action.low, action.high
        self.critics = Critics(task["network"], self.num_inputs + self.num_actions)
        self.target_critics = copy.deepcopy(self.critics)
        self.critic_optimizer = self.adam(self.critics)
        float32 = np.dtype(np.float32)
        self.replay = Replay(
            self.hp["replay_capacity"], (self.num_inputs,), float32, (self.num_actions,), float32
        )
        self.observation = self.envs.reset(seed=seed)[0]
        self.num_steps = self.num_samples = self.num_updates = 0

    def adam(self, module: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(module.parameters(), lr=self.hp["learning_rate"])

    def advance(self) -> None:
        """One step of every environment, and the optimiser steps that are due."""
        self.step()
        due = (self.num_steps - self.hp["min_replay_size"]) * self.hp["replay_ratio"]
        while self.num_samples + self.hp["batch_size"] <= due:
            self.learn(*self.replay.sample(self.hp["batch_size"]))
            self.num_updates += 1
            self.num_samples += self.hp["batch_size"]

    def act(self, observation: Tensor) -> Tensor:
        """Actions in -1 to 1, exploration included."""
        raise NotImplementedError

    def learn(self, *batch: Tensor) -> None:
        """One optimiser step from samples in the order of the replay store."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self) -> None:
        count = self.envs.num_envs
        if self.num_steps < self.hp["min_replay_size"]:
            action = np.random.uniform(-1, 1, (count, self.num_actions)).astype(np.float32)
        else:
            action = self.act(torch.as_tensor(self.observation, dtype=torch.float32)).numpy()
        scaled = self.low + (action + 1) / 2 * (self.high - self.low)
        after, reward, terminated, truncated, info = self.envs.step(scaled)
        for i in range(count):
            is_over = terminated[i] or truncated[i]
            following = info["final_obs"][i] if is_over else after[i]
            self.replay.add(self.observation[i], action[i], reward[i], following, terminated[i])
        self.observation = after
        self.num_steps += count

    def update_critics(self, observation: Tensor, action: Tensor, goal: Tensor) -> None:
        """One step of both towards the same goal."""
        first, second = self.critics(observation, action)
        loss = (first - goal).square().mean() + (second - goal).square().mean()
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()

    @torch.no_grad()
    def follow(self, target: nn.Module, module: nn.Module) -> None:
        """Moves a target network a little."""
        rate = self.hp["target_update_rate"]
        for slow, fast in zip(target.parameters(), module.parameters(), strict=True):
            slow.lerp_(fast, rate)
