"""A replay store on a device draws what the one of arrays draws, and keeps what is large there."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.devices.cpu import CpuDevice
from engine.devices.tensors import DeviceRollout, DeviceSamples, DeviceWeights
from engine.executors.learner import LearnerExecutor
from engine.executors.on_device.memory import FusedMemory
from engine.executors.on_device.replay_buffer import DeviceReplayExecutor
from engine.executors.replay_buffer import ReplayExecutor
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.roles.commands import (
    CollectRollout,
    DrawSamples,
    InsertRollout,
    LoadWeights,
    SetPriorities,
    UpdateFromSamples,
)
from engine.rollout import Rollout
from engine.spec import CoreSpec, EnvSpec, StalenessSpec
from engine.testing import make_experiment
from tests.helpers.engine.tensor_actor import on_device


def make(name: str, core: CoreSpec | None = None) -> Blueprint:
    sizes = {"rollout_steps": 7, "replay_capacity": 90, "min_replay_size": 10, "n_step": 3}
    batch = {"batch_size": 16, "updates_per_batch": 3}
    experiment = make_experiment(
        actors=1,
        env=EnvSpec(id="CartPole-v1", num_envs=4),
        staleness=StalenessSpec(mode="unbounded"),
    )
    network = replace(experiment.network, core=core)
    experiment = replace(experiment, algorithm={"name": name, **sizes, **batch}, network=network)
    return make_blueprint(experiment, build_graph(read_policy("gpu-only"), experiment).cut)


def rollouts_of(blueprint: Blueprint, count: int) -> list[DeviceRollout]:
    executor = on_device(blueprint, ManualClock())
    vector = blueprint.algorithm.init(0).weights.vector.detach()
    executor.perform(LoadWeights(DeviceWeights(3, vector)))
    found = []
    for ticket in range(count):
        executor.perform(CollectRollout(ticket))
        while executor.is_busy:
            found += [event.rollout for event in executor.advance(0.0)]
    return found


def as_arrays(blueprint: Blueprint, rollout: DeviceRollout) -> Rollout:
    buffer = blueprint.layout.allocate()
    for name, view in blueprint.layout.views(buffer).items():
        view[...] = rollout.tensors[name].cpu().numpy()
    return Rollout(rollout.info, buffer)


@pytest.mark.parametrize("core", [None, CoreSpec(name="gru", size=3)], ids=["plain", "gru"])
@pytest.mark.parametrize("name", ["dqn", "apex"])
def test_what_is_drawn_is_what_the_store_of_arrays_draws(name: str, core: CoreSpec | None):
    blueprint, clock = make(name, core), ManualClock()
    ours, theirs = DeviceReplayExecutor(blueprint, 0, clock), ReplayExecutor(blueprint, 0, clock)
    learner = LearnerExecutor(blueprint, None, clock, memory=FusedMemory(CpuDevice()))
    for number, rollout in enumerate(rollouts_of(blueprint, 9)):  # more than there is room for
        ours.perform(InsertRollout(rollout))
        theirs.perform(InsertRollout(as_arrays(blueprint, rollout)))
        (drawn,), (reference,) = (
            executor.perform(DrawSamples(number)) for executor in (ours, theirs)
        )
        samples = drawn.samples
        assert isinstance(samples, DeviceSamples)
        assert samples.info == reference.samples.info
        views = blueprint.samples.views(reference.samples.buffer)
        assert set(views) == set(samples.tensors)
        for field, values in samples.tensors.items():
            np.testing.assert_array_equal(values.cpu().numpy(), views[field], err_msg=field)
            assert values.cpu().numpy().dtype == views[field].dtype
        (updated,) = learner.perform(UpdateFromSamples(samples))
        assert updated.samples_trained == 16 * 3 * (7 if core else 1)
        assert sum(updated.samples_by_version.values()) == updated.samples_trained
        assert (updated.priorities is not None) == (name == "apex")
        if updated.priorities is not None:
            for executor in (ours, theirs):
                executor.perform(SetPriorities(updated.priorities))
