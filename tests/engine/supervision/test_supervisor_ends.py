"""Which supervisor ends what, when it hears no more from the command, or is asked to end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.clock import ManualClock, TimerQueue
from engine.control_protocol import Exited
from engine.messages import (
    COORDINATOR,
    AnyMessage,
    HostGone,
    RoleExited,
    StopRequested,
    TrackerFailed,
)
from engine.supervision import supervisor as module
from engine.supervision.host_run import TERMINATE_S
from engine.supervision.supervisor import (
    ASKED_S,
    GIVE_UP_S,
    LOST_CONTROLLER_S,
    ONE_BY_ONE_S,
    Supervisor,
)


class FakeLink:
    """A command that is gone, or somebody who sends SIGTERM."""

    num_requests = 1

    def leave(self) -> list[int]:
        return []

    def report(self, message: object) -> None:
        """Nobody reads it."""


class FakeHouse:
    """Roles of one host."""

    def __init__(self, *addresses: str) -> None:
        self.children = SimpleNamespace(
            specs=dict.fromkeys(addresses),
            running={},
            exited=lambda report: report.cause,
            log_of=lambda address: Path(f"/nowhere/{address}.log"),
        )
        self.prepare = SimpleNamespace(host="box")
        self.is_ending = self.is_killed = False
        self.ends_within_s: float | None = None

    def end_within(self, seconds: float) -> None:
        self.is_ending, self.ends_within_s = True, seconds

    def end_now(self) -> None:
        self.is_ending = self.is_killed = True


class Scene:
    """A supervisor of a run that is under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        monkeypatch.setattr(module, "ControllerLink", FakeLink)
        self.clock, self.run = ManualClock(), FakeHouse(*addresses)
        self.said: list[AnyMessage] = []
        self.supervisor = Supervisor()
        self.supervisor._timers = TimerQueue(self.clock.now_s)
        self.supervisor._run = self.run  # type: ignore[assignment]
        coordinator = SimpleNamespace(send=self.said.append, unwatch=lambda fds: None)
        self.supervisor._coordinator = coordinator  # type: ignore[assignment]

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.supervisor._timers.run_due()


def test_beside_the_coordinator_a_command_that_is_gone_ends_the_run(monkeypatch):
    scene = Scene(monkeypatch, COORDINATOR, "learner-0")
    scene.supervisor._lost_controller()
    assert scene.said == [StopRequested(reason="controller-lost")]
    assert scene.run.ends_within_s == LOST_CONTROLLER_S


def test_what_the_command_knows_of_its_trackers_is_passed_on(monkeypatch):
    scene = Scene(monkeypatch, COORDINATOR)
    notice = TrackerFailed(tool="mlflow", cause="ended with code 1")
    scene.supervisor._instructed(notice)
    assert scene.said == [notice]


def test_elsewhere_it_costs_that_host_only(monkeypatch):
    scene = Scene(monkeypatch, "actor-0")
    scene.supervisor._lost_controller()
    scene.wait(LOST_CONTROLLER_S - 0.1)
    assert scene.said == []
    assert not scene.run.is_ending, "the run may be ending in good order everywhere"
    scene.wait(0.2)
    assert scene.said == [HostGone(host="box")]
    assert scene.run.ends_within_s == 0.0


def test_if_all_of_the_run_has_ended_by_then_nobody_is_told_that_a_host_is_gone(monkeypatch):
    scene = Scene(monkeypatch, "actor-0")
    scene.supervisor._lost_controller()
    scene.supervisor._is_over, scene.run.is_ending = True, True
    scene.wait(LOST_CONTROLLER_S + 1.0)
    assert scene.said == []


@pytest.mark.parametrize(
    ("address", "said"), [(COORDINATOR, [StopRequested(reason="interrupted")]), ("actor-0", [])]
)
def test_all_are_asked_to_end_and_one_of_them_ends_the_run(monkeypatch, address, said):
    scene = Scene(monkeypatch, address)
    scene.supervisor._asked_to_end()
    assert scene.said == said
    assert not scene.run.is_ending


def test_one_that_alone_is_asked_to_end_leaves_the_run(monkeypatch):
    scene = Scene(monkeypatch, "actor-0")
    scene.supervisor._asked_to_end()
    scene.wait(ASKED_S + 0.1)
    assert scene.said == [HostGone(host="box")]
    assert scene.run.is_ending


def test_a_run_that_does_not_stop_when_asked_is_killed_before_a_manager_would(monkeypatch):
    scene = Scene(monkeypatch, COORDINATOR, "learner-0")
    scene.supervisor._asked_to_end()
    scene.wait(GIVE_UP_S - 0.1)
    assert not scene.run.is_ending
    scene.wait(0.2)
    assert scene.run.is_killed


def test_an_actor_that_fails_by_the_same_sigterm_does_not_fail_the_run(monkeypatch):
    """The environment's simulator got it, too; the coordinator hears of the stop first."""
    scene = Scene(monkeypatch, "actor-0")
    scene.supervisor._asked_to_end()
    scene.supervisor._exited(
        scene.run,  # type: ignore[arg-type]
        Exited(address="actor-0", cause="ended with code 1", is_clean=False),
    )
    scene.wait(TERMINATE_S - 0.1)
    assert scene.said == []
    scene.wait(0.2)
    assert [type(message) for message in scene.said] == [RoleExited], "it still runs without it"


@pytest.mark.parametrize("is_asked", [True, False])
def test_nor_one_that_fails_a_moment_before_the_sigterm_is_here(monkeypatch, is_asked):
    scene = Scene(monkeypatch, "actor-0")
    monkeypatch.setattr(FakeLink, "num_requests", 0)
    scene.supervisor._exited(
        scene.run,  # type: ignore[arg-type]
        Exited(address="actor-0", cause="ended with code 1", is_clean=False),
    )
    assert scene.said == []
    monkeypatch.setattr(FakeLink, "num_requests", int(is_asked))
    scene.wait(ONE_BY_ONE_S + 0.01)
    assert len(scene.said) == (not is_asked)
    scene.wait(TERMINATE_S)
    assert [type(message) for message in scene.said] == [RoleExited]


def test_a_second_request_kills(monkeypatch):
    scene = Scene(monkeypatch, COORDINATOR)
    monkeypatch.setattr(FakeLink, "num_requests", 2)
    scene.supervisor._asked_to_end()
    assert scene.run.is_killed
    assert scene.said == []


def test_before_anything_was_launched_it_just_ends(monkeypatch):
    scene = Scene(monkeypatch)
    scene.supervisor._coordinator = None
    scene.supervisor._lost_controller()
    assert scene.supervisor._is_done
