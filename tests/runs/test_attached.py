"""`tianji attach`: what is shown of a run elsewhere, how it is left, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from engine.control_protocol import Failed
from engine.errors import ConfigError, HostUnreachableError
from engine.host.process_identity import ProcessId
from engine.progress import Progress
from engine.supervision.host_state import HostState
from engine.supervision.run_inspector import Findings
from tests.helpers.fake_node import FakeNode
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.commands.watching import attached
from tianji_cli.commands.watching.attached import attach_command
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Completed, Node
from tianji_cli.output import Output
from tianji_cli.render.live import panel
from tianji_cli.runs import detached
from tianji_cli.runs.detached import DetachedRun
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.deployment import (
    FORMER_INSPECTOR,
    Deployment,
    HostPart,
    read_deployment,
    write_deployment,
)
from tianji_cli.storage.run_dir import RESULTS_VARIABLE, RunPaths

RUN_DIR = "/w/runs/r"


def part_of(name: str) -> HostPart:
    host = Host(name=name, connection="ssh", ssh_host=name, address="192.0.2.9", ports=None)
    return HostPart(host=host, python="python3", source="/w/bundles/b", run_dir=RUN_DIR)


class Box(FakeNode):
    """A host on which the run ends after some questions.

    Attributes:
        questions: What happens when it is asked for the first, second ... time; it has ended when
            none is left.
        failures: In its state.
    """

    def __init__(self, name: str, source: RunPaths | None = None) -> None:
        super().__init__(part_of(name).host, {})
        self.questions: list[Callable[[], None]] = []
        self.failures: list[Failed] = []
        self.is_detached = True
        self.source = source
        self.num_read = 0
        self.write(steps=100)

    def write(self, steps: int, phase: str = "running") -> None:
        state = HostState(
            run_id="r",
            host=self.name,
            supervisor=ProcessId(pid=7, started=1),
            phase=phase,  # type: ignore[arg-type]
            is_detached=self.is_detached,
            progress=Progress(phase="running", t_s=1.0, env_steps_consumed=steps),
            failures=self.failures,
        )
        self.state = state
        self.files[f"{RUN_DIR}/state/{self.name}.json"] = msgspec.json.encode(state)

    def read(self, path: str, offset: int = 0, max_bytes: int = -1) -> bytes:
        if "/state/" in path and not offset:
            self.num_read += 1
        return super().read(path, offset, max_bytes)

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        done = super().run(command, timeout_s)
        if FORMER_INSPECTOR not in command:
            return done
        has_ended = not self.questions
        if has_ended:
            self.write(900, "ended")
            self._bring_results()
        else:
            self.questions.pop(0)()
        marked = [] if has_ended else [7]
        findings = Findings(state=self.state, is_supervised=not has_ended, alive=[], marked=marked)
        return Completed(0, msgspec.json.encode(findings).decode(), "")

    def _bring_results(self) -> None:
        for path in self.source.root.rglob("*") if self.source else ():
            name = path.relative_to(self.source.root).as_posix() if self.source else ""
            if name == "summary.json" or name.startswith("trace/"):
                self.files[f"{RUN_DIR}/{name}"] = path.read_bytes()


class Hosts:
    """All hosts of a run and its directory here."""

    def __init__(self, results: Path, source: RunPaths) -> None:
        self.results = results
        self.paths = RunPaths(results / "r")
        self.nodes = {"a": Box("a", source), "b": Box("b")}
        self.silent: set[str] = set()

    def reach(self, host: Host, _cancel: threading.Event) -> Node:
        if host.name in self.silent:
            raise HostUnreachableError("no answer within 10 s", where=host.name)
        return self.nodes[host.name]

    def runs_for(self, *questions: Callable[[], None]) -> None:
        """So many questions the run goes on; each host is asked once for each."""
        self.nodes["a"].questions = list(questions)
        self.nodes["b"].questions = [nothing] * len(questions)


def nothing() -> None:
    """Nothing happens."""


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    (tmp_path / "results" / "r").mkdir(parents=True)
    source = write_synthetic_run(tmp_path / "source" / "r", num_batches=4)
    found = Hosts(tmp_path / "results", source)
    found.paths.manifest.write_bytes(source.manifest.read_bytes())
    parts = (part_of("a"), part_of("b"))
    write_deployment(found.paths.root, Deployment(run_id="r", parts=parts, is_detached=True))

    def run_there(paths: RunPaths, consent: Consent) -> DetachedRun:
        return DetachedRun(paths, found.reach, consent)

    monkeypatch.setenv(RESULTS_VARIABLE, str(found.results))
    monkeypatch.setattr(attached, "DetachedRun", run_there)
    monkeypatch.setattr(attached, "LOOK_S", 0.01)
    monkeypatch.setattr(attached, "POLL_S", 0.01)
    monkeypatch.setattr(detached, "BRING_S", 0.005)
    return found


def attach(hosts: Hosts, output: Output | None = None) -> int:
    return attach_command(hosts.results, "r", output or Output())


def test_it_is_shown_until_it_ends_and_then_its_outcome_is_that_of_up(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
):
    hosts.runs_for(nothing, lambda: hosts.nodes["a"].write(500), nothing)
    assert attach(hosts) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0] == "run r · attached; Ctrl-C leaves it running"
    assert any(" running " in line and "env steps" in line for line in lines)
    assert "tianji down r removes what is on its hosts" in said.err
    assert "Status" in said.out
    assert hosts.paths.summary.is_file(), "its files are here, as after `fetch`"
    assert (hosts.paths.trace / "episodes.jsonl").stat().st_size > 0
    assert read_deployment(hosts.paths.root).has_ended
    assert not read_deployment(hosts.paths.root).is_collected, "its hosts keep it until `down`"


def test_the_summary_is_the_one_document(hosts: Hosts, capsys: pytest.CaptureFixture[str]):
    hosts.runs_for(nothing)
    assert attach(hosts, Output(is_json=True)) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "ok"


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("interrupted", 130)])
def test_its_exit_code_is_that_of_its_outcome(hosts: Hosts, tmp_path: Path, status: str, code: int):
    source = write_synthetic_run(tmp_path / "other" / "r", num_batches=4, status=status)
    hosts.nodes["a"].source = source
    hosts.runs_for(nothing)
    assert attach(hosts) == code


def test_a_run_that_has_ended_before_is_told_at_once(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
):
    assert attach(hosts) == 0
    assert "attached" not in capsys.readouterr().err
    deployment = msgspec.structs.replace(read_deployment(hosts.paths.root), is_collected=True)
    write_deployment(hosts.paths.root, deployment)
    hosts.silent = {"a", "b"}
    assert attach(hosts) == 0, "nobody is asked"


@pytest.mark.parametrize("is_json", [False, True])
def test_ctrl_c_leaves_it_running(hosts: Hosts, capsys: pytest.CaptureFixture[str], is_json: bool):
    hosts.runs_for(*[nothing] * 3, lambda: os.kill(os.getpid(), signal.SIGINT), *[nothing] * 999)
    assert attach(hosts, Output(is_json=is_json)) == 130
    said = capsys.readouterr()
    assert "run r continues; tianji attach r" in said.err
    assert "tianji down r" in said.err
    for box in hosts.nodes.values():
        assert not any("stop" in word for command in box.commands for word in command)
    assert not hosts.paths.summary.exists()
    if is_json:
        document = json.loads(said.out)
        assert (document["run_id"], document["status"]) == ("r", "detached")


def test_failures_are_said_once(hosts: Hosts, capsys: pytest.CaptureFixture[str]):
    box = hosts.nodes["b"]

    def fail() -> None:
        box.failures = [Failed(address="actor-1", cause="was killed by SIGKILL", log_tail=[])]
        box.write(300)

    hosts.runs_for(nothing, fail, nothing, nothing, nothing)
    assert attach(hosts) == 0
    assert capsys.readouterr().err.count("actor-1 on b was killed by SIGKILL") == 1


def test_what_down_has_recorded_meanwhile_stays(hosts: Hosts):
    def collect() -> None:
        deployment = msgspec.structs.replace(read_deployment(hosts.paths.root), is_collected=True)
        write_deployment(hosts.paths.root, deployment)

    hosts.runs_for(nothing, collect)
    assert attach(hosts) == 0
    assert read_deployment(hosts.paths.root).is_collected


def test_progress_comes_over_a_connection_that_stays(hosts: Hosts):
    hosts.runs_for(*[nothing] * 20)
    attach(hosts)
    assert hosts.nodes["a"].num_read > 0


def test_silence_is_said_and_not_taken_for_the_end(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
):
    hosts.runs_for(nothing, nothing)
    hosts.silent = {"b"}
    box = hosts.nodes["a"]
    box.questions = [nothing] * 3 + [hosts.silent.clear] + [nothing]
    assert attach(hosts) == 0
    said = capsys.readouterr().err
    assert said.index("b does not answer: no answer within 10 s") < said.index("b answers again")


def test_a_run_that_its_command_shows_is_refused(hosts: Hosts):
    for box in hosts.nodes.values():
        box.is_detached = False
        box.write(100)
    parts = (part_of("a"), part_of("b"))
    write_deployment(hosts.paths.root, Deployment(run_id="r", parts=parts))
    hosts.runs_for(*[nothing] * 9)
    with pytest.raises(ConfigError, match="not detached") as caught:
        attach(hosts)
    assert "tianji logs -f r" in caught.value.fix


def test_hosts_of_which_none_answers_are_an_error(hosts: Hosts):
    hosts.silent = {"a", "b"}
    with pytest.raises(HostUnreachableError):
        attach(hosts)


def test_no_outcome_is_invented_while_the_host_that_knows_is_silent(hosts: Hosts):
    hosts.runs_for(nothing)
    looked = hosts.nodes["a"]._bring_results

    def vanish() -> None:
        looked()
        if len([c for c in hosts.nodes["a"].commands if FORMER_INSPECTOR in c]) == 2:
            hosts.silent = {"a"}
            hosts.nodes["a"].files.clear()

    hosts.nodes["a"]._bring_results = vanish  # type: ignore[method-assign]
    with pytest.raises(HostUnreachableError, match="not all of the run is here"):
        attach(hosts)
    assert not hosts.paths.summary.exists()


def test_a_run_that_was_lost_has_failed(hosts: Hosts, capsys: pytest.CaptureFixture[str]):
    hosts.nodes["a"].source = None
    hosts.runs_for(nothing)
    assert attach(hosts) == 1
    assert "the run ended before it could write its summary" in capsys.readouterr().err


def test_the_panel_says_what_ctrl_c_does():
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as captured:
        console.print(panel("r", Progress(phase="running", t_s=1.0), "leaves it running"))
    assert "Ctrl-C leaves it running" in captured.get()
