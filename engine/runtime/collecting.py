"""What every way of collecting has in common: an actor's commands, and the books of its rollouts.

Collecting is a generator over steps that can be left and re-entered between any two of them, so
that a stop or newer weights are noticed even where environments are slow.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator

import torch

from engine.algorithms.base import Lanes
from engine.clock import Clock
from engine.messages import StepTaken
from engine.roles.commands import AbandonRollout, CollectRollout, Command, LoadWeights, TakeStep
from engine.roles.events import Event, RolloutAbandoned, RolloutCollected, StepWanted
from engine.rollout import Rollout, RolloutInfo, Weights
from engine.runtime.blueprint import Blueprint
from engine.trace.records import Episode

Steps = Generator[Rollout | StepWanted | None, None, None]
"""None after each step, a step that remote environments have to take, at last the rollout."""


class CollectingBody(ABC):
    """Performs an actor's commands.

    Args:
        blueprint: The run.
        index: Number of the actor.
        epoch: Its incarnation; a restarted actor continues with other random numbers.
        clock: The run's timeline.
    """

    _keeps_no_gradient: type[torch.inference_mode | torch.no_grad] = torch.inference_mode

    def __init__(self, blueprint: Blueprint, index: int, epoch: int, clock: Clock) -> None:
        self._blueprint = blueprint
        self._index = index
        self._epoch = epoch
        self._clock = clock
        self._algorithm = blueprint.algorithm
        self._spec = blueprint.experiment.env
        num_envs = blueprint.layout.num_envs
        self._lanes = Lanes(index * num_envs, num_envs, blueprint.experiment.actors * num_envs)
        self._episodes: list[Episode] = []
        self._version = -1
        self._num_env_steps = 0
        self._steps: Iterator[Rollout | StepWanted | None] | None = None
        self._awaits_step = False
        self._sequence = 0
        self._total_env_steps = 0
        self._start_s = 0.0

    @abstractmethod
    def close(self) -> None:
        """Releases the environments."""

    @abstractmethod
    def _load(self, weights: Weights) -> None:
        """Acts with these from now on."""

    @abstractmethod
    def _collect(self, ticket: int) -> Steps:
        """Collects one rollout."""

    @abstractmethod
    def _settle(self) -> None:
        """Brings `_num_env_steps` and `_episodes` up to date for an unfinished rollout."""

    def _take(self, taken: StepTaken) -> bool:
        """Takes a remote step in; False if nobody waits for it."""
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
                self._num_env_steps = 0
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
        """Goes on collecting for about `budget_s`, at least one step."""
        assert self._steps is not None
        deadline_s = time.monotonic() + budget_s
        with self._keeps_no_gradient():
            for item in self._steps:
                if isinstance(item, StepWanted):
                    self._awaits_step = True
                    return [item]
                if item is not None:
                    self._steps = None
                    return [RolloutCollected(item, self._take_episodes())]
                if time.monotonic() >= deadline_s:
                    break
        return []

    def _abandon(self) -> RolloutAbandoned:
        if self._steps is None:
            self._num_env_steps = 0
        else:
            self._settle()
        self._steps = None
        duration_s = self._clock.now_s() - self._start_s
        return RolloutAbandoned(self._num_env_steps, duration_s, self._take_episodes())

    def _take_episodes(self) -> tuple[Episode, ...]:
        episodes, self._episodes = tuple(self._episodes), []
        return episodes

    def _note_episode(self, t_s: float, episode_return: float, length_env_steps: int) -> None:
        self._episodes.append(
            Episode(
                t_s=t_s,
                actor=self._index,
                episode_return=episode_return,
                length_env_steps=length_env_steps,
                version=self._version,
            )
        )

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
