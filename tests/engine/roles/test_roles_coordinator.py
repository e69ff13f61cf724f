"""The coordinator: when a run starts and why it stops."""

from __future__ import annotations

import pytest

from engine import PROTOCOL_VERSION
from engine.graph.cut import single_cut
from engine.messages import (
    COORDINATOR,
    Alive,
    Exit,
    Joined,
    Report,
    Start,
    StepLimitReached,
    Stop,
    StopRequested,
    TicketGranted,
    TrackerFailed,
)
from engine.roles.commands import EndRun, Quit, ShowProgress, StartRun, Wake, WriteTrace
from engine.roles.coordinator.coordinator import JOIN_S, PROGRESS_S, CoordinatorRole
from engine.roles.coordinator.groups import Groups
from engine.roles.coordinator.membership import words_of_missing
from engine.roles.events import TimerFired
from engine.spec import StopSpec
from engine.testing import has, make_experiment, only, sent
from engine.trace.records import Episode
from engine.trace.records import Event as TraceEvent
from tests.helpers.engine.coordinator_scenes import (
    ADDRESSES,
    INFO,
    WORKERS,
    answer,
    episodes,
    exited,
    finish,
    join,
    make_coordinator,
    notes,
    production,
    running,
    told,
)


def test_the_run_starts_once_everybody_has_joined():
    coordinator = make_coordinator()
    for address in ADDRESSES[:-1]:
        assert not has(join(coordinator, address), StartRun)
    commands = join(coordinator, ADDRESSES[-1])
    assert only(commands, StartRun).addresses == (COORDINATOR, *ADDRESSES, "supervisor-0")
    assert notes(commands) == ["joined"]


def test_a_tracker_that_failed_is_an_event_and_stops_nothing():
    commands = running().handle(TrackerFailed(tool="wandb", cause="was killed by SIGKILL"), 3.0)
    (row,) = only(commands, WriteTrace).records
    assert isinstance(row, TraceEvent)
    assert (row.kind, row.detail, row.t_s) == (
        "tracker-failed",
        "wandb was killed by SIGKILL",
        3.0,
    )
    assert len(commands) == 1


def test_the_trace_says_when_its_time_zero_was():
    commands = running().handle(Start(origin_ns=123456789), 0.0)
    (row,) = only(commands, WriteTrace).records
    assert (row.kind, row.t_s) == ("started", 0.0)
    assert row.origin_s == pytest.approx(0.123456789)


def test_joining_twice_is_no_substitute_for_a_missing_role():
    coordinator = make_coordinator()
    for _ in range(2):
        for address in ADDRESSES[:-1]:
            assert not has(join(coordinator, address), StartRun)


def test_who_is_late_to_join_is_named():
    coordinator = make_coordinator()
    join(coordinator, "learner-0")
    join(coordinator, "buffer-0")
    assert told(coordinator.handle(TimerFired(), JOIN_S - 0.1), Stop) == []
    commands = coordinator.handle(TimerFired(), JOIN_S)
    assert told(commands, Stop) == ["learner-0"]
    answer(coordinator, "learner-0")
    commands = answer(coordinator, "buffer-0")
    summary = only(commands, EndRun).summary
    assert summary.status == "failed"
    assert summary.error == "actor-0, actor-1 did not join within 60 s"
    assert summary.stop_reason == "join-deadline"
    assert told(commands, Exit) == ["supervisor-0", "buffer-0", "learner-0"]


PLACED = {
    **{"coordinator": "one", "learner-0": "one", "buffer-0": "one", "supervisor-0": "one"},
    **{"actor-0": "two", "supervisor-1": "two", "actor-1": "three", "supervisor-2": "three"},
}
NOTHING = "nothing was heard from there; a firewall may drop what goes from there to one"


@pytest.mark.parametrize(
    ("silent", "words"),
    [
        (
            {"actor-1", "supervisor-2"},
            f"actor-1, supervisor-2 on three did not join within 60 s\n    three: {NOTHING}",
        ),
        (
            {"actor-0", "actor-1", "supervisor-1", "supervisor-2"},
            "actor-1, supervisor-2 on three; actor-0, supervisor-1 on two did not join within 60 s"
            f"\n    three: {NOTHING}\n    two: {NOTHING}",
        ),
        (
            {"actor-0"},
            "actor-0 on two did not join within 60 s"
            "\n    two: its supervisor was heard, so the network path works",
        ),
        (
            {"buffer-0"},
            "buffer-0 on one did not join within 60 s\n    one: its supervisor was heard, and"
            " learner-0 joined, so the network path works",
        ),
        (
            {"supervisor-1"},
            "supervisor-1 on two did not join within 60 s"
            "\n    two: actor-0 joined, but its supervisor was not heard",
        ),
        (
            {"buffer-0", "learner-0", "supervisor-0"},
            "buffer-0, learner-0, supervisor-0 on one did not join within 60 s"
            "\n    one: nothing was heard from there",
        ),
    ],
)
def test_the_hosts_of_who_is_late_are_named_with_what_was_heard_from_there(silent, words):
    supervisors = ("supervisor-0", "supervisor-1", "supervisor-2")
    experiment = make_experiment(policy="tianji")
    coordinator = CoordinatorRole(experiment, INFO, ADDRESSES, supervisors, host_of=PLACED)
    coordinator.handle(TimerFired(), 0.0)
    for name in supervisors:
        if name not in silent:
            coordinator.handle(Alive(address=name, host=PLACED[name]), 0.5)
    for address in ADDRESSES:
        if address not in silent:
            joined = Joined(address=address, host=PLACED[address], pid=1, protocol=PROTOCOL_VERSION)
            coordinator.handle(joined, 1.0)
    commands = coordinator.handle(TimerFired(), JOIN_S)
    commands += answer(coordinator, *(name for name in WORKERS if name not in silent))
    commands += answer(coordinator, *({"buffer-0"} - silent))
    assert only(commands, EndRun).summary.error == words


def test_of_many_on_one_host_some_are_named():
    actors = [f"actor-{number}" for number in range(1000)]
    words = words_of_missing(actors, [], [], dict.fromkeys((*actors, COORDINATOR), "big"), 60.0)
    assert len(words) < 200
    assert "actor-1, " in words
    assert " and 992 more on big did not join" in words


def test_roles_of_one_process_are_where_it_is():
    groups = Groups(single_cut(make_experiment(policy="tianji")), {"learner-0": "heart-0"})
    placed = {"coordinator": "one", "heart-0": "two"}
    coordinator = CoordinatorRole(
        make_experiment(), INFO, ("learner-0",), groups=groups, host_of=placed
    )
    commands = coordinator.handle(TimerFired(), JOIN_S)
    assert "learner-0 on two did not join" in str(only(commands, EndRun).summary.error)


def test_the_exit_of_a_process_of_several_roles_names_its_host():
    groups = Groups(single_cut(make_experiment(policy="tianji")), {"learner-0": "heart-0"})
    coordinator = CoordinatorRole(make_experiment(), INFO, ("learner-0",), groups=groups)
    coordinator.handle(TimerFired(), 0.0)
    join(coordinator, "learner-0")
    commands = coordinator.handle(exited("heart-0"), 2.0)
    rows = [
        row for command in commands if isinstance(command, WriteTrace) for row in command.records
    ]
    (gone,) = [row for row in rows if isinstance(row, TraceEvent) and row.kind == "exited"]
    assert (gone.role, gone.host) == ("heart-0", "box")


def test_if_nobody_joins_the_run_ends_at_once():
    commands = make_coordinator().handle(TimerFired(), JOIN_S)
    assert only(commands, EndRun).summary.status == "failed"
    assert has(commands, Quit)


def test_the_step_limit_stops_the_run():
    coordinator = running()
    commands = coordinator.handle(StepLimitReached(), 5.0)
    assert told(commands, Stop) == list(WORKERS)
    summary = finish(coordinator)
    assert (summary.status, summary.stop_reason) == ("ok", "env_steps")
    assert summary.wall_s == 5.0


def test_the_time_limit_stops_the_run_even_without_reports():
    coordinator = running(StopSpec(seconds=5.0))
    assert told(coordinator.handle(TimerFired(), 4.9), Stop) == []
    assert told(coordinator.handle(TimerFired(), 5.0), Stop) == list(WORKERS)
    assert finish(coordinator).stop_reason == "seconds"


def test_the_time_limit_does_not_count_the_time_before_the_start():
    coordinator = make_coordinator(StopSpec(seconds=5.0))
    assert told(coordinator.handle(TimerFired(), 6.0), Stop) == []


def test_the_return_threshold_stops_the_run_once_the_window_is_full():
    coordinator = running(StopSpec(return_threshold=10.0, return_window=3))
    assert told(coordinator.handle(episodes(50.0, 50.0), 2.0), Stop) == []
    assert told(coordinator.handle(episodes(-99.0), 3.0), Stop) == []
    assert told(coordinator.handle(episodes(50.0, 50.0), 4.0), Stop) == []
    assert told(coordinator.handle(episodes(-70.0), 5.0), Stop) == list(WORKERS)
    summary = finish(coordinator)
    assert (summary.reached, summary.time_to_threshold_s) == (True, 5.0)
    assert summary.stop_reason == "return_threshold"
    assert summary.return_mean == 10.0
    assert summary.episodes == 6


def test_a_threshold_that_is_not_reached_is_said_so():
    coordinator = running(StopSpec(env_steps=10, return_threshold=10.0))
    coordinator.handle(StepLimitReached(), 5.0)
    summary = finish(coordinator)
    assert (summary.reached, summary.time_to_threshold_s) == (False, None)


def test_episodes_are_written_with_how_far_the_run_was():
    coordinator = running()
    produced = production(0, 8)
    report = Report(address="actor-0", records=[produced, *episodes(3.0).records])
    written = only(coordinator.handle(report, 2.0), WriteTrace).records
    assert written[0] is produced
    assert isinstance(written[1], Episode)
    assert written[1].env_steps_collected == 8


@pytest.mark.parametrize("reason", ["interrupted", "controller-lost"])
def test_a_request_stops_the_run_in_good_order(reason: str):
    coordinator = running()
    commands = coordinator.handle(StopRequested(reason=reason), 5.0)
    assert told(commands, Stop) == list(WORKERS)
    summary = finish(coordinator)
    assert (summary.status, summary.stop_reason) == ("interrupted", reason)


def test_a_request_before_the_start_stops_those_that_have_joined():
    coordinator = make_coordinator()
    join(coordinator, "actor-0")
    assert told(coordinator.handle(StopRequested(reason="interrupted"), 2.0), Stop) == ["actor-0"]
    commands = answer(coordinator, "actor-0")
    assert only(commands, EndRun).summary.status == "interrupted"


def test_a_second_reason_to_stop_changes_nothing():
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    assert told(coordinator.handle(StepLimitReached(), 5.1), Stop) == []
    assert told(coordinator.handle(StopRequested(reason="interrupted"), 5.2), Stop) == []
    summary = finish(coordinator)
    assert (summary.status, summary.stop_reason, summary.wall_s) == ("ok", "env_steps", 5.0)


def test_the_buffer_is_stopped_last_and_told_what_to_expect():
    coordinator = running()
    coordinator.handle(StepLimitReached(), 5.0)
    assert answer(coordinator, "actor-1", "learner-0") == []
    (stop,) = sent(answer(coordinator, "actor-0"), Stop, to="buffer-0")
    assert stop.sent_rollouts == {"actor-0": 3, "actor-1": 2}
    assert stop.consumed_env_steps == 16


def test_every_tick_shows_progress_and_asks_for_the_next():
    coordinator = running(StopSpec(env_steps=100, seconds=50.0, return_threshold=9.0))
    coordinator.handle(episodes(3.0, 5.0), 2.0)
    commands = coordinator.handle(TimerFired(), 3.0)
    assert Wake(PROGRESS_S) in commands
    progress = only(commands, ShowProgress).progress
    assert (progress.phase, progress.t_s) == ("running", 3.0)
    assert (progress.episodes, progress.return_mean, progress.threshold) == (2, 4.0, 9.0)
    assert set(progress.roles) == set(ADDRESSES)


def test_what_is_not_meant_for_it_shows_that_the_program_is_wrong():
    with pytest.raises(RuntimeError, match="cannot handle TicketGranted"):
        running().handle(TicketGranted(ticket=0, min_version=0), 1.0)
    assert CoordinatorRole(make_experiment(), INFO, ADDRESSES).address == COORDINATOR
