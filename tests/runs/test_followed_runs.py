"""What is brought of hosts while their logs are followed, and what is printed of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import HostUnreachableError
from tests.helpers.fake_node import FakeNode
from tianji_cli.commands.logs import MAX_TAIL_BYTES, print_new, select
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Node
from tianji_cli.runs import detached
from tianji_cli.runs.detached import DetachedRun
from tianji_cli.storage.deployment import Deployment, HostPart, write_deployment
from tianji_cli.storage.run_dir import RunPaths

WAIT_S = 30.0


def part_of(name: str) -> HostPart:
    host = Host(name=name, connection="ssh", ssh_host=name, address="192.0.2.9", ports=None)
    return HostPart(host=host, python="python3", source="/w/bundles/b", run_dir="/w/runs/r")


class Box(FakeNode):
    """A host with one log."""

    def __init__(self, name: str) -> None:
        super().__init__(part_of(name).host, {})
        self.log = f"/w/runs/r/logs/{name}/actor-0.log"
        self.files = {self.log: b"one\n"}
        self.breaks = False

    def walk(self, root: str) -> dict[str, int]:
        if self.breaks:
            self.breaks = False
            raise HostUnreachableError("connection broke", where=self.name)
        return super().walk(root)


def wait_for(condition: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError("it did not come")


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    (tmp_path / "r").mkdir()
    write_deployment(tmp_path / "r", Deployment(run_id="r", parts=(part_of("a"), part_of("b"))))
    return RunPaths(tmp_path / "r")


def test_what_hosts_write_comes_over_one_connection_which_is_made_again(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detached, "BRING_S", 0.001)
    monkeypatch.setattr(detached, "RECONNECT_S", 0.001)
    boxes = {name: Box(name) for name in "ab"}
    reached: list[str] = []

    def reach(host: Host, _cancel: threading.Event) -> Node:
        reached.append(host.name)
        return boxes[host.name]

    def here(name: str) -> bytes:
        path = paths.logs / name / "actor-0.log"
        return path.read_bytes() if path.is_file() else b""

    stop = threading.Event()
    DetachedRun(paths, reach).bring_along(stop)
    try:
        wait_for(lambda: here("a") == here("b") == b"one\n")
        for name, box in boxes.items():
            box.files[box.log] += b"two of " + name.encode() + b"\n"
        wait_for(lambda: here("a") == b"one\ntwo of a\n" and here("b") == b"one\ntwo of b\n")
        assert sorted(reached) == ["a", "b"]
        boxes["a"].breaks = True
        wait_for(lambda: reached.count("a") == 2)
        boxes["a"].files[boxes["a"].log] += b"three\n"
        wait_for(lambda: here("a").endswith(b"three\n"))
    finally:
        stop.set()


@pytest.fixture
def log(paths: RunPaths) -> Path:
    (paths.logs / "a").mkdir(parents=True)
    (paths.logs / "b").mkdir()
    (paths.logs / "b" / "learner-0.log").write_text("")
    (paths.logs / "a" / "actor-0.log").write_text("")
    return paths.logs / "a" / "actor-0.log"


class Following:
    """What `logs -f` prints each time that it looks."""

    def __init__(self, paths: RunPaths, capsys: pytest.CaptureFixture[str]) -> None:
        self._paths, self._capsys = paths, capsys
        self._positions: dict[Path, int] = {}

    def look(self, *, is_last: bool = False) -> list[str]:
        print_new(select(self._paths, None), self._positions, is_last=is_last)
        return self._capsys.readouterr().out.splitlines()


def test_each_look_prints_what_is_new_log_by_log(
    paths: RunPaths, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    following = Following(paths, capsys)
    assert following.look() == []
    log.write_text("one\ntwo\nthr")
    (paths.logs / "b" / "learner-0.log").write_text("uno\n")
    assert following.look() == ["actor-0@a | one", "actor-0@a | two", "learner-0@b | uno"]
    assert following.look() == []
    log.write_text("one\ntwo\nthree\n")
    assert following.look() == ["actor-0@a | three"]


def test_a_log_that_begins_later_is_followed_too(
    paths: RunPaths, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    following = Following(paths, capsys)
    following.look()
    log.with_name("evaluator-0.log").write_text("here\n")
    assert following.look() == ["evaluator-0@a | here"]


def test_a_log_that_was_emptied_begins_anew(
    paths: RunPaths, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    following = Following(paths, capsys)
    log.write_text("much that was said before\n")
    following.look()
    log.write_text("anew\n")
    assert following.look() == ["actor-0@a | anew"]


def test_the_last_words_need_no_newline(
    paths: RunPaths, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    following = Following(paths, capsys)
    log.write_text("one\nkilled amid a li")
    assert following.look() == ["actor-0@a | one"]
    assert following.look(is_last=True) == ["actor-0@a | killed amid a li"]


def test_a_line_without_end_does_not_hold_up_the_others(
    paths: RunPaths, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    following = Following(paths, capsys)
    log.write_bytes(b"x" * MAX_TAIL_BYTES + b"y\nnext\n")
    lines = following.look()
    assert len(lines[0]) > MAX_TAIL_BYTES
    assert lines[1:] == ["actor-0@a | y", "actor-0@a | next"]
