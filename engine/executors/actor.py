"""What an actor does: steps environments and writes rollouts.

The loop over steps is the hot path of an actor. It writes every value directly into the outgoing
buffer; anything that can be done once per rollout is done elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from engine.blueprint import Blueprint
from engine.clock import Clock
from engine.compilation.carried_inference import CarriedInference
from engine.compilation.compile_job import CompileJob
from engine.compilation.policy_inference import Choice, PolicyInference, as_tensors
from engine.devices.interface import Device
from engine.errors import RunFailedError
from engine.executors.actor_base import BaseActorExecutor, Steps
from engine.executors.env_split import EnvSplit, RemoteSplit, make_local_splits
from engine.executors.memory import Memory
from engine.executors.remote_env import RemoteEnv
from engine.layers.inputs import STATE
from engine.messages import StepTaken
from engine.roles.events import StepWanted
from engine.rollout import Rollout, Weights
from engine.spaces.team import REWARD_FIELD
from engine.timing import OFF, Sections
from engine.wire.arena import Arena
from engine.wire.frames import allocate_framed


class ActorExecutor(BaseActorExecutor):
    """Collects with NumPy environments, its own or remote ones.

    Args:
        blueprint, index, epoch, clock, resumes, sections: See `BaseActorExecutor`.
        arena: Memory shared with the other roles of this host, if there is any.
        compiles: Whether to switch to compiled acting once it is available; on a device, to a
            graph of it.
        device: Where actions are chosen; by default on the processor, without any copy.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        index: int,
        epoch: int,
        clock: Clock,
        arena: Arena | None = None,
        resumes: int = 0,
        *,
        compiles: bool = False,
        device: Device | None = None,
        sections: Sections = OFF,
    ) -> None:
        make = None if device is None else partial(CarriedInference, device, captures=compiles)
        super().__init__(
            blueprint,
            index,
            epoch,
            clock,
            resumes=resumes,
            sections=sections,
            acts_on=None if device is None else device.place,
            make_inference=make or PolicyInference,
        )
        self._arena = arena
        if arena is not None:
            arena.reclaim(index)
        self._remote: RemoteEnv | None = None
        self._splits: Sequence[EnvSplit]
        self._first: dict[str, np.ndarray] = {}
        """What the next rollout begins with, by field; empty before the first of a remote one."""
        layout = blueprint.layout
        if blueprint.cut.has_remote_env:
            self._remote = RemoteEnv(layout, blueprint.observed)
            everything = slice(layout.num_envs)
            self._splits = [RemoteSplit(everything, blueprint.observed, self._remote)]
        else:
            self._splits = parts = make_local_splits(blueprint, self._env_seed, sections)
            self._first = {
                name: np.concatenate([part.first[name] for part in parts])
                for name in blueprint.observed
            }
        self._columns = [part.columns for part in self._splits]
        self._compile_job = CompileJob(blueprint, "act") if compiles and device is None else None
        if self._compile_job is not None and self._compile_job.outcome:
            self._compile_job.tell(self._inference.use)
        self._views: dict[str, np.ndarray] = {}
        self._earned = np.zeros((layout.num_steps, layout.num_envs), np.float64)
        self._lives = np.zeros((layout.num_steps + 1, layout.num_envs), np.int64)
        self._memory = Memory(layout) if layout.has(STATE) else None

    def close(self) -> None:
        for part in self._splits:
            part.close()
        if self._compile_job is not None:
            self._compile_job.close()

    def _load(self, weights: Weights) -> None:
        self._inference.load(weights.buffer.view(np.float32))

    def _take(self, taken: StepTaken) -> bool:
        return self._remote is not None and self._remote.take(taken)

    def _collect(self, ticket: int) -> Steps:
        yield from self._look_for(self._compile_job, self._inference.use)
        buffer = self._allocate(self._blueprint.layout.num_bytes)
        views = self._views = self._blueprint.layout.views(buffer)
        if not self._first:
            self._first = yield from self._require_remote().reset()
        for name, values in self._first.items():
            views[name][0] = values
        lives = self._lives if self._spec.life_loss_terminates else None
        for part in self._splits:
            part.bind(views, self._earned, lives)
        tensors = as_tensors(views)
        if self._memory is not None:
            tensors[STATE] = self._memory.begin()
        rows = self._rows(tensors, self._columns)
        yield from self._take_steps(rows)
        if self._memory is not None:
            self._memory.store(views[STATE])
        entries = self._enter_books()
        views["valid"][...] = entries.valid
        views["reward"][...] = self._learnt_reward(self._earned)
        if self._blueprint.spaces.team is not None:
            of_agents = views[REWARD_FIELD][1:]  # the row before them is the last of a rollout
            of_agents[...] = self._learnt_reward(of_agents)
        self._first = {name: views[name][-1].copy() for name in self._first}
        if self._spec.life_loss_terminates:
            terminated = views["terminated"]
            np.logical_or(terminated, self._lost_life(views["valid"]), out=terminated)
        yield Rollout(self._describe(ticket, entries.num_env_steps), buffer)

    def _take_steps(self, rows: Sequence[Sequence[Choice]]) -> Iterator[StepWanted | None]:
        """All steps of a rollout; while one split acts, all others can be stepping.

        Args:
            rows: For each part, [T].
        """
        parts, choose, under_way = self._splits, self._choose, deque[EnvSplit]()
        num_ahead = len(parts) - 1
        for t, row_of_parts in enumerate(zip(*rows, strict=True)):
            for part, row in zip(parts, row_of_parts, strict=True):
                choose(row)
                part.begin(t)
                under_way.append(part)
                if len(under_way) > num_ahead:
                    yield from self._finish(under_way.popleft())
            yield None
        for part in under_way:
            yield from self._finish(part)

    def _finish(self, part: EnvSplit) -> Iterator[StepWanted]:
        wanted = part.finish()
        if wanted is not None:
            yield from wanted
        if self._memory is not None:
            self._memory.finish(part)
        if part is self._splits[-1]:
            self._moments_s.append(self._clock.now_s())

    def _outcomes(self, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        views, rows = self._views, slice(num_rows)
        return self._earned[rows], views["terminated"][rows] | views["truncated"][rows]

    def _values(self, name: str) -> np.ndarray:
        return self._views[name]

    def _require_remote(self) -> RemoteEnv:
        assert self._remote is not None
        return self._remote

    def _allocate(self, num_bytes: int) -> np.ndarray:
        """Memory for a rollout, uint8 [num_bytes]: shared if a slot is free, else private."""
        shared = None if self._arena is None else self._arena.take(self._index, self._epoch)
        return allocate_framed(num_bytes) if shared is None else shared

    def _learnt_reward(self, earned: np.ndarray) -> np.ndarray:
        """Rewards as the learner sees them, float32 as given, [T, B, ...]: scaled or clipped."""
        reward = np.sign(earned) if self._spec.clip_reward else earned
        if self._spec.reward_scale == 1.0:
            return reward
        with np.errstate(over="ignore"):
            scaled = np.asarray(reward * self._spec.reward_scale, np.float32)
        if not np.isfinite(scaled).all():
            raise RunFailedError(
                f"a reward of {reward.flat[abs(reward).argmax()]:g} is not finite once it is"
                f" multiplied by {self._spec.reward_scale:g}; nothing is learnt from it",
                where="env.reward_scale",
            )
        return scaled

    def _lost_life(self, valid: np.ndarray) -> np.ndarray:
        """Where a life was lost, bool [T, B]; False in a step that only reset."""
        has_lost: np.ndarray = (self._lives[1:] < self._lives[:-1]) & valid
        self._lives[0] = self._lives[-1]
        return has_lost
