"""What a started program holds here is given back, by a keeper and on this machine."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from engine.errors import TianJiError
from engine.messages import COORDINATOR
from tests.helpers.keepers import KeptNode
from tests.helpers.running import no_new_descriptor
from tianji_cli.config.inventory import Host
from tianji_cli.connectors import local
from tianji_cli.connectors.base import Connection
from tianji_cli.connectors.local import LocalNode
from tianji_cli.interrupts import Interrupts
from tianji_cli.planning.plan import Plan
from tianji_cli.provisioning.preflight import measure_clock
from tianji_cli.provisioning.provision import ReadyHost
from tianji_cli.provisioning.reachability import Reachable, check_ports
from tianji_cli.runs.controller import Controller
from tianji_cli.storage.deployment import HostPart

NUM_PROGRAMS = 3


@pytest.fixture(params=["of another process", "of this process"])
def start(request: pytest.FixtureRequest) -> Iterator[Callable[[Sequence[str]], Connection]]:
    """Starts a program by a keeper of either kind."""
    node = LocalNode("a") if request.param == "of this process" else KeptNode()
    assert node.run(["true"], 20).code == 0, "it has started"
    yield lambda words: node.spawn(words, {})
    node.close()


@pytest.fixture
def here() -> Iterator[LocalNode]:
    node = LocalNode("a")
    yield node
    node.close()


def test_ended_programs_leave_no_descriptor(start: Callable[[Sequence[str]], Connection]) -> None:
    with no_new_descriptor():
        for _ in range(NUM_PROGRAMS):
            connection = start(["cat"])
            os.write(connection.to_supervisor, b"word")
            assert os.read(connection.from_supervisor, 4) == b"word"
            connection.close_input()
            assert connection.wait(60)
            connection.close()


def test_a_program_that_nobody_reads_from_is_let_go_at_once(
    start: Callable[[Sequence[str]], Connection],
) -> None:
    connection = start(["yes"])
    assert select.select([connection.from_supervisor], [], [], 10)[0], "more than half is to come"
    connection.close()
    assert connection.wait(60), "its output was closed"


def test_a_program_that_still_runs_is_let_go(start: Callable[[Sequence[str]], Connection]) -> None:
    with no_new_descriptor():
        connection = start(["cat"])
        connection.close()
        connection.close()
        assert connection.wait(60), "its input has ended"


@pytest.mark.parametrize("words", [":", "echo welcome; cat"], ids=["ends at once", "says else"])
def test_a_clock_that_cannot_be_asked_is_an_error_that_says_so(
    here: LocalNode, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = here.spawn

    def spawn(_command: object, _env: object) -> Connection:
        connection = begin(["sh", "-c", words], {})
        assert words != ":" or connection.wait(60)
        return connection

    monkeypatch.setattr(here, "spawn", spawn)
    with pytest.raises(TianJiError, match="its clock does not answer"):
        measure_clock(here, "python3")


def test_this_machine_lets_go_of_what_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LEAVE_S", 20.0)  # however busy the machine is
    with no_new_descriptor():
        node = LocalNode("a")
        connections = [node.spawn(["cat"], {}) for _ in range(NUM_PROGRAMS)]
        node.close()
        assert all(connection.wait(60) for connection in connections), "their input has ended"


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "let go"])
def test_a_controller_lets_go_of_its_connections(here: LocalNode, ends: bool) -> None:
    interrupts = Interrupts()
    assert here.run(["true"], 20).code == 0, "its keeper has started"
    with no_new_descriptor():
        connection = here.spawn(["cat"], {})
        host = Host(name="a", connection="local", address="", ports=None)
        part = HostPart(host=host, python="", source="", run_dir="")
        sites = {"a": ReadyHost(here, part, connection)}
        plan = cast(Plan, SimpleNamespace(host_of={COORDINATOR: "a"}))
        controller = Controller(plan, sites, interrupts)
        assert (controller.close() if ends else controller.let_go()) in ([], None)
        assert connection.wait(60)


@pytest.mark.parametrize("words", ["Welcome to the cluster", ""], ids=["says else", "says nothing"])
def test_a_host_whose_listener_says_something_else_is_a_finding(
    here: LocalNode, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = here.spawn
    monkeypatch.setattr(here, "spawn", lambda *_: begin(["echo", words], {}))
    hosts = {
        name: Reachable(
            here,
            Host(name=name, connection="local", address="127.0.0.1", ports=None),
            sys.executable,
        )
        for name in ("a", "b")
    }
    for finding in check_ports(hosts, 2).values():
        assert finding.verdict == "failed"
        assert f"cannot be understood: {words or 'it ended'}" in finding.detail
