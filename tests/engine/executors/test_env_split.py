"""Environments that step by turns: the same rollouts, with stepping and choosing side by side."""

from __future__ import annotations

import threading
from typing import Any

import gymnasium
import numpy as np
import pytest

from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.errors import ConfigError
from engine.executors.actor import ActorExecutor
from engine.executors.env_split import LocalSplit
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.messages import StepTaken
from engine.roles.commands import AbandonRollout, CollectRollout, LoadWeights
from engine.roles.events import RolloutAbandoned, RolloutCollected
from engine.rollout import Rollout, Weights
from engine.spec import EnvSpec, Experiment
from engine.testing import ScriptedVectorEnv, make_experiment

CARTPOLE = "gymnasium.envs.classic_control:CartPoleEnv"
SINGLE, MEETING = "TianjiSingle-v0", "TianjiMeeting-v0"
PATIENCE_S = 30.0


class MeetingVectorEnv(ScriptedVectorEnv):
    """Steps only if another part steps at the same time."""

    place = threading.Barrier(2)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self.place.wait(PATIENCE_S)
        return super().step(actions)


@pytest.fixture(autouse=True)
def environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SINGLE` has no vector version, so that each environment has random numbers of its own."""
    monkeypatch.setattr("gymnasium.envs.registration.registry", dict(gymnasium.registry))
    gymnasium.register(SINGLE, entry_point=CARTPOLE, max_episode_steps=40)
    gymnasium.register(MEETING, entry_point=CARTPOLE, vector_entry_point=MeetingVectorEnv)


def split(num_splits: int, env_id: str = SINGLE, **changes: Any) -> Experiment:  # noqa: ANN401
    spec = EnvSpec(id=env_id, num_envs=4, num_splits=num_splits)
    return make_experiment(env=spec, batch_steps=80, minibatch_steps=40, **changes)


def make_body(experiment: Experiment) -> tuple[Blueprint, ActorExecutor]:
    blueprint = make_blueprint(experiment)
    executor = ActorExecutor(blueprint, 1, 0, ManualClock(2.0))
    weights = blueprint.algorithm.init(7).weights.vector.detach().numpy()
    executor.perform(LoadWeights(Weights(0, weights.view(np.uint8))))
    return blueprint, executor


def collect(executor: ActorExecutor) -> Rollout:
    executor.perform(CollectRollout(0))
    (event,) = executor.advance(float("inf"))
    assert isinstance(event, RolloutCollected)
    return event.rollout


@pytest.mark.parametrize("num_splits", [2, 4])
def test_rollouts_are_the_same_however_environments_are_split(num_splits: int):
    blueprint, whole = make_body(split(1))
    _, in_parts = make_body(split(num_splits))
    for _ in range(12):
        one, other = collect(whole), collect(in_parts)
        assert one.info == other.info
        wanted, found = blueprint.layout.views(one.buffer), blueprint.layout.views(other.buffer)
        assert wanted["terminated"].shape == (10, 4)
        for name in wanted.keys() - {"log_prob"}:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
        np.testing.assert_allclose(found["log_prob"], wanted["log_prob"], atol=1e-6)
    whole.close()
    in_parts.close()


def test_one_part_is_stepped_by_the_actor_itself():
    _, executor = make_body(split(1))
    collect(executor)
    assert not [t for t in threading.enumerate() if t.name.startswith("environments")]
    executor.close()


def test_parts_step_side_by_side():
    _, executor = make_body(split(2, MEETING))
    assert collect(executor).info.num_env_steps > 0
    executor.close()


def test_giving_up_counts_the_steps_that_all_parts_have_finished():
    _, executor = make_body(split(2))
    executor.perform(CollectRollout(0))
    assert executor.advance(0.0) == []
    assert executor.advance(0.0) == []
    (event,) = executor.perform(AbandonRollout())
    assert isinstance(event, RolloutAbandoned)
    assert event.num_env_steps == 4, "one step of four; of the next, only one part was waited for"
    executor.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("environments")]


def test_what_fails_in_a_part_fails_in_the_actor(monkeypatch: pytest.MonkeyPatch):
    _, executor = make_body(split(2))
    part = executor._splits[1]
    assert isinstance(part, LocalSplit)

    def fail(_actions: np.ndarray) -> StepTaken:
        raise RuntimeError("the simulator has stopped")

    monkeypatch.setattr(part.env, "step", fail)
    with pytest.raises(RuntimeError, match="the simulator has stopped"):
        collect(executor)
    executor.close()


def test_parts_must_be_equal():
    with pytest.raises(ConfigError, match="4 environments cannot be split into 3") as caught:
        make_blueprint(split(3))
    assert caught.value.where == "env.num_splits"


def test_only_an_actor_that_steps_environments_can_split_them():
    policy = "environments"
    graph = build_graph(read_policy(policy), split(2, policy=policy))
    with pytest.raises(ConfigError, match="does not step environments by itself"):
        make_blueprint(split(2, policy=policy), graph.cut)
