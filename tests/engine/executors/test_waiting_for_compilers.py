"""With a fixed lag, roles wait for all their compiled functions, and tell if a fault denies one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.blueprint import Blueprint, make_blueprint
from engine.clock import RunClock
from engine.compilation import compile_job
from engine.compilation.compile_job import CompileJob
from engine.compilation.library import Kind, Library
from engine.executors import learner
from engine.executors.actor import ActorExecutor
from engine.executors.learner import LearnerExecutor
from engine.messages import Report
from engine.roles.actor import ActorRole
from engine.roles.commands import CollectRollout, ExportWeights, LoadWeights, Send
from engine.roles.events import Event, Noted, ReadyToTrain, RolloutCollected
from engine.rollout import Weights
from engine.spec import EnvSpec, StalenessMode, StalenessSpec
from engine.testing import make_experiment
from engine.trace.records import IRREPRODUCIBLE
from engine.trace.records import Event as TraceEvent


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class SlowJob:
    """A compiler that is done when it has been waited for."""

    begun: list[Kind]

    def __init__(self, _blueprint: Blueprint, kind: Kind) -> None:
        self.begun.append(kind)
        self.kind = kind
        self.library = None
        self.outcome = self.irreproducible = ""

    def wait_within(self, _limit_s: float) -> None:
        self.outcome = "compiled"
        self.library = object()

    def poll(self) -> bool:
        return bool(self.outcome)

    def tell(self, _use: Callable[[Library], None]) -> str:
        return self.outcome

    def close(self) -> None:
        pass


def blueprint_of(mode: StalenessMode = "fixed") -> Blueprint:
    env = EnvSpec(id="CartPole-v1", num_envs=4)
    return make_blueprint(make_experiment(env=env, staleness=StalenessSpec(mode=mode)))


def make_learner(tmp_path: Path, mode: StalenessMode = "fixed") -> LearnerExecutor:
    return LearnerExecutor(blueprint_of(mode), tmp_path, RunClock.start_now(), compiles=True)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind if isinstance(event, Noted) else type(event).__name__ for event in events]


def test_a_learner_is_ready_once_it_has_all_its_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    SlowJob.begun = []
    monkeypatch.setattr(learner, "CompileJob", SlowJob)
    executor = make_learner(tmp_path)
    assert kinds(executor.perform(ExportWeights(0))) == ["WeightsExported"]
    assert (executor.is_busy, SlowJob.begun) == (True, ["steps"])
    assert kinds(executor.advance(1.0)) == ["compiled"]
    assert (executor.is_busy, SlowJob.begun) == (True, ["steps", "prepare"])
    assert kinds(executor.advance(1.0)) == ["compiled", "ReadyToTrain"]
    assert not executor.is_busy


@pytest.mark.parametrize(
    ("mode", "told"),
    [("fixed", ["eager", IRREPRODUCIBLE, "ReadyToTrain"]), ("block", ["eager"])],
)
def test_a_learner_tells_that_its_compiler_was_too_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: StalenessMode, told: list[str]
):
    executor = make_learner(tmp_path, mode)
    executor.perform(ExportWeights(0))
    monkeypatch.setattr(compile_job, "LIMIT_S", 0.0)
    monkeypatch.setattr(CompileJob, "wait_within", lambda *_: None)
    events = executor.advance(0.0)
    assert kinds(events) == told
    for event in events:
        if isinstance(event, Noted) and event.kind == IRREPRODUCIBLE:
            assert event.detail == (
                "since there is no library for optimiser steps: not finished after 0 s"
            )
    executor.close()


def test_a_host_without_a_compiler_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    executor = make_learner(tmp_path)
    told = kinds(executor.perform(ExportWeights(0)))
    assert told == ["WeightsExported", "eager", ReadyToTrain.__name__]


def test_an_actor_tells_once_that_its_compiler_failed(monkeypatch: pytest.MonkeyPatch):
    blueprint = blueprint_of()
    executor = ActorExecutor(blueprint, 0, 0, RunClock.start_now(), compiles=True)
    executor.perform(LoadWeights(Weights(0, np.zeros(blueprint.weights.num_bytes, np.uint8))))
    monkeypatch.setattr(compile_job, "LIMIT_S", 0.0)
    found: list[Event] = []
    for ticket in range(2):
        executor.perform(CollectRollout(ticket))
        while executor.is_busy:
            found += executor.advance(1.0)
    assert kinds(found) == [IRREPRODUCIBLE, *[RolloutCollected.__name__] * 2]
    executor.close()
    (command,) = ActorRole(0, 0, "buffer-0", "learner-0").handle(found[0], 1.0)
    assert isinstance(command, Send)
    assert isinstance(command.message, Report)
    (row,) = command.message.records
    assert isinstance(row, TraceEvent)
    assert (row.kind, row.role) == (IRREPRODUCIBLE, "actor-0")
    assert row.detail.startswith("since there is no library for acting: ")
