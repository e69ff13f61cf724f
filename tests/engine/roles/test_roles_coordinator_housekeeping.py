"""What a coordinator does on the way: checkpoints, counts that go on, the watchdog."""

from __future__ import annotations

import msgspec

from engine.messages import (
    ActorLost,
    Alive,
    CheckpointDue,
    Counters,
    Probe,
    ProbeAnswered,
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
from engine.roles.commands import EndRun, StartRun
from engine.roles.coordinator.coordinator import CoordinatorRole
from engine.roles.coordinator.shutdown import STOP_S
from engine.roles.events import TimerFired
from engine.spec import CheckpointSpec
from engine.testing import make_experiment, only, sent
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
