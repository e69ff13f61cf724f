"""PPO in one process, as a person would write it first: collect, update, repeat. No TianJi inside.

python single_process_ppo.py job.json
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from single_process_run import make_envs, run
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal
from torch_nets import is_shared, linear, trunk


class Network(nn.Module):
    """A policy and a value, from two trunks or a shared one.

    Actions of a Box come from a Gaussian whose deviation is the same in all states.
    """

    def __init__(
        self, network: dict[str, Any], shape: tuple[int, ...], actions: gymnasium.Space[Any]
    ) -> None:
        super().__init__()
        self.log_std = None
        if isinstance(actions, gymnasium.spaces.Box):
            size = int(np.prod(actions.shape))
            self.log_std = nn.Parameter(torch.zeros(size))
        else:
            assert isinstance(actions, gymnasium.spaces.Discrete)
            size = int(actions.n)
        self.trunk, num_features = trunk(network, shape)
        self.policy = linear(num_features, size, 0.01)
        self.value_trunk = None if is_shared(network) else trunk(network, shape)[0]
        self.value = linear(num_features, 1, 1.0)

    def forward(self, observation: Tensor) -> tuple[Distribution, Tensor]:
        """pi(. | s) and v(s)."""
        features = self.trunk(observation)
        apart = features if self.value_trunk is None else self.value_trunk(observation)
        head = self.policy(features)
        pi: Distribution = (
            Categorical(logits=head)
            if self.log_std is None
            else Independent(Normal(head, self.log_std.exp()), 1)
        )
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
        self.actions = self.envs.single_action_space
        shape = self.envs.single_observation_space.shape or ()
        self.network = Network(task["network"], shape, self.actions)
        parameters = self.network.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=self.hp["learning_rate"], eps=1e-5)
        self.observation = observed(self.envs.reset(seed=seed)[0])
        self.num_steps = self.num_samples = self.num_updates = 0

    def advance(self) -> None:
        """One batch and all epochs over it."""
        batch = self.collect()
        self.num_samples += self.update(batch)
        self.num_steps += batch["reward"].numel()

    @torch.no_grad()
    def collect(self) -> dict[str, Tensor]:
        """One batch, [T, B] each; at a truncation the value of the last state joins the reward."""
        rows: list[tuple[Tensor, ...]] = []
        for _ in range(self.steps):
            action, log_prob, value = self.choose(self.observation)
            done = self.envs.step(self.within_bounds(action.numpy()))
            after, rewards, terminated, truncated, info = done
            reward = torch.as_tensor(rewards, dtype=torch.float32)
            for index in np.flatnonzero(truncated & ~terminated):
                last = observed(info["final_obs"][index]).unsqueeze(0)
                reward[index] += self.hp["discount"] * self.network(last)[1].item()
            is_over = torch.as_tensor(terminated | truncated).float()
            rows.append((self.observation, action, log_prob, value, reward, is_over))
            self.observation = observed(after)
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

    def within_bounds(self, action: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Actions as the environments take them: those of a Box clipped to its bounds."""
        if not isinstance(self.actions, gymnasium.spaces.Box):
            return action
        shaped = action.reshape(-1, *self.actions.shape)
        clipped: npt.NDArray[Any] = np.clip(shaped, self.actions.low, self.actions.high)
        return clipped

    def choose(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actions, [B] or [B, D] of a Box, their log-probabilities [B], and values [B]."""
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


def observed(observation: npt.NDArray[Any]) -> Tensor:
    """As the network takes it; numbers in double precision in single."""
    tensor = torch.as_tensor(observation)
    return tensor.float() if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    run(Loop)
