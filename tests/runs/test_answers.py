"""What is made of the answers of a run's hosts, and of those that do not come."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from engine.errors import CleanupError, ConfigError, HostUnreachableError, PreflightError
from engine.host.process_identity import ProcessId
from engine.supervision.host_state import HostState
from engine.supervision.run_inspector import Findings
from tests.helpers.fake_node import FakeNode
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.runs import list_runs
from tianji_cli.analysis.verify import examine_runs
from tianji_cli.commands import down, logs, status
from tianji_cli.commands import fetch as fetching
from tianji_cli.commands.logs import LogsRequest, changes, has_ended, logs_command
from tianji_cli.commands.status import Phase, phase_of, status_command
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Completed, Node
from tianji_cli.output import Output
from tianji_cli.render.run.rows import summary_rows
from tianji_cli.runs import detached
from tianji_cli.runs.detached import DetachedRun, HostAnswer
from tianji_cli.runs.mirror import fetch
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.deployment import FORMER_INSPECTOR, Deployment, HostPart, write_deployment
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.storage.takings import Share


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
    request = LogsRequest(run="r", role=None, follows=True, num_lines=5)
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


class Box(FakeNode):
    """A host with one log, on which the run has ended, unless another `word` is said."""

    word = "ended"

    def __init__(self, name: str) -> None:
        super().__init__(part_of(name).host, {})
        self.files = {f"/w/runs/r/logs/{name}/learner-0.log": b"one\n"}

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        done = super().run(command, timeout_s)
        if FORMER_INSPECTOR in command:
            findings = answer(self.name, self.word).findings
            return Completed(0, msgspec.json.encode(findings).decode(), "")
        return done


@pytest.fixture
def boxes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Box]:
    nodes = {name: Box(name) for name in "ab"}

    def run_on_boxes(paths: RunPaths, consent: Consent) -> DetachedRun:
        return DetachedRun(paths, lambda host, _cancel: nodes[host.name], consent)

    for module in (down, fetching, status):
        monkeypatch.setattr(module, "DetachedRun", run_on_boxes)
    return nodes


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, host: str = "") -> None:
    """Nothing more can be kept here; with `host`, nothing of that host."""

    def fetch_or_fail(
        node: Node, share: Share, remote: str, local: Path, *, everything: bool
    ) -> None:
        if host in ("", node.name):
            raise OSError(errno.ENOSPC, "No space left on device")
        fetch(node, share, remote, local, everything=everything)

    monkeypatch.setattr(detached, "fetch", fetch_or_fail)


def test_a_full_disk_here_leaves_the_files_there_and_the_others_their_end(
    results: Path,
    boxes: dict[str, Box],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as full:
        fill_the_disk(full, "a")
        with pytest.raises(CleanupError, match="not all of it is here") as caught:
            down.down_command(results, "r", Output())
    words = "a: no process is left, but its files cannot be kept here: [Errno 28] No space left"
    assert words in str(caught.value)
    assert "b: nothing is left" in capsys.readouterr().err
    removed = {name: any(c[0] == "rm" for c in box.commands) for name, box in boxes.items()}
    assert removed == {"a": False, "b": True}
    assert down.down_command(results, "r", Output()) == 0
    assert (results / "r/logs/a/learner-0.log").read_text() == "one\n"


def test_an_end_that_cannot_be_noted_is_an_unfinished_clean_up(
    results: Path, boxes: dict[str, Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(detached, "write_deployment", refuse)
    with pytest.raises(CleanupError, match=r"cannot be recorded here.*Read-only"):
        down.down_command(results, "r", Output())


def test_status_goes_on_without_room_for_the_files(
    results: Path,
    boxes: dict[str, Box],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill_the_disk(monkeypatch)
    assert status_command(results, "r", Output(is_json=True)) == 0
    document = msgspec.json.decode(capsys.readouterr().out)
    assert document["phase"] == "ended"
    assert document["hosts"]["a"].startswith("ended, but its files cannot be kept here")


def test_a_damaged_summary_is_named(results: Path, boxes: dict[str, Box]) -> None:
    (results / "r" / "summary.json").write_text('{"run_id": ')
    with pytest.raises(ConfigError, match="not a summary") as caught:
        status_command(results, "r", Output())
    assert caught.value.where == str(results / "r" / "summary.json")


def test_what_has_ended_is_fetched_and_left_there(
    results: Path, boxes: dict[str, Box], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    summary = write_synthetic_run(tmp_path / "else" / "r", num_batches=20).summary.read_bytes()
    boxes["a"].files["/w/runs/r/summary.json"] = summary
    assert status_command(results, "r", Output()) == 0
    said = capsys.readouterr()
    assert "run r: ended, results still on its hosts" in said.out
    assert "tianji fetch r" in said.err
    for _ in range(2):  # it can be repeated
        assert fetching.fetch_command(results, "r", Output(is_json=True)) == 0
        document = msgspec.json.decode(capsys.readouterr().out)
        assert (document["phase"], document["is_complete"]) == ("ended", True)
        assert document["hosts"]["b"] == {"phase": "ended", "error": ""}
    assert (results / "r/summary.json").read_bytes() == summary
    assert (results / "r/logs/a/learner-0.log").read_text() == "one\n"
    for box in boxes.values():
        assert not any(command[0] == "rm" or "stop" in command for command in box.commands)
    assert status_command(results, "r", Output()) == 0
    said = capsys.readouterr()
    assert "still on its hosts" not in said.out
    assert "its results are here; tianji down r" in said.err


def test_of_what_goes_on_only_what_grows_is_fetched(
    results: Path, boxes: dict[str, Box], capsys: pytest.CaptureFixture[str]
) -> None:
    for box in boxes.values():
        box.word = "running"
        box.files["/w/runs/r/state/x.json"] = b"{}"
    assert fetching.fetch_command(results, "r", Output()) == 0
    assert "the run continues" in capsys.readouterr().err
    assert (results / "r/logs/b/learner-0.log").read_text() == "one\n"
    assert not (results / "r/state").exists()


def test_a_host_that_is_silent_or_a_disk_that_is_full_costs_no_other_its_files(
    results: Path,
    boxes: dict[str, Box],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as full:
        fill_the_disk(full, "a")
        with pytest.raises(PreflightError, match="a: answers, but its files cannot be kept"):
            fetching.fetch_command(results, "r", Output())
    assert (results / "r/logs/b/learner-0.log").exists()

    def be_silent(*_: object) -> Completed:
        raise HostUnreachableError("no answer within 10 s", where="b")

    monkeypatch.setattr(boxes["b"], "run", be_silent)
    with pytest.raises(HostUnreachableError, match="b: does not answer") as caught:
        fetching.fetch_command(results, "r", Output(is_json=True))
    assert "tianji fetch r" in caught.value.fix
    assert (results / "r/logs/a/learner-0.log").exists()
    document = msgspec.json.decode(capsys.readouterr().out)
    assert document["hosts"]["b"]["phase"] == "unknown"
    assert not document["is_complete"]


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({"is_detached": True}, "detached", "hosts know whether it has ended: tianji fetch r"),
        (
            {"is_detached": True, "has_ended": True},
            "detached",
            "ended, results still on its hosts: tianji fetch r",
        ),
        ({"is_collected": True, "is_detached": True}, "failed", "ended without a summary"),
        ({}, "unfinished", ""),
    ],
)
def test_runs_says_of_a_detached_run_where_its_results_are(
    results: Path, facts: dict[str, bool], status: str, words: str
) -> None:
    parts = (part_of("a"), part_of("b"))
    write_deployment(results / "r", Deployment(run_id="r", parts=parts, **facts))
    (row,) = list_runs(results)
    assert row.status == status
    assert words in (row.problem or "")


def test_a_report_of_a_detached_run_blames_nobody(tmp_path: Path) -> None:
    paths = write_synthetic_run(tmp_path / "r", num_batches=20, has_summary=False)
    deployment = Deployment(run_id="r", parts=(part_of("a"),), is_detached=True, has_ended=True)
    write_deployment(paths.root, deployment)
    (examined,) = examine_runs([paths])
    assert "ended, results still on its hosts: tianji fetch r" in examined.warnings[0]
    (status,) = [row.text for row in summary_rows(examined.summary) if row.label == "Status"]
    assert status == "not known here"
