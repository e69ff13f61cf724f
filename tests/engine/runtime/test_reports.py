"""What a process reports within a moment goes in one message, in order, before what comes after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engine.messages import COORDINATOR, AnyMessage, Exit, Report, StepLimitReached, TicketRequested
from engine.roles.commands import Quit, Send
from engine.roles.events import Event
from engine.runtime import reports as reports_module
from engine.runtime.loop import Loop, LoopClock, RoleInstance
from engine.runtime.reports import REPORT_S, Reports
from engine.trace.records import WeightsPublished


def row(version: int) -> WeightsPublished:
    return WeightsPublished(t_s=0.0, learner=0, version=version, num_bytes=1, num_subscribers=1)


def report(*versions: int, address: str = "learner-0") -> Report:
    return Report(address=address, records=[row(version) for version in versions])


class Clocked:
    """Reports with a clock that stands still, and what they have sent."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.sent: list[tuple[str, AnyMessage]] = []
        self.reports = Reports(lambda to, message: self.sent.append((to, message)), self.clock)

    def clock(self) -> float:
        return self.now_s

    def versions(self) -> list[list[int]]:
        assert all(to == COORDINATOR for to, _ in self.sent)
        return [[one.version for one in message.records] for _, message in self.sent]


def test_the_first_report_goes_at_once_and_those_soon_after_it_together():
    run = Clocked()
    run.reports.add(report(1))
    assert run.versions() == [[1]]
    run.now_s += REPORT_S / 2
    run.reports.add(report(2, 3))
    run.reports.add(report(4))
    assert run.versions() == [[1]]
    assert run.reports.due_s == 100.0 + REPORT_S
    run.now_s += REPORT_S / 2
    run.reports.send_if_due(run.now_s)
    assert run.versions() == [[1], [2, 3, 4]]
    run.reports.send_if_due(run.now_s + 10 * REPORT_S)
    assert len(run.sent) == 2  # there was nothing to send
    run.now_s += 2 * REPORT_S
    run.reports.add(report(5))
    assert run.versions() == [[1], [2, 3, 4], [5]]


def test_each_role_of_a_process_reports_in_its_own_name():
    run = Clocked()
    run.reports.add(report(0))
    for _ in range(2):
        run.reports.add(report(1))
        run.reports.add(report(2, address="learner-1"))
    run.reports.send()
    assert [m.address for _, m in run.sent] == ["learner-0", "learner-0", "learner-1"]
    assert run.versions() == [[0], [1, 1], [2, 2]]


class Told:
    """A role that answers each event with the commands that it was given."""

    def __init__(self, *answers: list[Any]) -> None:
        self.address = "learner-0"
        self._answers = list(answers)

    def handle(self, event: Event, now_s: float) -> list[Any]:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class NoWork:
    is_busy = False

    def close(self) -> None:
        pass


class Post:
    """Sockets that keep what is sent, and one event for each time they are asked."""

    address = "learner-0"

    def __init__(self) -> None:
        self.sent: list[tuple[str, AnyMessage]] = []

    def send(self, to: str, message: AnyMessage) -> bool:
        self.sent.append((to, message))
        return True

    def receive(self, timeout_s: float | None) -> Iterator[tuple[str, AnyMessage]]:
        yield "learner-0", Exit()


def kinds_of(post: Post) -> list[str]:
    return [type(message).__name__ for _, message in post.sent]


def told(role: Told) -> tuple[Loop, Post]:
    post = Post()
    return Loop({"learner-0": RoleInstance(role, NoWork())}, LoopClock(), post), post


@pytest.fixture
def long_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, only the first report is sent before it must be."""
    monkeypatch.setattr(reports_module, "REPORT_S", 1e6)


@pytest.mark.usefixtures("long_moment")
def test_what_was_reported_comes_before_whatever_else_the_coordinator_is_sent():
    elsewhere = Send("buffer-0", TicketRequested(actor="actor-0", held_version=0))
    reports = [Send(COORDINATOR, report(version)) for version in range(4)]
    end = Send(COORDINATOR, StepLimitReached())
    loop, post = told(Told([*reports[:2], elsewhere, reports[2], end, reports[3]], [Quit()]))
    loop.run()
    assert kinds_of(post) == ["Report", "TicketRequested", "Report", "StepLimitReached", "Report"]
    reported = [message for _, message in post.sent if isinstance(message, Report)]
    assert [[one.version for one in item.records] for item in reported] == [[0], [1, 2], [3]]


@pytest.mark.usefixtures("long_moment")
def test_a_role_that_fails_leaves_no_report_unsent():
    reports = [Send(COORDINATOR, report(version)) for version in range(3)]
    loop, post = told(Told(reports, RuntimeError("it fails")))
    with pytest.raises(RuntimeError, match="it fails"):
        loop.run()
    assert kinds_of(post) == ["Report", "Report"]
