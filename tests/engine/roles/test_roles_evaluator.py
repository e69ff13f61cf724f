"""The evaluator: newest weights when it is due and free, never in anybody's way."""

from __future__ import annotations

import pytest

from engine.messages import Exit, Report, Start, Stop, Stopped, WeightsArrived, WeightsRequested
from engine.roles.commands import AbandonEvaluation, Evaluate, LoadWeights, Quit, Wake
from engine.roles.evaluator import EvaluatorRole
from engine.roles.events import Evaluated, TimerFired
from engine.spec import EvaluationSpec
from engine.testing import has, make_weights, only, sent

DONE = Evaluated((1.0, 4.0), (10, 20))


def make_role(**spec: float) -> EvaluatorRole:
    role = EvaluatorRole(0, EvaluationSpec(episodes=2, **spec), "learner-0")
    (request,) = sent(role.handle(Start(origin_ns=0), 0.0), WeightsRequested, "learner-0")
    assert request.held_version == -1
    return role


def test_the_first_weights_are_evaluated_at_once_and_reported():
    role = make_role(every_s=5.0)
    commands = role.handle(WeightsArrived(make_weights(0)), 1.0)
    assert only(commands, LoadWeights).weights.version == 0
    assert has(commands, Evaluate)
    (report,) = sent(role.handle(DONE, 3.0), Report, "coordinator")
    (row,) = report.records
    assert (row.version, row.episodes, row.evaluate_s, row.t_s) == (0, 2, 2.0, 3.0)
    assert (row.return_mean, row.return_min, row.return_max) == (2.5, 1.0, 4.0)
    assert row.length_mean_env_steps == 15.0


def test_it_waits_until_time_has_passed_and_then_takes_the_newest():
    role = make_role(every_s=5.0)
    role.handle(WeightsArrived(make_weights(0)), 1.0)
    role.handle(DONE, 2.0)
    for version in (1, 2, 3):
        commands = role.handle(WeightsArrived(make_weights(version)), 2.0 + version / 10)
        assert not has(commands, Evaluate)
        assert only(commands, Wake).after_s == pytest.approx(4.0 - version / 10)
    assert not has(role.handle(TimerFired(), 5.9), Evaluate)
    commands = role.handle(TimerFired(), 6.0)
    assert only(commands, LoadWeights).weights.version == 3


def test_it_waits_for_so_many_versions():
    role = make_role(every_s=None, every_versions=10)
    role.handle(WeightsArrived(make_weights(0)), 0.0)
    role.handle(DONE, 1.0)
    assert not has(role.handle(WeightsArrived(make_weights(9)), 2.0), Evaluate)
    assert has(role.handle(WeightsArrived(make_weights(10)), 2.0), Evaluate)


def test_weights_that_come_while_it_plays_wait():
    role = make_role(every_s=1.0)
    role.handle(WeightsArrived(make_weights(0)), 0.0)
    assert role.handle(WeightsArrived(make_weights(5)), 0.5) == []
    commands = role.handle(DONE, 2.0)
    assert only(commands, LoadWeights).weights.version == 5


def test_the_same_weights_are_not_evaluated_twice():
    role = make_role(every_s=1.0)
    role.handle(WeightsArrived(make_weights(7)), 0.0)
    role.handle(DONE, 0.5)
    assert not has(role.handle(WeightsArrived(make_weights(7)), 9.0), Evaluate)
    assert not has(role.handle(TimerFired(), 9.0), Evaluate)


def test_a_lost_request_for_weights_is_repeated():
    role = make_role()
    assert sent(role.handle(TimerFired(), 2.0), WeightsRequested, "learner-0")


def test_it_stops_in_the_middle_of_an_evaluation():
    role = make_role()
    role.handle(WeightsArrived(make_weights(0)), 0.0)
    commands = role.handle(Stop(), 1.0)
    assert has(commands, AbandonEvaluation)
    assert sent(commands, Stopped, "coordinator")
    assert role.handle(WeightsArrived(make_weights(1)), 9.0) == []
    assert has(role.handle(Exit(), 9.0), Quit)
