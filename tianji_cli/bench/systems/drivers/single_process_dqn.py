"""DQN in one process, as a person would write it first: step, store, learn. No TianJi inside.

python single_process_dqn.py job.json
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from single_process_replay import Replay
from single_process_run import make_envs, run
from torch import Tensor, nn
from torch_nets import linear, trunk


class Loop:
    """The whole trainer.

    Args:
        task: The resolved task of `job.json`.
        seed: Of network, actions, samples and environments.
    """

    def __init__(self, task: dict[str, Any], seed: int) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed)
        self.hp = task["algorithm"]
        self.envs = make_envs(task, AutoresetMode.SAME_STEP)
        space, action = self.envs.single_observation_space, self.envs.single_action_space
        assert isinstance(action, gymnasium.spaces.Discrete)
        shape = space.shape or ()
        features, num_features = trunk(task["network"], shape)
        self.num_actions = int(action.n)
        self.q = nn.Sequential(features, linear(num_features, self.num_actions, 1.0))
        self.target = copy.deepcopy(self.q)
        self.optimizer = torch.optim.Adam(self.q.parameters(), lr=self.hp["learning_rate"])
        assert space.dtype is not None
        self.replay = Replay(self.hp["replay_capacity"], shape, space.dtype, (), np.dtype(np.int64))
        self.observation = self.envs.reset(seed=seed)[0]
        self.num_steps = self.num_samples = self.num_updates = 0

    @property
    def epsilon(self) -> float:
        """Falls linearly over the env steps after the first learning."""
        since = max(0, self.num_steps - self.hp["min_replay_size"])
        share = min(1.0, since / self.hp["epsilon_decay_env_steps"])
        first, last = self.hp["epsilon_initial"], self.hp["epsilon_final"]
        return float(first + share * (last - first))

    def advance(self) -> None:
        """One step of every environment, and the optimiser steps that are due."""
        self.step()
        if self.num_steps < self.hp["min_replay_size"]:
            return
        due = (self.num_steps - self.hp["min_replay_size"]) * self.hp["replay_ratio"]
        while self.num_samples + self.hp["batch_size"] <= due:
            self.learn(*self.replay.sample(self.hp["batch_size"]))
            self.num_updates += 1
            self.num_samples += self.hp["batch_size"]
            if self.num_updates % self.hp["target_update_period"] == 0:
                self.target.load_state_dict(self.q.state_dict())

    @torch.no_grad()
    def step(self) -> None:
        """Epsilon-greedy."""
        count = self.envs.num_envs
        action = self.greedy(torch.as_tensor(self.observation)).numpy()
        explores = np.random.random(count) < self.epsilon
        action = np.where(explores, np.random.randint(0, self.num_actions, count), action)
        after, reward, terminated, truncated, info = self.envs.step(action)
        for i in range(count):
            is_over = terminated[i] or truncated[i]
            following = info["final_obs"][i] if is_over else after[i]
            self.replay.add(self.observation[i], action[i], reward[i], following, terminated[i])
        self.observation = after
        self.num_steps += count

    def greedy(self, observation: Tensor) -> Tensor:
        """The actions of the largest values."""
        best: Tensor = self.q(observation).argmax(-1)
        return best

    def learn(self, *batch: Tensor) -> None:
        """One optimiser step of double DQN, from samples in the order of the replay store."""
        observation, action, reward, following, is_terminated = batch
        with torch.no_grad():
            best = self.q(following).argmax(-1, keepdim=True)
            next_q = self.target(following).gather(-1, best).squeeze(-1)
            goal = reward + self.hp["discount"] * (1 - is_terminated) * next_q
        taken = self.q(observation).gather(-1, action.unsqueeze(-1)).squeeze(-1)
        loss = nn.functional.smooth_l1_loss(taken, goal)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.q.parameters(), self.hp["max_gradient_norm"])
        self.optimizer.step()


if __name__ == "__main__":
    run(Loop)
