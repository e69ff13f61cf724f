"""Steps by a graph do what eager ones do; what cannot be recorded stays eager."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch

from engine.blueprint import make_blueprint
from engine.compilation.graphed import GraphedSteps
from engine.devices.cpu import CpuDevice
from engine.devices.interface import NotCapturableError
from tests.helpers.engine.small_learners import batch_of, experiment

TOLERANCE = 1e-5
NAMES = ("ppo", "impala", "dqn", "sac", "td3")


class CountingDevice(CpuDevice):
    """Counts what is recorded and how often it is replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.num_captures = self.num_replays = 0

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        replay = super().capture(work)
        self.num_captures += 1

        def counted() -> None:
            self.num_replays += 1
            replay()

        return counted


class StubbornDevice(CpuDevice):
    """Records nothing, though it has begun to."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        raise NotCapturableError("the loss reads a value")


def states(name: str):
    blueprint = make_blueprint(experiment(name))
    return blueprint, [blueprint.algorithm.init(3) for _ in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_takes_the_steps_of_eager_mode(name: str):
    blueprint, (eager, graphed) = states(name)
    device, words = CountingDevice(), []
    graphed.steps = GraphedSteps(device, words.append)
    for number in range(4):
        batch = batch_of(blueprint, number)
        wanted = blueprint.algorithm.update(eager, batch)
        found = blueprint.algorithm.update(graphed, batch)
        assert found.metrics == pytest.approx(wanted.metrics, rel=1e-3, abs=TOLERANCE)
        torch.testing.assert_close(
            graphed.weights.vector, eager.weights.vector, rtol=0, atol=TOLERANCE
        )
        assert graphed.weights.steps.count() == eager.weights.steps.count()
        assert graphed.weights.steps.metrics == pytest.approx(eager.weights.steps.metrics, rel=1e-4)
    assert device.num_captures == 1
    assert device.num_replays >= 4
    assert words == ["optimiser steps: one graph each"]


def test_a_schedule_reaches_steps_that_were_recorded_before():
    base = experiment("ppo")
    changing = {"learning_rate_final": 1e-5, "entropy_coefficient_final": 0.5}
    changed = msgspec.structs.replace(base, algorithm={**base.algorithm, **changing})
    blueprint = make_blueprint(changed)
    eager, graphed = (blueprint.algorithm.init(3) for _ in range(2))
    device = CountingDevice()
    graphed.steps = GraphedSteps(device, lambda _: None)
    for progress in (0.0, 0.5, 1.0):
        eager.progress = graphed.progress = progress
        for state in (eager, graphed):
            blueprint.algorithm.update(state, batch_of(blueprint, 1))
        torch.testing.assert_close(
            graphed.weights.vector, eager.weights.vector, rtol=0, atol=TOLERANCE
        )
    assert device.num_captures == 1


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_what_cannot_be_recorded_stays_eager_to_the_last_bit(name: str):
    blueprint, (eager, other) = states(name)
    words: list[str] = []
    other.steps = GraphedSteps(StubbornDevice(), words.append)
    for number in range(3):
        for state in (eager, other):
            blueprint.algorithm.update(state, batch_of(blueprint, number))
    assert torch.equal(other.weights.vector, eager.weights.vector)
    assert words == ["optimiser steps: eager, not a graph: the loss reads a value"]


def test_steps_of_several_learners_are_not_recorded():
    blueprint, (_, state) = states("ppo")
    device, words = CountingDevice(), []
    state.steps = GraphedSteps(device, words.append)
    state.weights.complete = lambda gradient: None
    blueprint.algorithm.update(state, batch_of(blueprint, 1))
    assert device.num_captures == 0
    assert "over several learners" in words[0]


def test_a_call_that_does_not_fit_is_eager_and_the_next_is_a_graph_again():
    blueprint, (eager, graphed) = states("impala")
    device = CountingDevice()
    graphed.steps = GraphedSteps(device, lambda _: None)
    whole = batch_of(blueprint, 1)
    half = {name: values[:, :4].contiguous() for name, values in whole.items()}
    for batch in (whole, half, whole):
        for state in (eager, graphed):
            blueprint.algorithm.update(state, batch)
    torch.testing.assert_close(graphed.weights.vector, eager.weights.vector, rtol=0, atol=TOLERANCE)
    assert device.num_replays == 2


def test_a_step_that_is_not_finite_is_skipped_by_a_graph_too():
    blueprint, (_, state) = states("impala")
    state.steps = GraphedSteps(CpuDevice(), lambda _: None)
    batch = batch_of(blueprint, 1)
    blueprint.algorithm.update(state, batch)
    before = state.weights.vector.detach().clone()
    state.weights.steps.count()
    batch["reward"] = torch.full_like(batch["reward"], float("inf"))
    blueprint.algorithm.update(state, batch)
    assert state.weights.steps.count() == (1, 1)
    learning = [p for p in state.network.parameters() if p.requires_grad]
    assert all(torch.isfinite(p).all() for p in learning)
    assert not torch.isnan(before).any()
