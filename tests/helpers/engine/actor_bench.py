"""An actor with environments whose every number is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.executors.actor import ActorExecutor
from engine.executors.env_split import LocalSplit
from engine.roles.commands import CollectRollout, LoadWeights
from engine.roles.events import Event, RolloutCollected
from engine.rollout import Rollout, Weights
from engine.spec import EnvSpec
from engine.testing import SCRIPTED_ENV, ScriptedVectorEnv, make_experiment


@dataclass
class Bench:
    """An actor's body, its environment, and a clock that moves when told to."""

    blueprint: Blueprint
    executor: ActorExecutor
    env: ScriptedVectorEnv
    clock: ManualClock
    tickets: int = field(default=0)

    def begin(self) -> None:
        assert self.executor.perform(CollectRollout(self.tickets)) == []
        self.tickets += 1

    def finish(self) -> RolloutCollected:
        events = self.executor.advance(float("inf"))
        assert len(events) == 1
        assert isinstance(events[0], RolloutCollected)
        assert not self.executor.is_busy
        return events[0]

    def collect(self) -> RolloutCollected:
        self.begin()
        return self.finish()

    def step(self, times: int) -> list[Event]:
        """So many steps of the environments; a budget of nothing is one step."""
        return [event for _ in range(times) for event in self.executor.advance(0.0)]

    def views(self, rollout: Rollout) -> dict[str, np.ndarray]:
        return self.blueprint.layout.views(rollout.buffer)


def make_bench(seed: int = 0, epoch: int = 0, num_envs: int = 2) -> Bench:
    experiment = make_experiment(
        seed=seed,
        env=EnvSpec(id=SCRIPTED_ENV, num_envs=num_envs),
        rollout_steps=10,
        batch_steps=20,
        minibatch_steps=20,
    )
    blueprint, clock = make_blueprint(experiment), ManualClock(5.0)
    executor = ActorExecutor(blueprint, 3, epoch, clock)
    weights = np.zeros(blueprint.weights.num_bytes, np.uint8)
    executor.perform(LoadWeights(Weights(6, weights)))
    (part,) = executor._splits
    assert isinstance(part, LocalSplit)
    env = part.env.unwrapped
    assert isinstance(env, ScriptedVectorEnv)
    return Bench(blueprint, executor, env, clock)
