"""What an actor does where the whole loop is fused on one device: steps environments of tensors.

Nothing is asked of the device between the steps of a rollout, so it is never waited for; what the
books need is read once, when the rollout is complete.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from engine.algorithms.flat import flatten
from engine.clock import Clock
from engine.envs.torch_envs import make_torch_env
from engine.rollout import Layout, Weights
from engine.runtime.blueprint import Blueprint
from engine.runtime.collecting import CollectingBody, Steps
from engine.runtime.device import DeviceRollout, DeviceWeights, allocate_on
from engine.runtime.seeds import actor_seeds

NO_BUFFER = Layout((), 0, 0).allocate()


class DeviceActorBody(CollectingBody):
    """Collects with environments of tensors; rollouts stay on the device.

    Args:
        blueprint, index, epoch, clock: See `CollectingBody`.
        resumes: How often the run has gone on from a checkpoint.
    """

    # Rollouts go to a learner as they are; it could not differentiate through inference tensors.
    _keeps_no_gradient = torch.no_grad

    def __init__(
        self, blueprint: Blueprint, index: int, epoch: int, clock: Clock, resumes: int = 0
    ) -> None:
        super().__init__(blueprint, index, epoch, clock)
        self._device = blueprint.device_of(index)
        self._network = blueprint.algorithm.network().requires_grad_(False).to(self._device)
        self._parameters = flatten(self._network)
        of_actions, of_env = actor_seeds(blueprint.experiment.seed, index, epoch, resumes)
        self._generator = torch.Generator(device=self._device).manual_seed(of_actions)
        self._env = make_torch_env(self._spec, self._device)
        self._observation = self._env.reset(of_env)
        self._books = _EpisodeBooks(blueprint.layout, self._device)

    def close(self) -> None:
        """Tensors go with the process."""

    def _load(self, weights: Weights) -> None:
        assert isinstance(weights, DeviceWeights), "the learner is on another device"
        self._parameters.load(weights.vector)

    def _collect(self, ticket: int) -> Steps:
        layout, books = self._blueprint.layout, self._books
        tensors = allocate_on(self._device, layout)
        observation = tensors["observation"]
        observation[0] = self._observation
        books.begin()
        for t in range(layout.num_steps):
            chosen = self._algorithm.act(
                self._network, observation[t], self._generator, self._lanes
            )
            for name, values in chosen.items():
                tensors[name][t] = values
            if self._spec.step_latency_ms:
                time.sleep(self._spec.step_latency_ms / 1000)
            observation[t + 1], r_t, terminated, truncated = self._env.step(chosen["action"])
            tensors["reward"][t] = self._learnt_reward(r_t)
            tensors["terminated"][t] = terminated
            tensors["truncated"][t] = truncated
            tensors["valid"][t] = books.enter(r_t, terminated | truncated)
            yield None
        self._observation = observation[-1]
        self._settle()
        yield DeviceRollout(self._describe(ticket), NO_BUFFER, tensors)

    def _learnt_reward(self, reward: Tensor) -> Tensor:
        if self._spec.clip_reward:
            reward = reward.sign()
        return reward if self._spec.reward_scale == 1.0 else reward * self._spec.reward_scale

    def _settle(self) -> None:
        """Reads the books; episodes are dated to now, the device having run ahead of the clock."""
        now_s = self._clock.now_s()
        self._num_env_steps, ended = self._books.read()
        for episode_return, length in ended:
            self._note_episode(now_s, episode_return, length)


class _EpisodeBooks:
    """Returns and lengths of the episodes under way, and of those that ended in a rollout.

    Args:
        layout: Of a rollout.
        device: Where they are kept.
    """

    def __init__(self, layout: Layout, device: torch.device) -> None:
        rows, num_envs = (layout.num_steps, layout.num_envs), layout.num_envs
        self._continues = torch.ones(num_envs, dtype=torch.bool, device=device)
        self._return = torch.zeros(num_envs, dtype=torch.float64, device=device)
        self._length = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._valid = torch.zeros(rows, dtype=torch.bool, device=device)
        self._done = torch.zeros(rows, dtype=torch.bool, device=device)
        self._returns = torch.zeros(rows, dtype=torch.float64, device=device)
        self._lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self._num_rows = 0

    def begin(self) -> None:
        """A rollout begins; the episodes go on."""
        self._num_rows = 0

    def enter(self, reward: Tensor, done: Tensor) -> Tensor:
        """Enters one step of all environments.

        Args:
            reward: As the environment gave it, [B].
            done: Which episodes ended, bool [B].

        Returns:
            Which of them were env steps rather than resets, bool [B].
        """
        valid, t = self._continues, self._num_rows
        self._return = self._return + torch.where(valid, reward, 0.0)
        self._length = self._length + valid
        self._valid[t], self._done[t] = valid, done
        self._returns[t], self._lengths[t] = self._return, self._length
        self._return = torch.where(done, 0.0, self._return)
        self._length = torch.where(done, 0, self._length)
        self._continues = ~done
        self._num_rows = t + 1
        return valid

    def read(self) -> tuple[int, list[tuple[float, int]]]:
        """Env steps since `begin`, and return and length of the episodes that ended, in order."""
        span = slice(self._num_rows)
        done = self._done[span]
        returns, lengths = self._returns[span][done].tolist(), self._lengths[span][done].tolist()
        return int(self._valid[span].sum()), list(zip(returns, lengths, strict=True))
