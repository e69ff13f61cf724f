"""Actions that are chosen on a device are those of the processor, in every row."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.devices.cpu import CpuDevice
from engine.devices.interface import NotCapturableError
from engine.executors.actor import ActorExecutor
from engine.executors.evaluator import EvaluatorExecutor
from engine.roles.commands import CollectRollout, Evaluate, LoadWeights
from engine.roles.events import Evaluated, RolloutCollected
from engine.rollout import Weights
from engine.spec import CoreSpec, EnvSpec, EvaluationSpec, NetworkSpec
from engine.testing import SCRIPTED_ENV, make_experiment
from tests.helpers.engine.lazy_device import LazyDevice


def blueprint_of(core: str | None = None, num_splits: int = 1, precision: str = "float32"):
    experiment = make_experiment(env=EnvSpec(id=SCRIPTED_ENV, num_envs=4, num_splits=num_splits))
    network = NetworkSpec(
        hidden_sizes=(8,), core=CoreSpec(name=core, size=5) if core else None, precision=precision
    )
    return make_blueprint(msgspec.structs.replace(experiment, network=network))


def weights_of(blueprint: Blueprint, version: int) -> Weights:
    vector = blueprint.algorithm.init(version).weights.vector.detach().numpy().copy()
    return Weights(version, vector.view(np.uint8))


def collected(executor: ActorExecutor, blueprint: Blueprint) -> list[dict[str, np.ndarray]]:
    found = []
    for version in range(3):
        executor.perform(LoadWeights(weights_of(blueprint, version)))
        executor.perform(CollectRollout(version))
        (event,) = executor.advance(float("inf"))
        assert isinstance(event, RolloutCollected)
        found.append(blueprint.layout.views(event.rollout.buffer))
    executor.close()
    return found


@pytest.mark.parametrize(
    ("device", "compiles"),
    [(CpuDevice, False), (CpuDevice, True), (LazyDevice, True)],
    ids=["eager", "graph", "late"],
)
@pytest.mark.parametrize(
    ("core", "num_splits", "precision"),
    [(None, 1, "float32"), ("gru", 1, "float32"), (None, 2, "float32"), (None, 1, "bfloat16")],
)
def test_rollouts_are_those_of_the_processor(device, compiles, core, num_splits, precision):
    blueprint = blueprint_of(core, num_splits, precision)
    clock = ManualClock(1.0)
    wanted = collected(ActorExecutor(blueprint, 0, 0, clock), blueprint)
    ours = ActorExecutor(blueprint, 0, 0, clock, device=device(), compiles=compiles)
    for one, other in zip(collected(ours, blueprint), wanted, strict=True):
        for name, values in other.items():
            np.testing.assert_allclose(one[name], values, rtol=0, atol=1e-6, err_msg=name)
    assert len({row.tobytes() for row in (views["action"] for views in wanted)}) > 1


def test_each_step_is_one_copy_there_and_one_back_and_waits_for_its_own_stream_only():
    blueprint, device = blueprint_of(), LazyDevice()
    executor = ActorExecutor(blueprint, 0, 0, ManualClock(1.0), device=device)
    executor.perform(LoadWeights(weights_of(blueprint, 0)))
    executor.perform(CollectRollout(0))
    executor.advance(0.0)
    device.log.clear()
    executor.advance(0.0)
    (stream,) = device.streams
    assert device.log == [
        ("copy", stream.name),
        ("copy", stream.name),
        ("record", stream.name),
        ("block", stream.name),
    ]
    executor.close()


def test_acting_that_cannot_be_recorded_stays_eager(capsys: pytest.CaptureFixture[str]):
    class Stubborn(CpuDevice):
        def capture(self, work):
            raise NotCapturableError("it waits")

    blueprint = blueprint_of()
    wanted = collected(ActorExecutor(blueprint, 0, 0, ManualClock(1.0)), blueprint)
    ours = ActorExecutor(blueprint, 0, 0, ManualClock(1.0), device=Stubborn(), compiles=True)
    for one, other in zip(collected(ours, blueprint), wanted, strict=True):
        np.testing.assert_array_equal(one["action"], other["action"])
    assert capsys.readouterr().out == "acting: eager, not a graph: it waits\n"


def test_an_evaluator_plays_the_same_episodes_on_a_device():
    blueprint = blueprint_of("gru")
    played = []
    for place in (None, torch.device("cpu")):
        executor = EvaluatorExecutor(blueprint, EvaluationSpec(episodes=3, seed=5), place=place)
        executor.perform(LoadWeights(weights_of(blueprint, 0)))
        executor.perform(Evaluate())
        (event,) = executor.advance(float("inf"))
        assert isinstance(event, Evaluated)
        played.append(event)
        executor.close()
    assert played[0] == played[1]
