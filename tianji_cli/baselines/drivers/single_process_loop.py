"""PPO in one process, as a person would write it first: collect, update, repeat. No TianJi inside.

    python single_process_loop.py job.json

It runs until it is asked to stop (SIGINT or SIGTERM).
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from counted_env import make_counted
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from recorder import recorder_of_process
from torch import Tensor, nn


def mlp(sizes: list[int], activation: type[nn.Module], last_gain: float) -> nn.Sequential:
    """Linear layers with orthogonal weights; `last_gain` scales the output layer."""
    layers: list[nn.Module] = []
    for index, (num_in, num_out) in enumerate(itertools.pairwise(sizes)):
        is_last = index == len(sizes) - 2
        linear = nn.Linear(num_in, num_out)
        nn.init.orthogonal_(linear.weight, last_gain if is_last else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear] if is_last else [linear, activation()]
    return nn.Sequential(*layers)


class Loop:
    """The whole trainer.

    Args:
        task: The resolved task of `job.json`.
        seed: Of network, actions and environments.
    """

    def __init__(self, task: dict[str, Any], seed: int) -> None:
        torch.manual_seed(seed)
        self.hp, self.steps = task["algorithm"], task["rollout_steps"]
        self.num_envs = task["workers"] * task["envs_per_worker"]
        env_id = task["env"]["id"]
        self.envs = SyncVectorEnv(
            [lambda: make_counted(env_id) for _ in range(self.num_envs)],
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        assert isinstance(self.envs.single_action_space, gymnasium.spaces.Discrete)
        num_inputs = int(np.prod(self.envs.single_observation_space.shape or ()))
        hidden = list(task["network"]["hidden_sizes"])
        activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[task["network"]["activation"]]
        num_actions = int(self.envs.single_action_space.n)
        self.policy = mlp([num_inputs, *hidden, num_actions], activation, 0.01)
        self.value = mlp([num_inputs, *hidden, 1], activation, 1.0)
        self.parameters = [*self.policy.parameters(), *self.value.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.hp["learning_rate"], eps=1e-5)
        self.observation = torch.as_tensor(self.envs.reset(seed=seed)[0])
        self.num_updates = 0

    @torch.no_grad()
    def collect(self) -> dict[str, Tensor]:
        """One batch, [T, B] each; at a truncation the value of the last state joins the reward."""
        rows: list[tuple[Tensor, ...]] = []
        for _ in range(self.steps):
            pi = torch.distributions.Categorical(logits=self.policy(self.observation))
            action = pi.sample()
            after, rewards, terminated, truncated, info = self.envs.step(action.numpy())
            reward = torch.as_tensor(rewards, dtype=torch.float32)
            for index in np.flatnonzero(truncated & ~terminated):
                last = torch.as_tensor(info["final_obs"][index])
                reward[index] += self.hp["discount"] * self.value(last).item()
            is_over = torch.as_tensor(terminated | truncated).float()
            value = self.value(self.observation).squeeze(-1)
            log_prob = pi.log_prob(action)
            rows.append((self.observation, action, log_prob, value, reward, is_over))
            self.observation = torch.as_tensor(after)
        names = ("observation", "action", "log_prob", "value", "reward", "is_over")
        batch = {
            name: torch.stack(column)
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        }
        batch["advantage"] = self.advantages(batch)
        batch["target"] = batch["advantage"] + batch["value"]
        return batch

    def advantages(self, batch: dict[str, Tensor]) -> Tensor:
        """Generalised advantage estimation, [T, B]."""
        following = self.value(self.observation).squeeze(-1)
        advantage = torch.zeros(self.num_envs)
        advantages = torch.zeros_like(batch["reward"])
        for t in reversed(range(self.steps)):
            alive = 1.0 - batch["is_over"][t]
            delta = batch["reward"][t] + self.hp["discount"] * following * alive - batch["value"][t]
            advantage = delta + self.hp["discount"] * self.hp["gae_lambda"] * alive * advantage
            advantages[t], following = advantage, batch["value"][t]
        return advantages

    def update(self, batch: dict[str, Tensor]) -> int:
        """All epochs over one batch; returns the number of samples trained."""
        flat = {name: values.flatten(0, 1) for name, values in batch.items()}
        num_samples, size = flat["action"].shape[0], self.hp["minibatch_steps"]
        for _ in range(self.hp["num_epochs"]):
            for indices in torch.randperm(num_samples).split(size):
                loss = self.loss({name: values[indices] for name, values in flat.items()})
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters, self.hp["max_gradient_norm"])
                self.optimizer.step()
                self.num_updates += 1
        return int(num_samples) * int(self.hp["num_epochs"])

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """PPO's clipped surrogate, value loss and entropy bonus."""
        pi = torch.distributions.Categorical(logits=self.policy(batch["observation"]))
        ratio = (pi.log_prob(batch["action"]) - batch["log_prob"]).exp()
        advantage = batch["advantage"]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clip = self.hp["clip_range"]
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        value_loss = (self.value(batch["observation"]).squeeze(-1) - batch["target"]).square()
        loss: Tensor = (
            -surrogate.mean()
            + self.hp["value_coefficient"] * value_loss.mean()
            - self.hp["entropy_coefficient"] * pi.entropy().mean()
        )
        return loss


def main() -> None:
    """Trains until a signal comes."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    recorder = recorder_of_process()
    torch.set_num_threads(1)
    recorder.phase("imported")
    loop = Loop(job["task"], job["seed"])
    num_steps = num_samples = 0
    while not stopping:
        batch = loop.collect()
        num_samples += loop.update(batch)
        num_steps += batch["action"].numel()
        recorder.trained(num_steps, num_samples, loop.num_updates)
    recorder.phase("stopped")
    recorder.close()


if __name__ == "__main__":
    main()
