"""Restarts, lost hosts and the ledger, decided without a process or a clock."""

from __future__ import annotations

import pytest

from engine import PROTOCOL_VERSION
from engine.config.config_file import load_experiment
from engine.messages import (
    COORDINATOR,
    ActorLost,
    Alive,
    Counters,
    Exit,
    HostGone,
    Joined,
    Report,
    Restart,
    RoleExited,
    RolloutArrived,
    Start,
    Stop,
    Stopped,
    StopRequested,
    TicketGranted,
    TicketRequested,
)
from engine.roles.buffer import BufferRole
from engine.roles.commands import Command, EndRun, Send, StartRun, WriteTrace
from engine.roles.coordinator.coordinator import CoordinatorRole
from engine.roles.coordinator.liveness import HOST_LOST_S
from engine.roles.coordinator.totals import RunInfo
from engine.roles.events import TimerFired
from engine.rollout import Rollout, RolloutInfo
from engine.spec import StalenessSpec
from engine.trace.records import Event, Production
from tianji_cli.config.lookup import find_file

ROLES = ("actor-0", "actor-1", "buffer-0", "learner-0")
HOST_OF = {"actor-0": "two", "actor-1": "three", "buffer-0": "one", "learner-0": "one"}
SUPERVISORS = {"one": "supervisor-0", "two": "supervisor-1", "three": "supervisor-2"}


def coordinator(restarts: int = 3) -> CoordinatorRole:
    settings = ["stop.return_threshold=null", f"restarts={restarts}"]
    experiment, _ = load_experiment(find_file("experiments", "cartpole_ppo"), settings)
    info = RunInfo(run_id="r", num_hosts=3, num_actors=2, num_groups=1)
    return CoordinatorRole(experiment, info, ROLES, tuple(SUPERVISORS.values()))


def running(restarts: int = 3) -> CoordinatorRole:
    role = coordinator(restarts)
    commands = []
    for address in ROLES:
        commands += role.handle(joined(address), 1.0)
    assert not [c for c in commands if isinstance(c, StartRun)]
    for host, name in SUPERVISORS.items():
        commands += role.handle(Alive(address=name, host=host), 1.0)
    (start,) = [c for c in commands if isinstance(c, StartRun)]
    assert start.addresses == (COORDINATOR, *ROLES, *SUPERVISORS.values())
    assert not start.is_under_way
    return role


def joined(address: str, protocol: int = PROTOCOL_VERSION) -> Joined:
    return Joined(address=address, host=HOST_OF[address], pid=9, protocol=protocol)


def died(address: str) -> RoleExited:
    host = HOST_OF[address]
    return RoleExited(process=address, host=host, cause="killed by SIGKILL", log_tail=["last"])


def sends(commands: list[Command]) -> list[tuple[str, object]]:
    return [(c.to, c.message) for c in commands if isinstance(c, Send)]


def kinds(commands: list[Command]) -> list[str]:
    rows = [row for c in commands if isinstance(c, WriteTrace) for row in c.records]
    return [row.kind for row in rows if isinstance(row, Event)]


def produced(actor: int, epoch: int, total: int) -> Report:
    row = Production(
        t_s=1.0,
        actor=actor,
        epoch=epoch,
        sequence=0,
        env_steps=total,
        env_steps_total=total,
        version_min=0,
        version_max=0,
        collect_s=1.0,
        wait_s=0.0,
    )
    return Report(address=f"actor-{actor}", records=[row])


def test_a_dead_actor_is_started_again_by_its_own_supervisor() -> None:
    role = running()
    role.handle(produced(0, 0, 400), 2.0)
    commands = role.handle(died("actor-0"), 3.0)
    assert kinds(commands) == ["exited", "restarted"]
    assert sends(commands) == [
        ("buffer-0", ActorLost(actor="actor-0", epoch=0, collected=400)),
        ("supervisor-1", Restart(process="actor-0", epoch=1)),
    ]
    again = role.handle(joined("actor-0"), 4.0)
    (start,) = [c for c in again if isinstance(c, StartRun)]
    assert start == StartRun(("actor-0",), is_under_way=True)


def test_a_report_that_comes_after_the_death_is_not_lost() -> None:
    role = running()
    role.handle(died("actor-0"), 3.0)
    commands = role.handle(produced(0, 0, 800), 3.1)
    lost = ActorLost(actor="actor-0", epoch=0, collected=800)
    assert ("buffer-0", lost) in sends(commands)


def test_the_budget_is_for_the_whole_run() -> None:
    role = running(restarts=1)
    role.handle(died("actor-0"), 3.0)
    commands = role.handle(died("actor-1"), 4.0)
    assert kinds(commands) == ["exited", "stopping"]
    assert [to for to, message in sends(commands) if isinstance(message, Stop)] == [
        "learner-0",
    ]


def test_a_dead_learner_is_never_started_again() -> None:
    commands = running().handle(died("learner-0"), 3.0)
    assert kinds(commands) == ["exited", "stopping"]


def test_a_silent_host_of_actors_is_done_without() -> None:
    role = running()
    for now_s in range(2, 14):
        for host in ("one", "two"):
            role.handle(Alive(address=SUPERVISORS[host], host=host), float(now_s))
    commands = role.handle(TimerFired(), HOST_LOST_S + 1.0)
    assert kinds(commands) == ["host-lost"]
    lost = ActorLost(actor="actor-1", epoch=0, collected=0)
    assert ("buffer-0", lost) in sends(commands)
    assert kinds(role.handle(TimerFired(), HOST_LOST_S + 2.0)) == []
    late = role.handle(died("actor-1"), HOST_LOST_S + 3.0)
    assert kinds(late) == ["exited"]


def test_a_host_that_the_command_has_lost_is_done_without_at_once() -> None:
    role = running()
    commands = role.handle(HostGone(host="two"), 3.0)
    assert kinds(commands) == ["host-lost"]
    assert ("buffer-0", ActorLost(actor="actor-0", epoch=0, collected=0)) in sends(commands)
    assert role.handle(HostGone(host="two"), 3.1) == []
    for host in ("one", "three"):
        role.handle(Alive(address=SUPERVISORS[host], host=host), 13.0)
    assert kinds(role.handle(TimerFired(), HOST_LOST_S + 2.0)) == []


def test_a_host_that_was_given_up_does_not_come_back_by_what_it_still_says() -> None:
    role = running()
    role.handle(HostGone(host="two"), 3.0)
    role.handle(Alive(address=SUPERVISORS["two"], host="two"), 3.1)
    for host in ("one", "three"):
        role.handle(Alive(address=SUPERVISORS[host], host=host), 15.0)
    assert kinds(role.handle(TimerFired(), 16.0)) == [], "it is not lost a second time"


@pytest.mark.parametrize("how", ["silent", "gone"])
def test_a_host_that_was_given_up_gets_no_beats_and_is_told_to_end_once_it_speaks(how: str) -> None:
    """A host that thaws reads beats that came while it was frozen, which renew its lease."""
    role = running()
    others = ("one", "three")
    if how == "gone":
        role.handle(HostGone(host="two"), 13.9)
    for now_s in (8.0, 13.9):
        for host in others:
            role.handle(Alive(address=SUPERVISORS[host], host=host), now_s)
    role.handle(TimerFired(), 14.0)
    later = sends(role.handle(TimerFired(), 17.0))
    beats = [to for to, message in later if isinstance(message, Alive)]
    assert beats == [SUPERVISORS[host] for host in others]
    assert not sends(role.handle(Alive(address=SUPERVISORS["one"], host="one"), 17.1))
    thawed = role.handle(Alive(address=SUPERVISORS["two"], host="two"), 17.2)
    assert sends(thawed) == [(SUPERVISORS["two"], Exit())]


def test_a_host_that_is_lost_before_the_start_fails_the_run_at_once() -> None:
    role = coordinator()
    role.handle(TimerFired(), 0.0)
    commands = role.handle(HostGone(host="two"), 1.0)
    assert kinds(commands)[:2] == ["host-lost", "stopping"]
    summary = next(c.summary for c in commands if isinstance(c, EndRun))
    assert summary.status == "failed"
    assert "host two is lost" in (summary.error or "")


def test_a_silent_host_with_the_learner_ends_the_run() -> None:
    role = running()
    for host in ("two", "three"):
        role.handle(Alive(address=SUPERVISORS[host], host=host), 12.0)
    commands = role.handle(TimerFired(), HOST_LOST_S + 1.0)
    assert kinds(commands) == ["host-lost", "stopping"]


def test_without_any_actor_left_the_run_fails() -> None:
    role = running()
    role.handle(Alive(address="supervisor-0", host="one"), 13.0)
    commands = role.handle(TimerFired(), 13.5)
    assert kinds(commands) == ["host-lost", "host-lost", "stopping"]


def test_the_coordinator_beats() -> None:
    role = running()
    beat = Alive(address="coordinator")
    first = sends(role.handle(TimerFired(), 0.5))
    assert [to for to, message in first if message == beat] == list(SUPERVISORS.values())
    assert not sends(role.handle(TimerFired(), 1.0))
    assert len(sends(role.handle(TimerFired(), 3.0))) == 3


def test_another_protocol_is_refused_at_join() -> None:
    role = coordinator()
    commands = role.handle(joined("actor-0", protocol=99), 1.0)
    assert "stopping" in kinds(commands)


def test_the_final_ledger_counts_what_a_dead_actor_had_collected() -> None:
    role = running()
    role.handle(produced(0, 0, 400), 2.0)
    role.handle(died("actor-0"), 3.0)
    role.handle(joined("actor-0"), 4.0)
    role.handle(produced(0, 1, 100), 5.0)
    role.handle(Alive(address="supervisor-0", host="one"), 5.0)
    role.handle(StopRequested(reason="interrupted"), 6.0)
    commands: list[Command] = []
    for address, counters in (
        ("actor-0", Counters(collected=100, sent_rollouts=1)),
        ("actor-1", Counters()),
        ("learner-0", Counters(consumed=300)),
        # One more rollout of 100 steps had arrived that the dead actor never reported.
        ("buffer-0", Counters(queued=200, dropped=100, lost_collected={"actor-0/0": 500})),
    ):
        commands = role.handle(Stopped(address=address, counters=counters), 7.0)
    (end,) = [c for c in commands if isinstance(c, EndRun)]
    assert end.summary.status == "interrupted"
    assert end.summary.env_steps_collected == 600
    assert end.summary.restarts == 1
    rows = [row for c in commands if isinstance(c, WriteTrace) for row in c.records]
    assert [row.env_steps for row in rows if isinstance(row, Production)] == [100]
    assert ("supervisor-2", Exit()) in sends(commands)


def rollout(actor: int, epoch: int, ticket: int, total: int, steps: int) -> RolloutArrived:
    info = RolloutInfo(
        actor=actor,
        epoch=epoch,
        sequence=0,
        ticket=ticket,
        version_min=0,
        version_max=0,
        num_env_steps=steps,
        total_env_steps=total,
        start_s=0.0,
        end_s=1.0,
    )
    return RolloutArrived(Rollout(info, None), held_version=0)  # type: ignore[arg-type]


def counters_of(buffer: BufferRole) -> Counters:
    commands = buffer.handle(Stop(), 9.0)
    (stopped,) = [m for _, m in sends(commands) if isinstance(m, Stopped)]
    return stopped.counters


def ask(buffer: BufferRole, actor: str, epoch: int = 0) -> list[TicketGranted]:
    request = TicketRequested(actor=actor, held_version=0, epoch=epoch)
    commands = buffer.handle(request, 1.0)
    return [m for _, m in sends(commands) if isinstance(m, TicketGranted)]


def test_the_buffer_frees_the_ticket_of_a_dead_actor() -> None:
    buffer = BufferRole(0, StalenessSpec(max_lag=0, max_queued_rollouts=1), 1)
    buffer.handle(Start(origin_ns=0), 0.0)
    assert ask(buffer, "actor-0")
    assert not ask(buffer, "actor-1")
    commands = buffer.handle(ActorLost(actor="actor-0", epoch=0, collected=0), 2.0)
    assert [to for to, m in sends(commands) if isinstance(m, TicketGranted)] == ["actor-1"]


def test_the_buffer_books_what_never_arrives_as_dropped() -> None:
    buffer = BufferRole(0, StalenessSpec(), 4)
    (ticket,) = ask(buffer, "actor-0")
    buffer.handle(rollout(0, 0, ticket.ticket, total=100, steps=100), 2.0)
    buffer.handle(ActorLost(actor="actor-0", epoch=0, collected=300), 3.0)
    buffer.handle(ActorLost(actor="actor-0", epoch=0, collected=300), 3.0)
    late = buffer.handle(rollout(0, 0, 7, total=300, steps=100), 4.0)
    assert not late
    (ticket,) = ask(buffer, "actor-0", epoch=1)
    buffer.handle(rollout(0, 1, ticket.ticket, total=50, steps=50), 5.0)
    counters = counters_of(buffer)
    assert counters.dropped == 200
    assert counters.queued == 150
    assert counters.lost_collected == {"actor-0/0": 300}
