"""The coordinator: how a run ends, and what is said of it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.messages import (
    ActorLost,
    Alive,
    Counters,
    Exit,
    HostGone,
    ProbeAnswered,
    Report,
    StepLimitReached,
    Stop,
    Stopped,
    StopRequested,
    source_of,
)
from engine.roles.commands import EndRun, Quit, Send, WriteTrace
from engine.roles.coordinator.coordinator import CoordinatorRole
from engine.roles.coordinator.liveness import HOST_LOST_S
from engine.roles.coordinator.shutdown import MAX_STOP_S, STOP_S
from engine.roles.coordinator.totals import RunTotals
from engine.roles.coordinator.watchdog import PATIENCE
from engine.roles.events import TimerFired
from engine.testing import has, make_experiment, only
from engine.trace.records import UNCOUNTED, UNREPORTED, Event, Ledger, Production, Record
from engine.trace.summary import Summary
from tests.helpers.engine.coordinator_scenes import (
    ADDRESSES,
    WORKERS,
    answer,
    consumption,
    exited,
    notes,
    production,
    running,
    told,
)


def test_at_the_end_everything_is_durable_before_anybody_is_let_go():
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    answer(coordinator, *WORKERS)
    commands = answer(coordinator, "buffer-0", now_s=7.0)
    kinds = [type(command) for command in commands]
    assert kinds == [WriteTrace, WriteTrace, EndRun, *[Send] * 5, Quit]
    assert told(commands, Exit) == ["supervisor-0", *ADDRESSES]
    ledger = Ledger(t_s=7.0, collected=44, consumed=16, dropped=0, in_flight=28)
    assert commands[0] == WriteTrace((ledger,))
    summary = only(commands, EndRun).summary
    assert summary.status == "ok"
    assert summary.env_steps_collected == 44
    assert summary.env_steps_in_flight == 28
    assert coordinator.handle(TimerFired(), 8.0) == []


def test_books_that_do_not_balance_fail_the_run():
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    answer(coordinator, *WORKERS)
    wrong = Stopped(address="buffer-0", counters=Counters(queued=7, staged=16))
    summary = only(coordinator.handle(wrong, 6.0), EndRun).summary
    assert summary.status == "failed"
    assert summary.error is not None
    assert "the ledger is 1 env step off" in summary.error


def test_a_role_s_death_fails_the_run_with_host_cause_and_log():
    coordinator = running()
    commands = coordinator.handle(exited("actor-1"), 5.0)
    assert told(commands, Stop) == ["actor-0", "learner-0"]
    assert notes(commands) == ["exited", "stopping"]
    answer(coordinator, "actor-0", "learner-0")
    commands = answer(coordinator, "buffer-0")
    summary = only(commands, EndRun).summary
    assert (summary.status, summary.stop_reason) == ("failed", "role-exited")
    assert summary.error is not None
    for part in ("actor-1", "box", "killed by SIGKILL", "\n    last words"):
        assert part in summary.error
    assert told(commands, Exit) == ["supervisor-0", "actor-0", "buffer-0", "learner-0"]


def test_what_a_dead_actor_had_sent_but_not_reported_is_in_the_last_count():
    coordinator = running()
    reported = production(1, 16)
    coordinator.handle(Report(address="actor-1", records=[reported]), 4.0)
    commands = coordinator.handle(exited("actor-1"), 5.0)
    assert Send("buffer-0", ActorLost(actor="actor-1", epoch=0, collected=16)) in commands
    answer(coordinator, "actor-0", "learner-0")
    known = Counters(queued=12, staged=16, lost_collected={source_of(1, 0): 20})
    commands = coordinator.handle(Stopped(address="buffer-0", counters=known), 7.0)
    ledger = Ledger(t_s=7.0, collected=44, consumed=16, dropped=0, in_flight=28)
    row, last = commands[0].records
    assert last == ledger
    assert (row.actor, row.env_steps, row.env_steps_total) == (1, 4, 20)
    summary = only(commands, EndRun).summary
    assert "actor-1" in summary.error
    assert "ledger" not in summary.error


def test_of_several_deaths_the_first_is_the_cause():
    coordinator = running()
    coordinator.handle(exited("learner-0", "killed by SIGSEGV"), 5.0)
    coordinator.handle(exited("actor-1"), 5.1)
    coordinator.handle(exited("buffer-0"), 5.2)
    commands = answer(coordinator, "actor-0")
    summary = only(commands, EndRun).summary
    assert summary.error is not None
    assert "learner-0" in summary.error
    assert "SIGSEGV" in summary.error
    assert "actor-1" not in summary.error


@pytest.mark.parametrize("address", ["learner-0", "buffer-0"])
def test_a_death_while_stopping_of_who_has_more_to_do_fails_the_run_all_the_same(address: str):
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    commands = coordinator.handle(exited(address), 5.1)
    for other in (*WORKERS, "buffer-0"):
        if other != address and not has(commands, EndRun):
            commands = answer(coordinator, other)
    summary = only(commands, EndRun).summary
    assert (summary.status, summary.stop_reason) == ("failed", "env_steps")
    assert summary.error is not None
    assert address in summary.error


@pytest.mark.parametrize("cause", ["killed by SIGKILL", "ended with code 0"])
def test_an_actor_that_dies_before_its_last_word_fails_no_run_that_has_reached_its_end(cause: str):
    coordinator = running()
    coordinator.handle(Report(address="actor-1", records=[production(1, 16)]), 4.0)
    coordinator.handle(StepLimitReached(), 5.0)
    commands = coordinator.handle(exited("actor-1", cause), 5.1)
    assert notes(commands) == ["exited"]
    assert Send("buffer-0", ActorLost(actor="actor-1", epoch=0, collected=16)) in commands
    answer(coordinator, "actor-0", "learner-0")
    known = Counters(queued=12, staged=16, lost_collected={source_of(1, 0): 20})
    commands = coordinator.handle(Stopped(address="buffer-0", counters=known), 7.0)
    summary = only(commands, EndRun).summary
    assert (summary.status, summary.error) == ("ok", None)
    assert (summary.env_steps_collected, summary.env_steps_in_flight) == (44, 28)


def test_the_last_actor_to_die_lets_the_end_go_on():
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    answer(coordinator, "actor-0", "learner-0")
    assert told(coordinator.handle(exited("actor-1"), 5.1), Stop) == ["buffer-0"]


def test_an_interrupted_run_stays_interrupted_whatever_dies_meanwhile():
    coordinator = running()
    coordinator.handle(StopRequested(reason="interrupted"), 5.0)
    coordinator.handle(exited("actor-1"), 5.1)
    answer(coordinator, "actor-0", "learner-0")
    summary = only(answer(coordinator, "buffer-0"), EndRun).summary
    assert summary.status == "interrupted"


def test_a_role_that_has_said_its_last_word_may_be_gone():
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    answer(coordinator, *WORKERS)
    coordinator.handle(exited("actor-1", "ended with code 0"), 6.0)
    assert only(answer(coordinator, "buffer-0"), EndRun).summary.status == "ok"


def test_who_does_not_stop_in_time_is_named():
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    answer(coordinator, "actor-0", "actor-1")
    assert told(coordinator.handle(TimerFired(), 5.0 + STOP_S - 0.1), Stop) == []
    commands = coordinator.handle(TimerFired(), 5.0 + STOP_S)
    assert told(commands, Stop) == ["buffer-0"]
    commands = answer(coordinator, "buffer-0", now_s=16.0)
    summary = only(commands, EndRun).summary
    assert summary.error == "learner-0 did not stop within 10 s"
    assert told(commands, Exit) == ["supervisor-0", "actor-0", "actor-1", "buffer-0"]


def test_an_actor_that_does_not_stop_in_time_is_named_and_done_without():
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    answer(coordinator, "actor-0", "learner-0")
    commands = coordinator.handle(TimerFired(), 5.0 + STOP_S)
    assert notes(commands) == ["given-up"]
    assert told(commands, Stop) == ["buffer-0"]
    assert told(commands, ActorLost) == ["buffer-0"]
    known = Counters(queued=12, staged=16, lost_collected={source_of(1, 0): 20})
    commands = coordinator.handle(Stopped(address="buffer-0", counters=known), 16.0)
    assert only(commands, EndRun).summary.status == "ok"
    assert told(commands, Exit) == ["supervisor-0", "actor-0", "buffer-0", "learner-0"]


def slow_learner(longest_turn_s: float) -> CoordinatorRole:
    """It stops, and the learner's updates take long."""
    coordinator = running()
    coordinator.handle(TimerFired(), 2.0)
    for address in ADDRESSES:
        turn_s = longest_turn_s if address == "learner-0" else 0.1
        said = ProbeAnswered(process=address, number=1, longest_turn_s=turn_s, work=1)
        coordinator.handle(said, 3.0)
    coordinator.handle(StepLimitReached(), 5.0)
    return coordinator


def error_when_it_waits_no_longer(
    coordinator: CoordinatorRole, begin_s: float, end_s: float
) -> str | None:
    """Goes on in steps of a second; None if it still waits in the end."""
    now_s = begin_s
    while now_s < end_s:
        now_s += 1.0
        coordinator.handle(Alive(address="supervisor-0", host="box"), now_s)
        if told(coordinator.handle(TimerFired(), now_s), Stop):
            return only(answer(coordinator, "buffer-0", now_s=now_s), EndRun).summary.error
    return None


@pytest.mark.parametrize(
    ("longest_turn_s", "limit_s"), [(1.0, STOP_S), (20.0, PATIENCE * 20.0), (500.0, MAX_STOP_S)]
)
def test_who_takes_long_for_a_turn_has_longer_to_stop(longest_turn_s: float, limit_s: float):
    coordinator = slow_learner(longest_turn_s)
    answer(coordinator, "actor-0", "actor-1")
    error = error_when_it_waits_no_longer(coordinator, 5.0, 1000.0)
    assert error == f"learner-0 did not stop within {limit_s:.0f} s"


def test_once_the_slow_ones_have_stopped_the_others_have_no_longer_than_ever():
    coordinator = slow_learner(20.0)
    answer(coordinator, "actor-0")
    assert error_when_it_waits_no_longer(coordinator, 5.0, 30.0) is None
    answer(coordinator, "learner-0", now_s=30.0)
    assert told(coordinator.handle(TimerFired(), 40.0), Stop) == ["buffer-0"]


def test_a_buffer_that_says_that_it_still_saves_its_store_is_waited_for_within_bounds():
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    answer(coordinator, *WORKERS)
    reports, now_s = 0, 5.0
    while not has(coordinator.handle(TimerFired(), now_s), EndRun):
        coordinator.handle(Report(address="buffer-0", records=[]), now_s)
        now_s, reports = now_s + 4.0, reports + 1
        assert now_s < 5.0 + MAX_STOP_S + 2 * STOP_S
    assert now_s > MAX_STOP_S


def test_nobody_waits_for_a_slow_one_whose_host_has_fallen_silent():
    coordinator = slow_learner(20.0)
    answer(coordinator, "actor-0", "actor-1")
    coordinator.handle(Alive(address="supervisor-0", host="box"), 6.0)
    assert told(coordinator.handle(TimerFired(), 6.0 + HOST_LOST_S), Stop) == []
    assert told(coordinator.handle(TimerFired(), 6.1 + HOST_LOST_S), Stop) == ["buffer-0"]


def test_a_buffer_that_does_not_stop_has_a_deadline_of_its_own():
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    answer(coordinator, *WORKERS, now_s=14.0)
    assert not has(coordinator.handle(TimerFired(), 15.5), EndRun)
    commands = coordinator.handle(TimerFired(), 14.0 + STOP_S)
    assert only(commands, EndRun).summary.error == "buffer-0 did not stop within 10 s"


def lost_with_all_they_had_to_say(*rows: Record) -> tuple[list[Record], Summary]:
    """The last rows of a run whose roles were all lost after these."""
    coordinator = running()
    coordinator.handle(Report(address="buffer-0", records=list(rows)), 4.0)
    commands = coordinator.handle(HostGone(host="box"), 5.0)
    written = [row for c in commands if isinstance(c, WriteTrace) for row in c.records]
    return written, only(commands, EndRun).summary


def test_what_a_lost_buffer_had_counted_stays_collected_although_no_actor_has_said_so():
    counted = Ledger(t_s=3.0, collected=40, consumed=0, dropped=6, in_flight=34)
    rows, summary = lost_with_all_they_had_to_say(production(1, 16), counted)
    (last,) = (row for row in rows if isinstance(row, Ledger))
    assert (last.collected, last.consumed, last.dropped, last.in_flight) == (40, 0, 6, 34)
    (made,) = (row for row in rows if isinstance(row, Production))
    assert (made.sequence, made.env_steps) == (UNREPORTED, 24)
    assert summary.env_steps_collected == 40
    assert [row.role for row in rows if isinstance(row, Event) and row.kind == UNCOUNTED] == [
        "buffer-0"
    ]


def test_what_a_lost_learner_had_trained_stays_consumed_and_so_was_collected():
    trained = consumption(0, 32)
    rows, summary = lost_with_all_they_had_to_say(production(1, 16), trained)
    (last,) = (row for row in rows if isinstance(row, Ledger))
    assert (last.collected, last.consumed, last.dropped, last.in_flight) == (32, 32, 0, 0)
    (made,) = (row for row in rows if isinstance(row, Production))
    assert made.env_steps == 16
    assert summary.env_steps_in_flight == 0


def test_what_only_the_buffer_knows_to_be_trained_is_in_flight_until_the_learner_says_so():
    """Its own rows may be lost with it: then nothing that was counted as consumed falls."""
    totals = RunTotals(make_experiment())
    acknowledged = Ledger(t_s=3.0, collected=40, consumed=32, dropped=0, in_flight=8)
    totals.add(consumption(0, 16), 3.0)
    before = totals.add(acknowledged, 3.0)
    assert isinstance(before, Ledger)
    assert (before.collected, before.consumed, before.in_flight) == (40, 16, 24)
    totals.add(replace(consumption(0, 16), env_steps_total=32), 3.0)
    after = totals.add(acknowledged, 3.0)
    assert isinstance(after, Ledger)
    assert (after.collected, after.consumed, after.in_flight) == (40, 32, 8)


def test_nothing_is_uncounted_where_nothing_was_collected_or_the_buffer_has_spoken():
    rows, summary = lost_with_all_they_had_to_say()
    assert [row for row in rows if isinstance(row, Production)] == []
    assert [row.kind for row in rows if isinstance(row, Event)].count(UNCOUNTED) == 0
    assert summary.env_steps_collected == 0
    coordinator = running()
    coordinator.handle(exited("actor-1"), 5.0)
    answer(coordinator, "actor-0", "learner-0")
    assert UNCOUNTED not in notes(answer(coordinator, "buffer-0"))
