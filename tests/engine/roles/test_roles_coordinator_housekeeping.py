"""What a coordinator does on the way: checkpoints, counts that go on, the watchdog."""

from __future__ import annotations

import math

import msgspec
import pytest

from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.messages import (
    ActorLost,
    Alive,
    CheckpointDue,
    Counters,
    Probe,
    ProbeAnswered,
    Report,
    StackWanted,
    Start,
    StepLimitReached,
    Stop,
    Stopped,
    StopRequested,
    TicketVoided,
    source_of,
)
from engine.progress import MeanReturn, Resumed, RunCounters
from engine.roles.commands import Command, EndRun, StartRun, WriteTrace
from engine.roles.coordinator.coordinator import CoordinatorRole
from engine.roles.coordinator.groups import Groups
from engine.roles.coordinator.shutdown import STOP_S
from engine.roles.events import TimerFired
from engine.spec import CheckpointSpec, EvaluationSpec, StopSpec
from engine.testing import make_experiment, only, sent
from engine.trace.records import Evaluation
from engine.trace.records import Event as TraceEvent
from engine.trace.warm_start import TakenWeights, WarmStart
from tests.helpers.engine.coordinator_scenes import (
    ADDRESSES,
    COUNTERS,
    INFO,
    answer,
    episodes,
    finish,
    join,
    notes,
    running,
    told,
)


def test_learners_are_asked_for_checkpoints_with_the_counters_of_the_run():
    experiment = make_experiment(checkpoint=CheckpointSpec(every_s=10.0), policy="tianji")
    coordinator = CoordinatorRole(experiment, INFO, ADDRESSES)
    coordinator.handle(TimerFired(), 0.0)
    for address in ADDRESSES:
        join(coordinator, address)
    coordinator.handle(episodes(1.0, 2.0), 3.0)
    due = [
        now_s
        for now_s in range(1, 40)
        if told(coordinator.handle(TimerFired(), float(now_s)), CheckpointDue) == ["learner-0"]
    ]
    assert due == [10, 20, 30]
    (message,) = sent(coordinator.handle(TimerFired(), 40.0), CheckpointDue)
    assert message.standing.counters.episodes == 2
    assert message.standing.known_return == MeanReturn(mean=1.5, judge="training", version=0)
    assert message.standing.counters.elapsed_s == 40.0


def evaluating(**checkpoint: object) -> CoordinatorRole:
    """A coordinator of a run with an evaluator, which started at 0 s."""
    experiment = msgspec.structs.replace(
        make_experiment(checkpoint=CheckpointSpec(**checkpoint), policy="tianji"),
        evaluation=EvaluationSpec(),
        stop=StopSpec(return_threshold=100.0, judge="evaluation"),
    )
    addresses = (*ADDRESSES, "evaluator-0")
    coordinator = CoordinatorRole(experiment, INFO, addresses)
    coordinator.handle(TimerFired(), 0.0)
    for address in addresses:
        join(coordinator, address, 0.0)
    return coordinator


def evaluated(coordinator: CoordinatorRole, mean: float, now_s: float) -> list[Command]:
    row = Evaluation(
        t_s=now_s,
        evaluator=0,
        version=int(now_s),
        episodes=1,
        return_mean=mean,
        return_min=mean,
        return_max=mean,
        length_mean_env_steps=1.0,
        evaluate_s=0.5,
    )
    return coordinator.handle(Report(address="evaluator-0", records=[row]), now_s)


def test_an_evaluation_better_than_all_before_causes_a_checkpoint_at_once():
    coordinator = evaluating(every_s=60.0)
    scene = [(9, 1.0), (10, 2.0), (12, 9.0), (21, 2.0), (22, 3.0), (40, 2.5), (41, 3.5), (52, 4.0)]
    due = {}
    for now_s, mean in scene:
        for message in sent(evaluated(coordinator, mean, float(now_s)), CheckpointDue):
            assert message.standing.known_return is not None
            assert message.standing.known_return.version == now_s
            due[now_s] = message.standing.known_return.mean
    assert due == {10: 2.0, 22: 3.0, 41: 3.5, 52: 4.0}, (
        "none within 10 s of another, and one that came too early sets no mark"
    )
    assert told(coordinator.handle(TimerFired(), 59.9), CheckpointDue) == []
    assert told(coordinator.handle(TimerFired(), 60.0), CheckpointDue) == ["learner-0"]
    assert told(evaluated(coordinator, 5.0, 69.0), CheckpointDue) == [], "one was just written"
    assert told(evaluated(coordinator, 4.0, 71.0), CheckpointDue) == []
    assert told(evaluated(coordinator, 4.5, 72.0), CheckpointDue) == ["learner-0"]


def test_a_periodic_checkpoint_sets_the_mark_for_the_best():
    coordinator = evaluating(every_s=60.0)
    evaluated(coordinator, 7.0, 5.0)
    assert told(coordinator.handle(TimerFired(), 60.0), CheckpointDue) == ["learner-0"]
    assert told(evaluated(coordinator, 6.0, 80.0), CheckpointDue) == []
    assert told(evaluated(coordinator, 8.0, 81.0), CheckpointDue) == ["learner-0"]


@pytest.mark.parametrize(
    "checkpoint",
    [{"every_s": None}, {"every_s": 60.0, "keep_best": 0}],
    ids=["only-the-last", "no-best"],
)
def test_nobody_who_keeps_no_best_pays_for_it(checkpoint: dict[str, object]):
    coordinator = evaluating(**checkpoint)
    assert told(evaluated(coordinator, 5.0, 30.0), CheckpointDue) == []


@pytest.mark.parametrize("mean", [math.nan, math.inf])
def test_an_evaluation_that_is_no_number_is_not_the_best(mean: float):
    coordinator = evaluating(every_s=60.0)
    row = evaluated(coordinator, mean, 30.0)
    assert told(row, CheckpointDue) == []


def test_an_evaluation_that_ends_the_run_causes_only_the_last_checkpoint():
    coordinator = evaluating(every_s=60.0)
    commands = evaluated(coordinator, 200.0, 30.0)
    assert told(commands, CheckpointDue) == []
    (stop,) = sent(commands, Stop, to="learner-0")
    assert stop.standing.known_return == MeanReturn(mean=200.0, judge="evaluation", version=30)
    assert told(evaluated(coordinator, 300.0, 31.0), CheckpointDue) == []


def test_of_several_groups_the_evaluated_learner_alone_is_asked_for_its_best():
    experiment = msgspec.structs.replace(
        make_experiment(checkpoint=CheckpointSpec(), groups=2, policy="tianji"),
        evaluation=EvaluationSpec(),
    )
    graph = build_graph(read_policy("tianji"), experiment)
    coordinator = CoordinatorRole(experiment, INFO, graph.cut.addresses, (), Groups(graph.cut, {}))
    coordinator.handle(TimerFired(), 0.0)
    for address in graph.cut.addresses:
        join(coordinator, address, 0.0)
    assert told(evaluated(coordinator, 5.0, 30.0), CheckpointDue) == ["learner-0"]
    all_due = sent(coordinator.handle(TimerFired(), 60.0), CheckpointDue)
    assert [message.standing.known_return is None for message in all_due] == [False, True]


def test_a_resumed_run_goes_on_in_time_and_in_number():
    before = RunCounters(
        elapsed_s=100.0,
        env_steps_collected=500,
        env_steps_consumed=400,
        env_steps_dropped=100,
        samples_trained=800,
        episodes=9,
    )
    resumed = Resumed(
        run_id="before",
        checkpoint="v0000000007.json",
        version=7,
        updates=21,
        counters=before,
        resumes=1,
    )
    info = msgspec.structs.replace(INFO, resumed=resumed)
    coordinator = CoordinatorRole(make_experiment(policy="tianji"), info, ADDRESSES)
    coordinator.handle(TimerFired(), 0.0)
    *_, last = [join(coordinator, address) for address in ADDRESSES]
    assert only(last, StartRun).elapsed_s == 100.0
    assert notes(coordinator.handle(Start(origin_ns=0), 100.0)) == ["resumed", "started"]
    coordinator.handle(StopRequested(reason="interrupted"), 105.0)
    summary = finish(coordinator)
    assert summary.resumed_from == "before"
    assert (summary.wall_s, summary.episodes, summary.updates) == (105.0, 9, 21)
    assert summary.env_steps_collected == 500 + 44
    assert summary.env_steps_consumed == 400 + 16
    assert summary.env_steps_dropped == 100
    assert summary.env_steps_in_flight == 28


def test_a_run_that_starts_with_the_weights_of_another_says_so_and_counts_from_zero():
    weights = TakenWeights(
        taken=("a",),
        kept={"b": "is not in that run"},
        num_taken=1,
        num_parameters=3,
        has_learnt=True,
    )
    warm_start = WarmStart(
        run_id="day1", checkpoint="v7", version=7, weights=weights, num_bytes=1, sha256=""
    )
    info = msgspec.structs.replace(INFO, warm_start=warm_start)
    coordinator = CoordinatorRole(make_experiment(policy="tianji"), info, ADDRESSES)
    coordinator.handle(TimerFired(), 0.0)
    *_, last = [join(coordinator, address) for address in ADDRESSES]
    assert only(last, StartRun).elapsed_s == 0.0
    commands = coordinator.handle(Start(origin_ns=0), 0.0)
    assert notes(commands) == ["warm-started", "started"]
    (row, _) = [row for c in commands if isinstance(c, WriteTrace) for row in c.records]
    assert isinstance(row, TraceEvent)
    assert row.detail == warm_start.words
    assert "version 7 of run day1" in row.detail
    coordinator.handle(StopRequested(reason="interrupted"), 5.0)
    assert finish(coordinator).resumed_from is None


def test_a_last_checkpoint_that_was_not_written_fails_the_run():
    coordinator = running()
    coordinator.handle(StopRequested(reason="interrupted"), 5.0)
    stopped = Stopped(address="learner-0", counters=COUNTERS["learner-0"], error="no space")
    coordinator.handle(stopped, 6.0)
    answer(coordinator, "actor-0", "actor-1")
    summary = only(answer(coordinator, "buffer-0"), EndRun).summary
    assert "learner-0: no space" in (summary.error or "")


def test_a_process_that_does_not_answer_is_written_down_and_looked_at():
    coordinator = running()
    asked = coordinator.handle(TimerFired(), 2.0)
    assert sorted(told(asked, Probe)) == sorted(ADDRESSES)
    for address in ADDRESSES[1:]:
        alive = ProbeAnswered(process=address, number=1, longest_turn_s=0.1, work=1)
        coordinator.handle(alive, 2.1)
    for now_s in range(10, 67, 4):
        coordinator.handle(Alive(address="supervisor-0", host="box"), float(now_s))
        commands = coordinator.handle(TimerFired(), float(now_s))
        assert notes(commands) == ([] if now_s < 66 else ["stuck"])
        for address in told(commands, Probe):
            number = sent(commands, Probe, to=address)[0].number
            alive = ProbeAnswered(process=address, number=number, longest_turn_s=0.1, work=1)
            coordinator.handle(alive, float(now_s))
    (wanted,) = sent(commands, StackWanted, to="supervisor-0")
    assert wanted.process == "actor-0"
    assert sent(commands, TicketVoided, to="buffer-0"), "the others need not wait for it"
    back = ProbeAnswered(process="actor-0", number=1, longest_turn_s=61.0, work=2)
    assert notes(coordinator.handle(back, 64.0)) == ["recovered"]


def stopping_without_a_stuck_actor() -> CoordinatorRole:
    """Actor 0 was known to hang and is given up; the buffer is asked for its last word."""
    coordinator = running()
    coordinator.handle(TimerFired(), 2.0)
    for now_s in range(4, 68, 2):
        coordinator.handle(Alive(address="supervisor-0", host="box"), float(now_s))
        commands = coordinator.handle(TimerFired(), float(now_s))
    for address in ADDRESSES[1:]:
        alive = ProbeAnswered(process=address, number=1, longest_turn_s=0.1, work=1)
        coordinator.handle(alive, 68.0)
    coordinator.handle(StepLimitReached(), 69.0)
    answer(coordinator, "actor-1", "learner-0", now_s=70.0)
    commands = coordinator.handle(TimerFired(), 69.0 + STOP_S)
    assert sent(commands, ActorLost, to="buffer-0")
    assert told(commands, Stop) == ["buffer-0"]
    return coordinator


def test_an_actor_that_is_known_to_hang_does_not_fail_the_run_in_the_end():
    coordinator = stopping_without_a_stuck_actor()
    summary = only(answer(coordinator, "buffer-0", now_s=80.0), EndRun).summary
    assert summary.stop_reason == "env_steps"
    assert "actor-0" not in (summary.error or "")


def test_the_last_word_of_an_actor_that_was_given_up_is_not_counted_again():
    coordinator = stopping_without_a_stuck_actor()
    late = Stopped(address="actor-0", counters=COUNTERS["actor-0"], error="it hung")
    assert coordinator.handle(late, 79.5) == []
    known = Counters(staged=16, queued=8, lost_collected={source_of(0, 0): 24})
    commands = coordinator.handle(Stopped(address="buffer-0", counters=known), 80.0)
    summary = only(commands, EndRun).summary
    assert (summary.status, summary.error) == ("ok", None)
    assert summary.env_steps_collected == 44


def test_a_run_that_gets_nowhere_fails_by_name():
    coordinator = running()
    for now_s in range(2, 700, 2):
        coordinator.handle(Alive(address="supervisor-0", host="box"), float(now_s))
        commands = coordinator.handle(TimerFired(), float(now_s))
        if "stopping" in notes(commands):
            break
    assert 600 < now_s < 610
    summary = finish(coordinator)
    assert summary.status == "failed"
    assert "no process has done any work" in (summary.error or "")
    assert summary.stop_reason == "stalled"
