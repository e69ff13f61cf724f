"""Actors of any policy step environments of tensors if asked to: the same rollouts, in buffers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.blueprint import Blueprint, make_arena, make_blueprint
from engine.clock import ManualClock
from engine.compilation.traces import kinds_of
from engine.devices.tensors import DeviceRollout, DeviceWeights
from engine.errors import ConfigError
from engine.executors.tensor_envs.actor import TensorActorExecutor
from engine.executors.tensor_envs.rollout_memory import BufferedRollouts
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.roles.commands import CollectRollout, LoadWeights
from engine.roles.events import RolloutCollected
from engine.rollout import Weights
from engine.spec import ActorSpec, EnvSpec, EvaluationSpec, Experiment, StopSpec
from engine.testing import make_experiment
from engine.trace.reader import read_table
from engine.trace.records import Evaluation, Ledger
from engine.wire.arena import Arena
from tests.helpers.engine.inline_runs import run
from tests.helpers.engine.tensor_actor import on_device

CARTPOLE = EnvSpec(id="CartPole-v1", num_envs=4, backend="torch", reward_scale=0.5)


def experiment_of(env: EnvSpec = CARTPOLE, **changes: object) -> Experiment:
    return msgspec.structs.replace(make_experiment(actors=1, env=env), **changes)


def blueprint_of(experiment: Experiment, policy: str = "tianji") -> Blueprint:
    return make_blueprint(experiment, build_graph(read_policy(policy), experiment).cut)


def actor_of(blueprint: Blueprint, arena: Arena | None = None) -> TensorActorExecutor:
    memory = BufferedRollouts(blueprint.layout, arena, 0, 0)
    return TensorActorExecutor(blueprint, 0, 0, ManualClock(), memory)


def collect(executor: TensorActorExecutor, weights: Weights, count: int) -> list[RolloutCollected]:
    executor.perform(LoadWeights(weights))
    found: list[RolloutCollected] = []
    for ticket in range(count):
        executor.perform(CollectRollout(ticket))
        while executor.is_busy:
            for event in executor.advance(0.0):
                assert isinstance(event, RolloutCollected)
                found.append(event)
    return found


def weights_of(blueprint: Blueprint) -> DeviceWeights:
    return DeviceWeights(0, blueprint.algorithm.init(0).weights.vector.detach())


def test_rollouts_and_episodes_are_those_of_a_fused_loop():
    blueprint, fused = blueprint_of(experiment_of()), blueprint_of(experiment_of(), "gpu-only")
    weights = weights_of(blueprint)
    in_memory = Weights(0, weights.buffer)
    ours = collect(actor_of(blueprint), in_memory, 12)
    theirs = collect(on_device(fused, ManualClock()), weights, 12)
    assert sum(len(event.episodes) for event in ours) > 5
    for one, other in zip(ours, theirs, strict=True):
        assert isinstance(other.rollout, DeviceRollout)
        assert one.rollout.info == other.rollout.info
        assert one.episodes == other.episodes
        views = blueprint.layout.views(one.rollout.buffer)
        assert set(views) == set(other.rollout.tensors)
        for name, values in views.items():
            np.testing.assert_array_equal(values, other.rollout.tensors[name].numpy())
    assert set(blueprint.layout.views(ours[0].rollout.buffer)["reward"].flat) == {0.5}


def test_a_rollout_lies_in_a_slot_of_the_arena_and_goes_on_after_it_was_sent():
    blueprint = blueprint_of(experiment_of())
    arena, weights = make_arena(blueprint), Weights(0, weights_of(blueprint).buffer)
    executor, alone = actor_of(blueprint, arena), actor_of(blueprint)
    num_free = arena.num_free
    for one, other in zip(collect(executor, weights, 1), collect(alone, weights, 1), strict=True):
        np.testing.assert_array_equal(one.rollout.buffer, other.rollout.buffer)
        assert arena.num_free == num_free - 1
        slot = arena.hand_over(one.rollout.buffer)
        assert slot is not None
        arena.attach(slot)[:] = 255  # by whoever has the slot next
    (mine,), (other,) = collect(executor, weights, 1), collect(alone, weights, 1)
    np.testing.assert_array_equal(mine.rollout.buffer, other.rollout.buffer)


def test_what_is_compiled_for_such_actors_has_the_environments_in_it():
    assert kinds_of(blueprint_of(experiment_of()))[-1] == "collect"
    plain = experiment_of(msgspec.structs.replace(CARTPOLE, backend="gymnasium"))
    assert kinds_of(blueprint_of(plain))[-1] == "act"


def test_a_run_balances_its_books_and_evaluates_in_gymnasiums_environment(tmp_path: Path):
    evaluation = EvaluationSpec(every_s=0.05, episodes=2)
    stop = StopSpec(env_steps=1500)
    result = run(tmp_path, experiment_of(stop=stop, evaluation=evaluation))
    summary = result.summary
    assert summary.status == "ok"
    kept = summary.env_steps_consumed + summary.env_steps_dropped
    assert summary.env_steps_collected == kept + summary.env_steps_in_flight
    ledger = read_table(result.trace, Ledger)
    assert all(row.collected == row.consumed + row.dropped + row.in_flight for row in ledger)
    assert read_table(result.trace, Evaluation)


@pytest.mark.parametrize(
    ("env", "changes", "policy", "where", "what"),
    [
        ({"id": "MountainCar-v0"}, {}, "tianji", "env.id", "which env.backend=torch needs"),
        ({"num_splits": 2}, {}, "tianji", "env.num_splits", "all step at once"),
        ({}, {"actor": ActorSpec(device="cuda")}, "tianji", "actor.device", "on processors"),
        ({}, {}, "single-learner-fine", "env.backend", "by themselves"),
        ({"wrappers": ({"name": "FlattenObservation"},)}, {}, "tianji", "env.wrappers", "single"),
    ],
)
def test_what_it_cannot_do_is_refused(env, changes, policy, where, what):
    experiment = experiment_of(msgspec.structs.replace(CARTPOLE, **env), **changes)
    with pytest.raises(ConfigError, match=what) as error:
        blueprint_of(experiment, policy)
    assert error.value.where == where
