"""Processes that stand still for a while: what they are told waits, in order and bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine.wire.outgoing as outgoing_module
from engine.errors import WireError
from engine.messages import (
    COORDINATOR,
    Alive,
    AnyMessage,
    CheckpointDue,
    Joined,
    Probe,
    ProgressShown,
    Report,
    StepLimitReached,
)
from engine.progress import Progress, Standing
from engine.trace.records import Event
from engine.wire.reliable import Deadlines
from engine.wire.socket_factory import HIGH_WATER_MARK, Link
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import PATIENCE_S, make_codec

MANY = 6 * HIGH_WATER_MARK
"""Far more than both ends' queues and a Unix socket take."""


@contextmanager
def neighbours(directory: Path, server: str, client: str) -> Iterator[tuple[Sockets, Sockets]]:
    """Two processes of one host, the second connected to the first and known to it."""
    endpoint = f"ipc://{directory}/s0"
    names = frozenset({server, client})
    with ExitStack() as stack:
        first = Sockets(server, Wiring(bind=endpoint, neighbours=names), make_codec())
        stack.callback(first.close, 0)
        wiring = Wiring(links=(Link(peer=server, endpoint=endpoint),), neighbours=names)
        second = Sockets(client, wiring, make_codec())
        stack.callback(second.close, 0)
        second.send(server, Joined(address=client, host="a", pid=1, protocol=1))
        assert [type(m) for _, m in first.receive(PATIENCE_S)] == [Joined]
        yield first, second


def report(number: int) -> Report:
    row = Event(t_s=float(number), kind="drop", host="a", role="learner-0", detail="")
    return Report(address="learner-0", records=[row])


def tell_all(learner: Sockets) -> None:
    for number in range(MANY):
        learner.send(COORDINATOR, report(number))


def received(sender: Sockets, receiver: Sockets, count: int) -> list[AnyMessage | WireError]:
    """The next messages, while the sender's loop turns."""
    found: list[AnyMessage | WireError] = []
    while len(found) < count:
        list(sender.receive(0.0))
        new = [message for _, message in receiver.receive(PATIENCE_S)]
        assert new, "nothing came"
        found += new
    return found


def test_what_a_role_reports_while_the_coordinator_stands_still_comes_in_order(tmp_path: Path):
    with neighbours(tmp_path, COORDINATOR, "learner-0") as (coordinator, learner):
        for number in range(MANY):
            assert learner.send(COORDINATOR, report(number))
        assert learner._out.holds
        learner.send(COORDINATOR, StepLimitReached())
        expected = [*(report(number) for number in range(MANY)), StepLimitReached()]
        assert received(learner, coordinator, MANY + 1) == expected
        assert not learner._out.holds
        learner.send(COORDINATOR, report(-1))
        assert received(learner, coordinator, 1) == [report(-1)]


def test_what_the_coordinator_says_to_a_role_that_stands_still_comes_in_order(tmp_path: Path):
    with neighbours(tmp_path, COORDINATOR, "learner-0") as (coordinator, learner):
        for number in range(MANY):
            coordinator.send("learner-0", Probe(number=number))
        coordinator.send("learner-0", CheckpointDue(standing=Standing()))
        found = received(coordinator, learner, MANY + 1)
        assert found[:MANY] == [Probe(number=number) for number in range(MANY)]
        assert found[MANY] == CheckpointDue(standing=Standing())


def test_who_stands_still_costs_the_others_nothing(tmp_path: Path):
    with neighbours(tmp_path, COORDINATOR, "learner-0") as (coordinator, learner):
        for number in range(MANY):
            coordinator.send("learner-0", Probe(number=number))
        names = frozenset({COORDINATOR, "actor-0"})
        link = Link(peer=COORDINATOR, endpoint=f"ipc://{tmp_path}/s0")
        with Sockets("actor-0", Wiring(links=(link,), neighbours=names), make_codec()) as actor:
            actor.send(COORDINATOR, Joined(address="actor-0", host="a", pid=2, protocol=1))
            assert received(actor, coordinator, 1)
            coordinator.send("actor-0", Probe(number=7))
            assert received(coordinator, actor, 1) == [Probe(number=7)]
        assert learner.address == "learner-0"


def test_what_is_said_again_and_again_is_not_held(tmp_path: Path):
    shown = ProgressShown(progress=Progress(phase="running", t_s=1.0))
    with neighbours(tmp_path, COORDINATOR, "supervisor-0") as (coordinator, _):
        for _ in range(MANY):
            coordinator.send("supervisor-0", shown)
            coordinator.send("supervisor-0", Alive(address=COORDINATOR))
        assert not coordinator._out.holds


def test_what_is_held_for_one_that_is_gone_is_forgotten(tmp_path: Path):
    with neighbours(tmp_path, COORDINATOR, "learner-0") as (coordinator, learner):
        for number in range(MANY):
            coordinator.send("learner-0", Probe(number=number))
        assert coordinator._out.holds
        learner.close(0)
        while coordinator._out.holds:  # ZeroMQ notices in its own time
            list(coordinator.receive(PATIENCE_S))
        assert coordinator.send("learner-0", Probe(number=1)) is False


def test_more_than_a_process_may_hold_is_an_error_that_names_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outgoing_module, "MAX_HELD_BYTES", 10_000)
    with neighbours(tmp_path, COORDINATOR, "learner-0") as (_, learner):
        with pytest.raises(WireError, match=r"coordinator accepts no data; \d+ messages queued"):
            tell_all(learner)
        assert learner._out.holds


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 20)), max_size=60))
def test_deadlines_give_each_key_once_at_its_earliest_time(entries: list[tuple[str, int]]):
    deadlines, earliest = Deadlines(), dict[str, int]()
    for key, at in entries:
        deadlines.set(key, float(at))
        earliest[key] = min(at, earliest.get(key, at))
    seen = []
    for now in range(21):
        seen += [(key, now) for key in deadlines.take(float(now))]
    assert sorted(seen) == sorted(earliest.items())
    assert deadlines.next_s == float("inf")
    assert deadlines.get("a") == float("inf")
