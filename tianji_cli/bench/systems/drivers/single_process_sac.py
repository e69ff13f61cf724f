"""SAC in one process, as a person would write it first: step, store, learn. No TianJi inside.

python single_process_sac.py job.json
"""

from __future__ import annotations

from typing import Any

import torch
from single_process_box import BoxLoop, layers
from single_process_run import run
from torch import Tensor, nn

LOG_STD = (-20.0, 2.0)


class Loop(BoxLoop):  # type: ignore[misc]
    """The whole trainer; see `BoxLoop`."""

    def __init__(self, task: dict[str, Any], seed: int) -> None:
        super().__init__(task, seed)
        self.policy = layers(task["network"], self.num_inputs, 2 * self.num_actions)
        self.policy_optimizer = self.adam(self.policy)
        self.log_alpha = torch.zeros(1, requires_grad=True)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=self.hp["learning_rate"])

    def sample(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Actions in -1 to 1 and their log-probabilities."""
        mean, log_std = self.policy(observation).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(*LOG_STD).exp())
        raw = normal.rsample()
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))
        change = 2 * (0.6931471805599453 - raw - nn.functional.softplus(-2 * raw))
        return raw.tanh(), (normal.log_prob(raw) - change).sum(-1)

    def act(self, observation: Tensor) -> Tensor:
        return self.sample(observation)[0]

    def learn(self, *batch: Tensor) -> None:
        observation, action, reward, following, is_terminated = batch
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            next_action, next_log_prob = self.sample(following)
            next_value = torch.minimum(*self.target_critics(following, next_action))
            next_value -= alpha * next_log_prob
            goal = reward + self.hp["discount"] * (1 - is_terminated) * next_value
        self.update_critics(observation, action, goal)
        sampled, log_prob = self.sample(observation)
        loss = (alpha * log_prob - torch.minimum(*self.critics(observation, sampled))).mean()
        self.policy_optimizer.zero_grad()
        loss.backward()
        self.policy_optimizer.step()
        excess = log_prob.detach().mean() - self.num_actions  # over the target entropy's negative
        self.alpha_optimizer.zero_grad()
        (-self.log_alpha * excess).backward()
        self.alpha_optimizer.step()
        self.follow(self.target_critics, self.critics)


if __name__ == "__main__":
    run(Loop)
