"""The command follows a run to its end, whatever a host does or does not say."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from engine.control_protocol import Beat, Failed, Finished, KillRun, Spawned, StopRun, ToSupervisor
from engine.errors import PreflightError
from engine.messages import COORDINATOR, HostGone
from engine.supervision.json_lines import LineReader, write_line
from tianji_cli.interrupts import Interrupts
from tianji_cli.runs import channels as lines_module
from tianji_cli.runs import controller as launch
from tianji_cli.runs import monitor as watch
from tianji_cli.runs.channels import SupervisorChannels
from tianji_cli.runs.monitor import RunMonitor


class PipedConnection:
    """A host whose supervisor is this test."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._heard_fd, self.to_supervisor = os.pipe()
        self.from_supervisor, self._said_fd = os.pipe()

    def close_input(self) -> None:
        raise AssertionError("nobody asked for this")

    def wait(self, timeout_s: float) -> bool:
        return timeout_s < 0

    def error_output(self) -> str:
        return ""

    def say(self, message: Failed | Finished) -> None:
        write_line(self._said_fd, message)

    def heard(self) -> list[ToSupervisor]:
        """What it was told."""
        return list(LineReader(self._heard_fd, ToSupervisor).read())

    def close(self) -> None:
        for fd in (self._heard_fd, self.to_supervisor, self.from_supervisor, self._said_fd):
            os.close(fd)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[PipedConnection]]:
    """The coordinator's host, and one that never says anything."""
    monkeypatch.setattr(watch, "END_S", 0.05)
    hosts = [PipedConnection("head"), PipedConnection("silent")]
    yield hosts
    for host in hosts:
        host.close()


def follow(
    hosts: list[PipedConnection], interrupts: Interrupts, note: Callable[[str], None]
) -> None:
    lines = SupervisorChannels({host.host: host for host in hosts}, interrupts, set())
    RunMonitor(lines, "head", interrupts, lambda _: None, note, detaches=False).watch()


def test_a_host_that_does_not_end_after_the_coordinators_is_ended(hosts: list[PipedConnection]):
    head, silent = hosts
    notes: list[str] = []
    head.say(Finished())
    follow(hosts, Interrupts(), notes.append)
    assert silent.heard() == [KillRun()]
    assert notes == ["silent did not end in time and are killed now"]


def test_the_note_about_a_process_that_ended_has_the_error_of_its_log(hosts: list[PipedConnection]):
    head, _ = hosts
    notes: list[str] = []
    tail = ["worker-0 is process 7", "error: worker-1 on tj2 is gone", "    look there"]
    head.say(Failed(address="worker-0", cause="exited with 1", log_tail=tail))
    head.say(Finished())
    follow(hosts, Interrupts(), notes.append)
    assert notes[0] == "worker-0 on head exited with 1: worker-1 on tj2 is gone"


def test_of_a_role_that_was_started_again_the_failure_is_survived(hosts: list[PipedConnection]):
    head, silent = hosts
    for address in ("actor-0", "actor-1"):
        head.say(Failed(address=address, cause="was killed", log_tail=[]))
    head.say(Spawned(address="actor-0", pid=8, started_at_s=1.0))
    head.say(Failed(address="actor-0", cause="was killed again", log_tail=[]))
    head.say(Finished())
    silent.say(Finished())
    lines = SupervisorChannels({host.host: host for host in hosts}, Interrupts(), set())
    ignore = SimpleNamespace(show=lambda _: None, note=lambda _: None)
    monitor = RunMonitor(lines, "head", Interrupts(), ignore.show, ignore.note, detaches=False)
    outcome = monitor.watch()
    assert [failed.is_survived for failed in outcome.failures] == [True, False, False]
    assert outcome.head == "head"


def test_a_host_that_says_nonsense_is_lost_and_the_others_are_followed_on(hosts):
    head, silent = hosts
    notes: list[str] = []
    os.write(silent._said_fd, b"Segmentation fault (core dumped)\n")
    lines = SupervisorChannels({host.host: host for host in hosts}, Interrupts(), set())

    def note(text: str) -> None:
        notes.append(text)
        head.say(Finished())

    outcome = RunMonitor(lines, "head", Interrupts(), lambda _: None, note, detaches=False).watch()
    assert list(outcome.lost) == ["silent"]
    assert "its output cannot be understood" in outcome.lost["silent"]
    assert head.heard() == [HostGone(host="silent")], "so that the run goes on without it, or fails"


def test_supervisors_hear_from_a_command_that_is_busy(hosts, monkeypatch):
    """As with a large checkpoint that is brought to a host before anything is launched."""
    monkeypatch.setattr(lines_module, "BEAT_S", 0.01)
    monkeypatch.setattr(launch, "BEAT_S", 0.01)
    remote = SimpleNamespace(is_remote=True)
    sites = {host.host: SimpleNamespace(node=remote, connection=host) for host in hosts}
    plan = SimpleNamespace(host_of={COORDINATOR: "head"})
    controller = launch.Controller(plan, sites, Interrupts())

    def wait_for_a_beat() -> None:
        for host in hosts:
            assert select.select([host._heard_fd], [], [], 20)[0], "nothing is heard"

    controller.meanwhile(wait_for_a_beat)
    assert Beat() in hosts[1].heard()
    with pytest.raises(PreflightError, match="no room"):
        controller.meanwhile(fail)
    controller._lines.close()


def fail() -> None:
    raise PreflightError("no room")


def test_ctrl_c_twice_ends_the_command_though_no_host_answers(hosts: list[PipedConnection]):
    interrupts = Interrupts()
    notes: list[str] = []

    def note_and_interrupt(text: str) -> None:
        notes.append(text)
        if text.startswith("stopping"):
            signal.raise_signal(signal.SIGINT)

    with interrupts.installed():
        signal.raise_signal(signal.SIGINT)
        follow(hosts, interrupts, note_and_interrupt)
    assert "killing the run" in notes
    head, silent = hosts
    assert head.heard() == [StopRun(), KillRun()]
    assert silent.heard() == [KillRun()]
