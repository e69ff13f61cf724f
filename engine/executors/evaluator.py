"""What an evaluator does: plays one episode in each of its environments with greedy actions."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import numpy as np
import torch

from engine.blueprint import Blueprint
from engine.envs.make import make_vector_env
from engine.envs.observed import Observed
from engine.executors.policy_runner import PolicyRunner
from engine.executors.team_statistics import TeamTally
from engine.layers.flat import flatten
from engine.roles.commands import AbandonEvaluation, Command, Evaluate, LoadWeights
from engine.roles.events import Evaluated, Event
from engine.spaces.team import REWARD_FIELD
from engine.spec import EvaluationSpec
from engine.timing import ENVIRONMENT, INFERENCE, OFF, Sections


class EvaluatorExecutor:
    """Performs an evaluator's commands.

    Args:
        blueprint: The run.
        spec: Episodes and seed.
        sections: Where its time is counted.
        place: The device that actions are chosen on; the processor by default.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        spec: EvaluationSpec,
        sections: Sections = OFF,
        place: torch.device | None = None,
    ) -> None:
        network = blueprint.algorithm.network().requires_grad_(False).to(place)
        self._parameters = flatten(network)
        act = sections.timed(INFERENCE, blueprint.algorithm.act_greedily)
        self._runner = PolicyRunner(act, network, blueprint.layout.fields, spec.episodes, place)
        self._spec = spec
        env = msgspec.structs.replace(blueprint.experiment.env, num_envs=spec.episodes)
        self._env = make_vector_env(env)
        space = self._env.single_observation_space
        self._of = Observed(space, blueprint.spaces, spec.episodes, env.id)
        self._reset = sections.timed(ENVIRONMENT, self._env.reset)
        self._step = sections.timed(ENVIRONMENT, self._env.step)
        self._team = blueprint.spaces.team
        self._steps: Iterator[Evaluated | None] | None = None

    def close(self) -> None:
        self._env.close()

    @property
    def is_busy(self) -> bool:
        return self._steps is not None

    def perform(self, command: Command) -> list[Event]:
        match command:
            case LoadWeights(weights=weights):
                self._parameters.load(torch.from_numpy(weights.buffer.view(np.float32)))
            case Evaluate():
                self._steps = self._evaluate()
            case AbandonEvaluation():
                self._steps = None
            case _:
                raise RuntimeError(f"an evaluator cannot perform {type(command).__name__}")
        return []

    def advance(self, budget_s: float) -> list[Event]:
        """Plays for about `budget_s`, at least one step."""
        assert self._steps is not None
        deadline_s = time.monotonic() + budget_s
        for evaluated in self._steps:
            if evaluated is not None:
                self._steps = None
                return [evaluated]
            if time.monotonic() >= deadline_s:
                break
        return []

    def _evaluate(self) -> Iterator[Evaluated | None]:
        """Plays the first episode of each environment; yields None after each step."""
        arrays = self._of.arrays(*self._reset(seed=self._spec.seed))
        self._runner.reset()
        num_envs = self._spec.episodes
        plays = np.ones(num_envs, np.bool_)
        returns = np.zeros(num_envs, np.float64)
        lengths = np.zeros(num_envs, np.int64)
        team = None if self._team is None else TeamTally(self._team, num_envs)
        while plays.any():
            action = self._runner.act(arrays)
            observation, reward, terminated, truncated, info = self._step(action)
            arrays = self._of.arrays(observation, info, terminated | truncated)
            returns += reward * plays
            lengths += plays
            if team is not None:
                team.add(arrays[REWARD_FIELD], plays)
            plays &= ~(terminated | truncated)
            yield None
        of_team = None if team is None else team.mean
        yield Evaluated(tuple(returns.tolist()), tuple(lengths.tolist()), of_team)
