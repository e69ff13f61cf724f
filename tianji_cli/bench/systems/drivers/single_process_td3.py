"""TD3 in one process, as a person would write it first: step, store, learn. No TianJi inside.

python single_process_td3.py job.json
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from single_process_box import BoxLoop, layers
from single_process_run import run
from torch import Tensor, nn


class Loop(BoxLoop):  # type: ignore[misc]
    """The whole trainer; see `BoxLoop`."""

    def __init__(self, task: dict[str, Any], seed: int) -> None:
        super().__init__(task, seed)
        inner = layers(task["network"], self.num_inputs, self.num_actions)
        self.policy = nn.Sequential(inner, nn.Tanh())
        self.target_policy = copy.deepcopy(self.policy)
        self.policy_optimizer = self.adam(self.policy)

    def act(self, observation: Tensor) -> Tensor:
        action: Tensor = self.policy(observation)
        noise = self.hp["exploration_noise"] * torch.randn_like(action)
        noisy: Tensor = (action + noise).clamp(-1, 1)
        return noisy

    def learn(self, *batch: Tensor) -> None:
        self.learn_values(*batch)
        if (self.num_updates + 1) % self.hp["policy_delay"] == 0:
            self.learn_policy(batch[0])

    def learn_values(self, *batch: Tensor) -> None:
        observation, action, reward, following, is_terminated = batch
        limit = self.hp["policy_noise_limit"]
        with torch.no_grad():
            noise = (self.hp["policy_noise"] * torch.randn_like(action)).clamp(-limit, limit)
            next_action = (self.target_policy(following) + noise).clamp(-1, 1)
            next_value = torch.minimum(*self.target_critics(following, next_action))
            goal = reward + self.hp["discount"] * (1 - is_terminated) * next_value
        self.update_critics(observation, action, goal)

    def learn_policy(self, observation: Tensor) -> None:
        loss = -self.critics(observation, self.policy(observation))[0].mean()
        self.policy_optimizer.zero_grad()
        loss.backward()
        self.policy_optimizer.step()
        self.follow(self.target_critics, self.critics)
        self.follow(self.target_policy, self.policy)


if __name__ == "__main__":
    run(Loop)
