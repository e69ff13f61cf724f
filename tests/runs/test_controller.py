"""Versions at the handshake, phases of the host's link, files that come home."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import pytest

import engine
from engine.control_protocol import Hello, Refused
from engine.errors import ConfigError, VersionMismatchError
from tests.helpers.fake_node import FakeNode
from tianji_cli.commands.logs import select
from tianji_cli.config.inventory import Host
from tianji_cli.provisioning.findings import Finding, complete, names_of
from tianji_cli.runs.controller import check_versions, refusal
from tianji_cli.runs.joining import words_of_laggards
from tianji_cli.runs.mirror import fetch
from tianji_cli.storage.deployment import Deployment, HostPart, read_deployment, write_deployment
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.storage.takings import Share

HOST = msgspec.convert(
    {"name": "a", "connection": "ssh", "ssh_host": "a", "address": "", "ports": None}, Host
)
HEAD = Share("a", is_head=True)
PART = HostPart(host=HOST, python="python3", source="/w/bundles/b", run_dir="/w/runs/r")


def test_the_same_release_is_welcome() -> None:
    here = platform.python_version()
    check_versions(PART, Hello(protocol=engine.PROTOCOL_VERSION, python=here, tianji="0.0.1"))


def test_another_protocol_names_both_and_what_mends_it() -> None:
    hello = Hello(protocol=999, python=platform.python_version(), tianji="9.9.9")
    with pytest.raises(VersionMismatchError) as caught:
        check_versions(PART, hello)
    error = caught.value
    assert error.exit_code == 6
    assert error.where == "a"
    for part in ("9.9.9", "protocol 999", engine.__version__):
        assert part in error.what
    assert "ssh a rm -rf /w/bundles/b" in error.fix


def test_another_python_names_both() -> None:
    hello = Hello(protocol=engine.PROTOCOL_VERSION, python="3.8.1", tianji=engine.__version__)
    with pytest.raises(VersionMismatchError) as caught:
        check_versions(PART, hello)
    assert "3.8.1" in caught.value.what
    assert platform.python_version() in caught.value.what
    assert "`python:`" in caught.value.fix


def test_what_a_host_refuses_names_it() -> None:
    report = Refused(exit_code=2, what="no module 'own'", where="modules", fix="install it")
    error = refusal(report, "a")
    assert isinstance(error, ConfigError)
    assert (error.what, error.where, error.fix) == ("a: no module 'own'", "modules", "install it")
    assert refusal(report).what == "no module 'own'", "on this machine nobody asks where"


def test_growing_files_come_by_what_is_new(tmp_path: Path) -> None:
    node = FakeNode(HOST, {})
    node.files = {
        "/r/trace/events.jsonl": b"one\n",
        "/r/logs/a/actor-0.log": b"x",
        "/r/summary.json": b"{}",
        "/r/checkpoints/.v1.tmp": b"half",
    }
    fetch(node, HEAD, "/r", tmp_path, everything=False)
    node.files["/r/trace/events.jsonl"] += b"two\n"
    fetch(node, HEAD, "/r", tmp_path, everything=False)
    fetch(node, HEAD, "/r", tmp_path, everything=False)
    assert (tmp_path / "trace" / "events.jsonl").read_bytes() == b"one\ntwo\n"
    assert not (tmp_path / "summary.json").exists()
    fetch(node, HEAD, "/r", tmp_path, everything=True)
    assert (tmp_path / "summary.json").read_bytes() == b"{}"
    assert not (tmp_path / "checkpoints").exists()


def test_nothing_of_a_host_lands_outside_the_run(tmp_path: Path) -> None:
    node = FakeNode(HOST, {})
    node.files = {"/r/../../evil": b"x", "/r/logs/../../../evil2": b"x"}
    fetch(node, HEAD, "/r", tmp_path / "run", everything=True)
    assert not list(tmp_path.rglob("evil*"))


def test_a_deployment_is_kept(tmp_path: Path) -> None:
    part = HostPart(host=HOST, python="/p", source="/s", run_dir="/r")
    deployment = Deployment(run_id="r", parts=(part,))
    write_deployment(tmp_path, deployment)
    assert read_deployment(tmp_path) == deployment
    (tmp_path / "deployment.json").unlink()
    with pytest.raises(ConfigError, match="no processes of its own"):
        read_deployment(tmp_path)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        (None, ["actor-0@a", "learner-0@a", "actor-1@b", "actor-10@b"]),
        ("actor", ["actor-0@a", "actor-1@b", "actor-10@b"]),
        ("actor-1", ["actor-1@b"]),
        ("@a", ["actor-0@a", "learner-0@a"]),
        ("actor@b", ["actor-1@b", "actor-10@b"]),
    ],
)
def test_a_word_selects_logs(tmp_path: Path, word: str | None, found: list[str]) -> None:
    for name in ("a/actor-0", "a/learner-0", "b/actor-1", "b/actor-10"):
        path = tmp_path / "logs" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    chosen = select(RunPaths(tmp_path), word)
    assert [f"{path.stem}@{path.parent.name}" for path in chosen] == found


def test_an_unknown_role_gets_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a" / "actor-0.log"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(ConfigError) as caught:
        select(RunPaths(tmp_path), "actr-0@a")
    assert "actor-0@a" in caught.value.fix


def test_what_was_not_asked_is_said_so() -> None:
    findings = complete([Finding(probe="python", verdict="failed", detail="none")], "ssh")
    assert [finding.probe for finding in findings] == list(names_of("ssh"))
    skipped = next(finding for finding in findings if finding.probe == "disk")
    assert (skipped.verdict, skipped.detail) == ("skipped", "could not be asked: python failed")


def test_laggards_are_named_with_their_last_words(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.trace.mkdir()
    joined = {"table": "events", "t_s": 1.0, "kind": "joined", "host": "a", "detail": ""}
    row = msgspec.json.encode({**joined, "role": "actor-0"})
    (paths.trace / "events.jsonl").write_bytes(row + b"\n")
    for name in ("a/actor-0", "a/coordinator", "b/actor-1"):
        path = paths.logs / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one\ntwo\n")
    words = words_of_laggards(paths)
    assert words == "\n    actor-1 on b logged last:\n        one\n        two"
