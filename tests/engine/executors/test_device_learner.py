"""A learner on a device learns what one in main memory learns, and its loop goes on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.devices.cpu import CpuDevice
from engine.errors import RunFailedError
from engine.executors.learner import LearnerExecutor
from engine.executors.on_device.learner import DeviceLearnerExecutor
from engine.executors.on_device.memory import StagedMemory
from engine.progress import RunCounters
from engine.roles.commands import (
    ExportWeights,
    SaveCheckpoint,
    StageAhead,
    Update,
    UpdateFromSamples,
)
from engine.roles.events import (
    CheckpointWritten,
    Event,
    Updated,
    WeightsExported,
    WeightsPending,
)
from engine.rollout import Rollout, Samples, SamplesInfo
from engine.spec import WatchdogSpec
from engine.testing import make_rollout
from tests.helpers.engine.lazy_device import LazyDevice
from tests.helpers.engine.small_learners import experiment

END_S = 30.0
ROUNDING = 1e-6
"""The last digits of products depend on where their operands lie in memory."""


def updates_of(blueprint: Blueprint, count: int) -> list[Update | UpdateFromSamples]:
    random = np.random.default_rng(5)
    made: list[Update | UpdateFromSamples] = []
    for _ in range(count):
        if blueprint.replay is not None:
            info = SamplesInfo(env_steps=1, drawn_s=0.0, age_mean_s=0.0, age_max_s=0.0)
            samples = Samples(info, blueprint.samples.allocate())
            for values in blueprint.samples.views(samples.buffer).values():
                values[...] = random.integers(0, 2, values.shape)
            made.append(UpdateFromSamples(samples))
            continue
        rollouts: list[Rollout] = []
        for _ in range(blueprint.rollouts_per_batch):
            rollouts.append(make_rollout(layout=blueprint.layout))
            for values in blueprint.layout.views(rollouts[-1].buffer).values():
                values[...] = random.integers(0, 2, values.shape)
        made.append(Update(tuple(rollouts)))
    return made


def batch_of(update: Update | UpdateFromSamples):
    return update.rollouts if isinstance(update, Update) else update.samples


def until_idle(executor: DeviceLearnerExecutor) -> list[Event]:
    events, end_s = [], time.monotonic() + END_S
    while executor.is_busy:
        events += executor.advance(0.01)
        assert time.monotonic() < end_s
    return events


@pytest.fixture(params=["ppo", "impala", "dqn", "sac"])
def blueprint(request: pytest.FixtureRequest) -> Blueprint:
    return make_blueprint(experiment(request.param))


@pytest.fixture
def ppo() -> Blueprint:
    return make_blueprint(experiment("ppo"))


@pytest.fixture
def learner(ppo: Blueprint, tmp_path: Path) -> Iterator[DeviceLearnerExecutor]:
    executor = DeviceLearnerExecutor(ppo, tmp_path, ManualClock(), device=CpuDevice())
    yield executor
    executor.close()


def test_it_learns_what_main_memory_learns(blueprint: Blueprint):
    ours = DeviceLearnerExecutor(blueprint, None, ManualClock(), device=CpuDevice())
    theirs = LearnerExecutor(blueprint, None, ManualClock())
    updates = updates_of(blueprint, 4)
    for executor in (ours, theirs):
        executor.perform(ExportWeights(0))
    for number, update in enumerate(updates):
        (wanted,) = theirs.perform(update)
        assert ours.perform(update) == []
        if number + 1 < len(updates):
            assert ours.perform(StageAhead(batch_of(updates[number + 1]))) == []
        events = until_idle(ours)
        (updated,) = (event for event in events if isinstance(event, Updated))
        (exported,) = (event for event in events if isinstance(event, WeightsExported))
        assert isinstance(wanted, Updated)
        assert updated.weights == WeightsPending(number + 1)
        assert exported.weights.version == number + 1
        here, there = (w.weights.buffer.view(np.float32) for w in (exported, wanted))
        np.testing.assert_allclose(here, there, rtol=0, atol=ROUNDING)
        assert updated.metrics == pytest.approx(wanted.metrics, rel=1e-4, abs=1e-5)
        assert updated.samples_by_version == wanted.samples_by_version
        assert (updated.priorities is None) == (wanted.priorities is None)
    ours.close()


@pytest.mark.parametrize("compiles", [False, True])
def test_in_turn_it_does_the_same_on_a_device_that_is_late(blueprint: Blueprint, compiles: bool):
    ours = LearnerExecutor(
        blueprint,
        None,
        ManualClock(),
        memory=StagedMemory(blueprint, LazyDevice()),
        compiles=compiles,
    )
    theirs = LearnerExecutor(blueprint, None, ManualClock())
    for update in updates_of(blueprint, 3):
        ((found,), (wanted,)) = (executor.perform(update) for executor in (ours, theirs))
        assert isinstance(found, Updated)
        assert isinstance(wanted, Updated)
        here, there = (w.weights.buffer.view(np.float32) for w in (found, wanted))
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-5 if compiles else ROUNDING)


def test_weights_are_sent_while_the_next_update_computes(
    ppo: Blueprint, learner: DeviceLearnerExecutor, monkeypatch: pytest.MonkeyPatch
):
    first, second, third = updates_of(ppo, 3)
    update, may_end = ppo.algorithm.update, threading.Event()
    learner.perform(ExportWeights(0))
    learner.perform(first)
    events: list[Event] = []
    while not any(isinstance(event, Updated) for event in events):
        events += learner.advance(0.01)

    def slow(state, batch):
        assert may_end.wait(END_S)
        return update(state, batch)

    monkeypatch.setattr(ppo.algorithm, "update", slow)
    learner.perform(second)
    while not any(isinstance(event, WeightsExported) for event in events):
        events += learner.advance(0.01)
    assert learner.perform(StageAhead(batch_of(third))) == []
    assert learner.is_busy
    may_end.set()
    assert [e.weights.version for e in until_idle(learner) if isinstance(e, Updated)] == [2]


def test_what_needs_the_state_waits_for_the_update_and_tells_it_first(
    ppo: Blueprint, learner: DeviceLearnerExecutor
):
    learner.perform(ExportWeights(0))
    learner.perform(updates_of(ppo, 1)[0])
    events = learner.perform(SaveCheckpoint(1, RunCounters(), True, None))
    assert [type(event) for event in events] == [Updated, WeightsExported, CheckpointWritten]
    assert events[-1].error == ""
    assert not learner.is_busy


def test_a_checkpoint_of_a_device_goes_on_in_main_memory_and_back(ppo: Blueprint, tmp_path: Path):
    from engine.executors.checkpoint import load_checkpoint

    learner = DeviceLearnerExecutor(ppo, tmp_path, ManualClock(), device=CpuDevice())
    learner.perform(ExportWeights(0))
    learner.perform(updates_of(ppo, 1)[0])
    events = learner.perform(SaveCheckpoint(1, RunCounters(), True, None))
    sent = next(event.weights for event in events if isinstance(event, WeightsExported))
    state = ppo.algorithm.init(99)
    (path,) = tmp_path.glob("*.json")
    load_checkpoint(path, state)
    vector = state.weights.vector.detach().numpy()
    np.testing.assert_array_equal(sent.buffer.view(np.float32), vector)
    moved = StagedMemory(ppo, CpuDevice()).place(ppo.algorithm.init(98))
    load_checkpoint(path, moved)
    assert torch.equal(moved.weights.vector, state.weights.vector)
    learner.close()


def test_an_error_of_an_update_ends_the_role(
    ppo: Blueprint, learner: DeviceLearnerExecutor, monkeypatch: pytest.MonkeyPatch
):
    def fails(state, batch):
        raise ZeroDivisionError("in user code")

    monkeypatch.setattr(ppo.algorithm, "update", fails)
    learner.perform(updates_of(ppo, 1)[0])
    with pytest.raises(ZeroDivisionError, match="in user code"):
        until_idle(learner)


def test_a_device_that_hangs_ends_the_run(monkeypatch: pytest.MonkeyPatch):
    watchdog = WatchdogSpec(stalled_s=0.05)
    blueprint = make_blueprint(msgspec.structs.replace(experiment("ppo"), watchdog=watchdog))
    learner = DeviceLearnerExecutor(blueprint, None, ManualClock(), device=CpuDevice())
    may_end = threading.Event()

    def hangs(state, batch):
        may_end.wait(END_S)
        raise RuntimeError("ended")

    monkeypatch.setattr(blueprint.algorithm, "update", hangs)
    learner.perform(updates_of(blueprint, 1)[0])
    with pytest.raises(RunFailedError, match=r"not ended on cpu for 0\.05 s"):
        until_idle(learner)
    may_end.set()
    learner.close()


def test_a_command_of_another_role_is_refused(learner: DeviceLearnerExecutor):
    from engine.roles.commands import Quit

    with pytest.raises(RuntimeError, match="cannot perform Quit"):
        learner.perform(Quit())
