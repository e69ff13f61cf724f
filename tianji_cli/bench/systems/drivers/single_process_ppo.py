"""PPO in one process, as a person would write it first: collect, update, repeat. No TianJi inside.

python single_process_ppo.py job.json
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from single_process_run import make_envs, run
from torch import Tensor, nn
from torch_nets import is_shared, linear, trunk


class Network(nn.Module):
    """A policy and a value, from two trunks or a shared one."""

    def __init__(self, network: dict[str, Any], shape: tuple[int, ...], num_actions: int) -> None:
        super().__init__()
        self.trunk, num_features = trunk(network, shape)
        self.policy = linear(num_features, num_actions, 0.01)
        self.value_trunk = None if is_shared(network) else trunk(network, shape)[0]
        self.value = linear(num_features, 1, 1.0)

    def forward(self, observation: Tensor) -> tuple[torch.distributions.Categorical, Tensor]:
        """pi(. | s) and v(s)."""
        features = self.trunk(observation)
        apart = features if self.value_trunk is None else self.value_trunk(observation)
        pi = torch.distributions.Categorical(logits=self.policy(features))
        return pi, self.value(apart).squeeze(-1)


class Loop:
    """The whole trainer.

    Args:
        task: The resolved task of `job.json`.
        seed: Of network, actions and environments.
    """

    def __init__(self, task: dict[str, Any], seed: int) -> None:
        torch.manual_seed(seed)
        self.hp, self.steps = task["algorithm"], task["rollout_steps"]
        self.envs = make_envs(task, AutoresetMode.SAME_STEP)
        assert isinstance(self.envs.single_action_space, gymnasium.spaces.Discrete)
        shape = self.envs.single_observation_space.shape or ()
        self.network = Network(task["network"], shape, int(self.envs.single_action_space.n))
        parameters = self.network.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=self.hp["learning_rate"], eps=1e-5)
        self.observation = torch.as_tensor(self.envs.reset(seed=seed)[0])
        self.num_steps = self.num_samples = self.num_updates = 0

    def advance(self) -> None:
        """One batch and all epochs over it."""
        batch = self.collect()
        self.num_samples += self.update(batch)
        self.num_steps += batch["action"].numel()

    @torch.no_grad()
    def collect(self) -> dict[str, Tensor]:
        """One batch, [T, B] each; at a truncation the value of the last state joins the reward."""
        rows: list[tuple[Tensor, ...]] = []
        for _ in range(self.steps):
            action, log_prob, value = self.choose(self.observation)
            after, rewards, terminated, truncated, info = self.envs.step(action.numpy())
            reward = torch.as_tensor(rewards, dtype=torch.float32)
            for index in np.flatnonzero(truncated & ~terminated):
                last = torch.as_tensor(info["final_obs"][index]).unsqueeze(0)
                reward[index] += self.hp["discount"] * self.network(last)[1].item()
            is_over = torch.as_tensor(terminated | truncated).float()
            rows.append((self.observation, action, log_prob, value, reward, is_over))
            self.observation = torch.as_tensor(after)
        names = ("observation", "action", "log_prob", "value", "reward", "is_over")
        batch = {
            name: torch.stack(column)
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        }
        following = self.network(self.observation)[1]
        batch["advantage"] = self.advantages(
            batch["reward"], batch["value"], batch["is_over"], following
        )
        batch["target"] = batch["advantage"] + batch["value"]
        return batch

    def choose(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actions, their log-probabilities, and values, [B] each."""
        pi, value = self.network(observation)
        action = pi.sample()
        return action, pi.log_prob(action), value

    def advantages(
        self, reward: Tensor, value: Tensor, is_over: Tensor, following: Tensor
    ) -> Tensor:
        """Generalised advantage estimation: [T, B] each, and `following` [B] after them."""
        advantage = torch.zeros(len(following))
        advantages = []
        for t in reversed(range(self.steps)):
            alive = 1.0 - is_over[t]
            delta = reward[t] + self.hp["discount"] * following * alive - value[t]
            advantage = delta + self.hp["discount"] * self.hp["gae_lambda"] * alive * advantage
            advantages.append(advantage)
            following = value[t]
        return torch.stack(advantages[::-1])

    def update(self, batch: dict[str, Tensor]) -> int:
        """All epochs over one batch; returns the number of samples trained."""
        flat = {name: values.flatten(0, 1) for name, values in batch.items()}
        num_samples, size = flat["action"].shape[0], self.hp["minibatch_steps"]
        for _ in range(self.hp["num_epochs"]):
            for indices in torch.randperm(num_samples).split(size):
                self.learn({name: values[indices] for name, values in flat.items()})
                self.num_updates += 1
        return int(num_samples) * int(self.hp["num_epochs"])

    def learn(self, minibatch: dict[str, Tensor]) -> None:
        """One optimiser step."""
        loss = self.loss(minibatch)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.hp["max_gradient_norm"])
        self.optimizer.step()

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """PPO's clipped surrogate, value loss and entropy bonus."""
        pi, value = self.network(batch["observation"])
        ratio = (pi.log_prob(batch["action"]) - batch["log_prob"]).exp()
        advantage = batch["advantage"]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clip = self.hp["clip_range"]
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        value_loss = (value - batch["target"]).square()
        loss: Tensor = (
            -surrogate.mean()
            + self.hp["value_coefficient"] * value_loss.mean()
            - self.hp["entropy_coefficient"] * pi.entropy().mean()
        )
        return loss


if __name__ == "__main__":
    run(Loop)
