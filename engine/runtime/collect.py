"""What an actor does: steps environments and writes rollouts.

The loop over steps is the hot path of an actor. It writes every value straight into the outgoing
buffer and can be left and re-entered between any two steps, so that a stop or newer weights are
noticed even where environments are slow.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping

import numpy as np
import torch
from torch import nn

from engine.algorithms.base import Lanes
from engine.clock import Clock
from engine.envs.make import VectorEnvironment, make_vector_env
from engine.roles.commands import AbandonRollout, CollectRollout, Command, LoadWeights, TakeStep
from engine.roles.events import Event, RolloutAbandoned, RolloutCollected, StepWanted
from engine.rollout import Rollout, RolloutInfo
from engine.runtime.blueprint import Blueprint
from engine.runtime.remote_env import RemoteEnv
from engine.runtime.seeds import actor_seeds
from engine.trace.records import Episode
from engine.wire.arena import Arena
from engine.wire.codec import allocate_framed


class ActorBody:
    """Performs an actor's commands.

    Args:
        blueprint: The run.
        index: Number of the actor.
        epoch: Its incarnation; a restarted actor continues with other random numbers.
        clock: The run's timeline.
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
        self._arena = arena
        if arena is not None:
            arena.reclaim(index)
        self._blueprint = blueprint
        self._index = index
        self._epoch = epoch
        self._clock = clock
        self._algorithm = blueprint.algorithm
        self._spec = blueprint.experiment.env
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
        self._lanes = Lanes(index * num_envs, num_envs, blueprint.experiment.actors * num_envs)
        self._lives = np.zeros(num_envs, np.int64)
        self._continues = np.ones(num_envs, bool)
        self._returns = np.zeros(num_envs, np.float64)
        self._lengths = np.zeros(num_envs, np.int64)
        self._done = np.zeros(num_envs, bool)
        self._earned = np.zeros(num_envs, np.float64)
        self._episodes: list[Episode] = []
        self._version = -1
        self._sequence = 0
        self._total_env_steps = 0
        self._num_env_steps = 0
        self._start_s = 0.0
        self._steps: Iterator[Rollout | StepWanted | None] | None = None
        self._awaits_step = False

    def close(self) -> None:
        if self._env is not None:
            self._env.close()

    @property
    def is_busy(self) -> bool:
        return self._steps is not None and not self._awaits_step

    def perform(self, command: Command) -> list[Event]:
        match command:
            case LoadWeights(weights=weights):
                load_parameters(self._network, weights.buffer)
                self._version = weights.version
            case CollectRollout(ticket=ticket):
                self._start_s = self._clock.now_s()
                self._num_env_steps = 0
                self._steps = self._collect(ticket)
            case TakeStep(taken=taken):
                if self._remote is not None and self._remote.take(taken):
                    self._awaits_step = False
            case AbandonRollout():
                return [self._abandon()]
            case _:
                raise RuntimeError(f"an actor cannot perform {type(command).__name__}")
        return []

    def advance(self, budget_s: float) -> list[Event]:
        """Goes on collecting for about `budget_s`, at least one step."""
        assert self._steps is not None
        deadline_s = time.monotonic() + budget_s
        with torch.inference_mode():
            for item in self._steps:
                if isinstance(item, StepWanted):
                    self._awaits_step = True
                    return [item]
                if item is not None:
                    self._steps = None
                    episodes, self._episodes = tuple(self._episodes), []
                    return [RolloutCollected(item, episodes)]
                if time.monotonic() >= deadline_s:
                    break
        return []

    def _abandon(self) -> RolloutAbandoned:
        num_env_steps = self._num_env_steps if self._steps is not None else 0
        self._steps = None
        episodes, self._episodes = tuple(self._episodes), []
        return RolloutAbandoned(num_env_steps, self._clock.now_s() - self._start_s, episodes)

    def _collect(self, ticket: int) -> Generator[Rollout | StepWanted | None, None, None]:
        """Collects one rollout; yields None after each step and the rollout at the end.

        Where the environments are remote it also yields each step that it wants them to take.
        """
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
            self._episodes.append(
                Episode(
                    t_s=now_s,
                    actor=self._index,
                    episode_return=float(self._returns[env]),
                    length_env_steps=int(self._lengths[env]),
                    version=self._version,
                )
            )
        self._returns[done] = 0.0
        self._lengths[done] = 0

    def _describe(self, ticket: int) -> RolloutInfo:
        self._total_env_steps += self._num_env_steps
        info = RolloutInfo(
            actor=self._index,
            epoch=self._epoch,
            sequence=self._sequence,
            ticket=ticket,
            version_min=self._version,
            version_max=self._version,
            num_env_steps=self._num_env_steps,
            total_env_steps=self._total_env_steps,
            start_s=self._start_s,
            end_s=self._clock.now_s(),
        )
        self._sequence += 1
        return info


def load_parameters(network: nn.Module, buffer: np.ndarray) -> None:
    """Overwrites all parameters with the flat vector of a learner's network, [P] float32."""
    flat, position = buffer.view(np.float32), 0
    for parameter in network.parameters():
        span = slice(position, position + parameter.numel())
        parameter.data.numpy()[...] = flat[span].reshape(parameter.shape)
        position = span.stop
