"""What is made of the answers of a run's hosts, and of those that do not come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.errors import HostUnreachableError
from engine.runtime.identity import ProcessId
from engine.runtime.inspect import Findings
from engine.runtime.state import HostState
from tianji_cli.commands import logs
from tianji_cli.commands.logs import Request, changes, has_ended, logs_command
from tianji_cli.commands.status import Phase, phase_of, status_command
from tianji_cli.deployment import Deployment, HostPart, write_deployment
from tianji_cli.detached import DetachedRun, HostAnswer
from tianji_cli.inventory import Host
from tianji_cli.output import Output


def part_of(name: str) -> HostPart:
    host = Host(name=name, connection="ssh", ssh_host=name, address="192.0.2.9", ports=None)
    return HostPart(host=host, python="python3", source="/w/bundles/b", run_dir="/w/runs/r")


def answer(name: str, word: str) -> HostAnswer:
    """`running`; `ended`; `gone`: no process, and its state does not say why; or `silent`."""
    part = part_of(name)
    if word == "silent":
        return HostAnswer(part, None, HostUnreachableError("no answer within 10 s", where=name))
    process = ProcessId(pid=7, started=1)
    phase = "ended" if word == "ended" else "running"
    state = HostState(run_id="r", host=name, supervisor=process, phase=phase)
    is_there = word == "running"
    found = Findings(state=state, is_supervised=is_there, alive=[], marked=[7] if is_there else [])
    return HostAnswer(part, found)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """With one run `r` on the hosts a and b, whose log of one line is here."""
    log = tmp_path / "r" / "logs" / "a" / "actor-0.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\n")
    (tmp_path / "r" / "manifest.json").write_text("{}")
    write_deployment(tmp_path / "r", Deployment(run_id="r", parts=(part_of("a"), part_of("b"))))
    return tmp_path


def answers_in_turn(monkeypatch: pytest.MonkeyPatch, *turns: tuple[str, str]) -> Iterator[object]:
    """Lets the hosts a and b say these words, one pair each time they are asked."""
    left = iter([[answer("a", a), answer("b", b)] for a, b in turns])
    monkeypatch.setattr(DetachedRun, "look", lambda _self: next(left))
    return left


@pytest.mark.parametrize(
    ("words", "has_summary", "phase"),
    [
        (("running", "silent"), False, "running"),
        (("silent", "running"), False, "running"),
        (("ended", "silent"), False, "ended"),
        (("silent", "ended"), False, "unknown"),
        (("silent", "gone"), False, "unknown"),
        (("gone", "silent"), False, "unknown"),
        (("silent", "ended"), True, "ended"),
        (("gone", "ended"), False, "ended"),
        (("gone", "gone"), False, "lost"),
        ((), True, "ended"),
        ((), False, "lost"),
    ],
)
def test_a_phase_is_not_guessed(words: tuple[str, ...], has_summary: bool, phase: Phase) -> None:
    answers = [answer(name, word) for name, word in zip("ab", words, strict=False)]
    assert phase_of(answers, has_summary=has_summary) == phase


def test_status_says_unknown_and_what_to_do(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers_in_turn(monkeypatch, ("silent", "ended"), ("silent", "ended"))
    assert status_command(results, "r", Output()) == 0
    said = capsys.readouterr()
    assert "run r: unknown" in said.out
    assert "does not answer: no answer within 10 s" in said.out
    assert "once the hosts answer: tianji status r" in said.err
    status_command(results, "r", Output(is_json=True))
    assert msgspec.json.decode(capsys.readouterr().out)["phase"] == "unknown"


def test_a_silent_host_may_still_be_at_work() -> None:
    assert has_ended([answer("a", "ended"), answer("b", "gone")])
    assert not has_ended([answer("a", "ended"), answer("b", "running")])
    assert not has_ended([answer("a", "silent"), answer("b", "ended")])


def test_silence_is_said_when_it_begins_and_when_it_is_over() -> None:
    silent, there = answer("a", "silent"), answer("a", "running")
    assert changes([silent], set()) == ["a does not answer: no answer within 10 s"]
    assert changes([silent], {"a"}) == []
    assert changes([there], {"a"}) == ["a answers again"]
    assert changes([there], set()) == []


def test_logs_are_followed_while_hosts_do_not_answer(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "FOLLOW_S", 0.001)
    left = answers_in_turn(
        monkeypatch,
        ("running", "running"),
        ("silent", "silent"),
        ("silent", "silent"),
        ("silent", "ended"),
        ("running", "ended"),
        ("ended", "ended"),
    )
    request = Request(run="r", role=None, follows=True, num_lines=5)
    assert logs_command(results, request, Output()) == 0
    assert not list(left), "it was followed to its end"
    said = capsys.readouterr()
    assert said.out == "actor-0@a | one\n"
    assert said.err.splitlines() == [
        "a does not answer: no answer within 10 s",
        "b does not answer: no answer within 10 s",
        "b answers again",
        "a answers again",
        "the run has ended",
    ]
