"""The common part of all ways of collecting: an actor's commands and the counts of its rollouts.

Collecting is a generator over steps that can be paused between any two of them, so a stop or newer
weights are noticed even if environments are slow.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from typing import TypeAlias

import msgspec
import numpy as np
import torch
from msgspec import UNSET, UnsetType

from engine.algorithms.base import Algorithm, EnvSlice
from engine.blueprint import Blueprint
from engine.clock import Clock
from engine.compilation.compile_job import CompileJob
from engine.compilation.library import Library
from engine.compilation.policy_inference import PolicyInference
from engine.executors.episode_statistics import Entries, EpisodeStatistics
from engine.executors.team_statistics import TeamEntries, TeamStatistics
from engine.messages import StepTaken
from engine.roles.commands import AbandonRollout, CollectRollout, Command, LoadWeights, TakeStep
from engine.roles.events import Event, Noted, RolloutAbandoned, RolloutCollected, StepWanted
from engine.rollout import Rollout, RolloutInfo, Weights
from engine.seeds import actor_seeds
from engine.spaces.team import PRESENT_FIELD, REWARD_FIELD, TeamReturns
from engine.timing import INFERENCE, OFF, Sections
from engine.trace.records import IRREPRODUCIBLE, Episode

MakeInference: TypeAlias = Callable[[Algorithm, EnvSlice, torch.Generator], PolicyInference]
Steps = Generator[Rollout | StepWanted | Noted | None, None, None]
"""None after each step, a step for remote environments to take, something to record, or finally the
rollout."""

WAIT_FOR_COMPILER_S = 0.05
"""Before messages are looked at again."""


class BaseActorExecutor(ABC):
    """Performs an actor's commands.

    Args:
        blueprint: The run.
        index: Number of the actor.
        epoch: Its incarnation; a restarted actor continues with other random numbers.
        clock: The run's timeline.
        resumes: How often the run was resumed.
        device: Device of rollouts; the CPU by default.
        sections: Where its time is counted.
        acts_on: Where actions are chosen, if not where rollouts are.
        make_inference: What chooses them.
    """

    _keeps_no_gradient: type[torch.inference_mode | torch.no_grad] = torch.inference_mode

    def __init__(
        self,
        blueprint: Blueprint,
        index: int,
        epoch: int,
        clock: Clock,
        *,
        resumes: int = 0,
        device: torch.device | None = None,
        sections: Sections = OFF,
        acts_on: torch.device | None = None,
        make_inference: MakeInference = PolicyInference,
    ) -> None:
        self._blueprint = blueprint
        self._index = index
        self._epoch = epoch
        self._clock = clock
        self._spec = blueprint.env
        layout = blueprint.layout
        env_slice = blueprint.slice_of(index)
        device = torch.device("cpu") if device is None else device
        of_actions, self._env_seed = actor_seeds(blueprint.experiment.seed, index, epoch, resumes)
        generator = torch.Generator(device=acts_on or device).manual_seed(of_actions)
        self._inference = make_inference(blueprint.algorithm, env_slice, generator)
        self._choose = sections.timed(INFERENCE, self._inference.choose)
        self._rows = sections.timed(INFERENCE, self._inference.rows)
        self._version = -1
        self._statistics = EpisodeStatistics(layout.num_envs)
        team = blueprint.spaces.team
        self._team_statistics: TeamStatistics | None = None
        if team is not None and layout.has(REWARD_FIELD) and layout.has(PRESENT_FIELD):
            self._team_statistics = TeamStatistics(team, layout.num_envs)
        self._agent_steps: int | UnsetType = UNSET
        self._moments_s: list[float] = []
        self._episodes: tuple[Episode, ...] = ()
        self._steps: Iterator[Rollout | StepWanted | Noted | None] | None = None
        self._has_told_failure = False
        self._awaits_step = False
        self._sequence = 0
        self._total_env_steps = 0
        self._start_s = 0.0

    @abstractmethod
    def close(self) -> None:
        """Releases the environments."""

    @abstractmethod
    def _load(self, weights: Weights) -> None:
        """Acts with these weights from now on."""

    @abstractmethod
    def _collect(self, ticket: int) -> Steps:
        """Collects one rollout."""

    @abstractmethod
    def _outcomes(self, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The environment's rewards, floats, and episode ends, bool; both [num_rows, B], on the
        host."""

    @abstractmethod
    def _values(self, name: str) -> np.ndarray:
        """A field of the rollout that is being collected, [T, B, ...] or [T + 1, B, ...], on the
        host."""

    def _take(self, taken: StepTaken) -> bool:
        """Accepts the result of a remote step; False if no environment waits for it."""
        return False

    @property
    def is_busy(self) -> bool:
        return self._steps is not None and not self._awaits_step

    def perform(self, command: Command) -> list[Event]:
        match command:
            case LoadWeights(weights=weights):
                self._load(weights)
                self._version = weights.version
            case CollectRollout(ticket=ticket):
                self._start_s = self._clock.now_s()
                self._moments_s = []
                self._steps = self._collect(ticket)
            case TakeStep(taken=taken):
                if self._take(taken):
                    self._awaits_step = False
            case AbandonRollout():
                return [self._abandon()]
            case _:
                raise RuntimeError(f"an actor cannot perform {type(command).__name__}")
        return []

    def advance(self, budget_s: float) -> list[Event]:
        """Collects for about `budget_s`, at least one step."""
        assert self._steps is not None
        deadline_s = time.monotonic() + budget_s
        with self._keeps_no_gradient():
            for item in self._steps:
                if isinstance(item, Noted):
                    return [item]
                if isinstance(item, StepWanted):
                    self._awaits_step = True
                    return [item]
                if item is not None:
                    self._steps = None
                    return [RolloutCollected(item, self._episodes, self._agent_steps)]
                if time.monotonic() >= deadline_s:
                    break
        return []

    def _look_for(
        self, job: CompileJob | None, use: Callable[[Library], None]
    ) -> Iterator[Noted | None]:
        """Uses a compiled function once there is one; with a fixed lag, waits for it, and says so
        if there is none because of a fault."""
        if job is None:
            return
        is_fixed = self._blueprint.experiment.staleness.is_fixed
        while not job.outcome:
            if job.poll():
                job.tell(use)
                self._start_s = self._clock.now_s()
            elif is_fixed:
                yield None
                job.wait_within(WAIT_FOR_COMPILER_S)
            else:
                return
        if is_fixed and job.irreproducible and not self._has_told_failure:
            self._has_told_failure = True
            yield Noted(IRREPRODUCIBLE, job.irreproducible)

    def _abandon(self) -> RolloutAbandoned:
        duration_s = self._clock.now_s() - self._start_s
        is_under_way = self._steps is not None and bool(self._moments_s)
        self._steps = None
        if not is_under_way:  # the very first rollout has no memory before its first step
            return RolloutAbandoned(0, duration_s, ())
        entries = self._enter_books()
        return RolloutAbandoned(
            entries.num_env_steps, duration_s, self._episodes, self._agent_steps
        )

    def _enter_books(self) -> Entries:
        """Counts the steps since the rollout started, and records the episodes that ended."""
        cut, group = self._blueprint.cut, self._blueprint.group
        entries = self._statistics.enter(*self._outcomes(len(self._moments_s)))
        of_team = self._team_entries(entries)
        if cut.is_apart:
            entries = entries.share(group, cut.groups)
            of_team = None if of_team is None else of_team.share(group, cut.groups)
        self._episodes = tuple(
            Episode(
                t_s=self._moments_s[row],
                actor=self._index,
                episode_return=episode_return,
                length_env_steps=length,
                version=self._version,
            )
            for row, episode_return, length in entries.ended
        )
        if of_team is not None:
            self._agent_steps = of_team.agent_steps
            self._episodes = tuple(map(_with_returns, self._episodes, of_team.ended))
        return entries

    def _team_entries(self, entries: Entries) -> TeamEntries | None:
        """What the same steps say of each agent of a team; None if there is one agent."""
        if self._team_statistics is None:
            return None
        num_rows = len(entries.valid)
        reward = self._values(REWARD_FIELD)[1 : num_rows + 1]
        present = self._values(PRESENT_FIELD)[:num_rows]
        return self._team_statistics.enter(reward, present, entries)

    def _describe(self, ticket: int, num_env_steps: int) -> RolloutInfo:
        self._total_env_steps += num_env_steps
        info = RolloutInfo(
            actor=self._index,
            epoch=self._epoch,
            sequence=self._sequence,
            ticket=ticket,
            version_min=self._version,
            version_max=self._version,
            num_env_steps=num_env_steps,
            total_env_steps=self._total_env_steps,
            start_s=self._start_s,
            end_s=self._clock.now_s(),
        )
        self._sequence += 1
        return info


def _with_returns(episode: Episode, returns: TeamReturns) -> Episode:
    return msgspec.structs.replace(
        episode, agent_returns=returns.agents, policy_returns=returns.policies
    )
