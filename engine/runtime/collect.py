"""What an actor does: steps environments and writes rollouts.

The loop over steps is the hot path of an actor. It writes every value straight into the outgoing
buffer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from engine.clock import Clock
from engine.envs.make import VectorEnvironment, make_vector_env
from engine.messages import StepTaken
from engine.rollout import Rollout, Weights
from engine.runtime.blueprint import Blueprint
from engine.runtime.collecting import CollectingBody, Steps
from engine.runtime.remote_env import RemoteEnv
from engine.runtime.seeds import actor_seeds
from engine.wire.arena import Arena
from engine.wire.codec import allocate_framed


class ActorBody(CollectingBody):
    """Collects with environments of NumPy arrays, its own ones or remote ones.

    Args:
        blueprint, index, epoch, clock: See `CollectingBody`.
        arena: Memory shared with the other roles of this host, if there is any.
        resumes: How often the run has gone on from a checkpoint.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        index: int,
        epoch: int,
        clock: Clock,
        arena: Arena | None = None,
        resumes: int = 0,
    ) -> None:
        super().__init__(blueprint, index, epoch, clock)
        self._arena = arena
        if arena is not None:
            arena.reclaim(index)
        self._network = blueprint.algorithm.network().requires_grad_(False)
        of_actions, of_env = actor_seeds(blueprint.experiment.seed, index, epoch, resumes)
        self._generator = torch.Generator().manual_seed(of_actions)
        self._remote: RemoteEnv | None = None
        self._env: VectorEnvironment | None = None
        self._observation: np.ndarray | None = None
        if blueprint.cut.has_remote_env:
            self._remote = RemoteEnv(blueprint.layout)
        else:
            self._env = make_vector_env(blueprint.experiment.env)
            self._observation, _ = self._env.reset(seed=of_env)
        num_envs = blueprint.layout.num_envs
        self._lives = np.zeros(num_envs, np.int64)
        self._continues = np.ones(num_envs, bool)
        self._returns = np.zeros(num_envs, np.float64)
        self._lengths = np.zeros(num_envs, np.int64)
        self._done = np.zeros(num_envs, bool)
        self._earned = np.zeros(num_envs, np.float64)

    def close(self) -> None:
        if self._env is not None:
            self._env.close()

    def _load(self, weights: Weights) -> None:
        load_parameters(self._network, weights.buffer)

    def _settle(self) -> None:
        """The books are up to date after every step."""

    def _take(self, taken: StepTaken) -> bool:
        return self._remote is not None and self._remote.take(taken)

    def _collect(self, ticket: int) -> Steps:
        layout = self._blueprint.layout
        buffer = self._allocate(layout.num_bytes)
        views = layout.views(buffer)
        if self._observation is None:
            self._observation = yield from self._require_remote().reset()
        observation, valid, reward = views["observation"], views["valid"], views["reward"]
        terminated, truncated = views["terminated"], views["truncated"]
        act, network = self._algorithm.act, self._network
        step = None if self._env is None else self._env.step
        observation[0] = self._observation
        o_rows = torch.from_numpy(observation).unbind()
        for t in range(layout.num_steps):
            chosen = act(network, o_rows[t], self._generator, self._lanes)
            for name, values in chosen.items():
                views[name][t] = values.numpy()
            action = chosen["action"].numpy()
            if step is not None:
                result = step(action)
            else:
                result = yield from self._require_remote().step(action)
            observation[t + 1], r_t, terminated_t, truncated_t, info = result
            valid[t] = self._continues
            reward[t] = self._learnt_reward(r_t)
            terminated[t] = terminated_t
            truncated[t] = truncated_t
            if self._spec.life_loss_terminates:
                terminated[t] |= self._lost_life(info)
            self._account(r_t, np.logical_or(terminated_t, truncated_t, out=self._done))
            yield None
        self._observation = observation[-1].copy()
        yield Rollout(self._describe(ticket), buffer)

    def _require_remote(self) -> RemoteEnv:
        assert self._remote is not None
        return self._remote

    def _allocate(self, num_bytes: int) -> np.ndarray:
        """Memory for a rollout: shared if a slot is free, else this process's own."""
        shared = None if self._arena is None else self._arena.take(self._index, self._epoch)
        return allocate_framed(num_bytes) if shared is None else shared

    def _learnt_reward(self, reward: np.ndarray) -> np.ndarray:
        """What the learner sees of the environment's reward."""
        if self._spec.clip_reward:
            reward = np.sign(reward)
        return reward if self._spec.reward_scale == 1.0 else reward * self._spec.reward_scale

    def _lost_life(self, info: Mapping[str, object]) -> np.ndarray:
        """Where a life was lost in this step; nowhere in a step that only reset."""
        lives = np.asarray(info.get("lives", self._lives))
        has_lost = (lives < self._lives) & self._continues
        self._lives = lives.copy()
        return has_lost

    def _account(self, reward: np.ndarray, done: np.ndarray) -> None:
        """Counts env steps and episodes; a step that only reset an environment is neither."""
        self._num_env_steps += int(np.count_nonzero(self._continues))
        np.multiply(reward, self._continues, out=self._earned)
        self._returns += self._earned
        self._lengths += self._continues
        np.logical_not(done, out=self._continues)
        if np.count_nonzero(done):
            self._end_episodes(done)

    def _end_episodes(self, done: np.ndarray) -> None:
        now_s = self._clock.now_s()
        for env in np.flatnonzero(done):
            self._note_episode(now_s, float(self._returns[env]), int(self._lengths[env]))
        self._returns[done] = 0.0
        self._lengths[done] = 0


def load_parameters(network: nn.Module, buffer: np.ndarray) -> None:
    """Overwrites all parameters with the flat vector of a learner's network, [P] float32."""
    flat, position = buffer.view(np.float32), 0
    for parameter in network.parameters():
        span = slice(position, position + parameter.numel())
        parameter.data.numpy()[...] = flat[span].reshape(parameter.shape)
        position = span.stop
