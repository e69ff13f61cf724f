"""How keepers end, and what becomes of their commands and of whoever waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from engine.errors import HostUnreachableError
from tests.helpers.keepers import KeptNode, is_gone, read_all, until
from tests.helpers.paths import REPOSITORY
from tianji_cli.connectors.piped.channel import ProcessChannel
from tianji_cli.connectors.piped.link import KeeperLink, KeeperNotStartedError, start_keeper
from tianji_cli.connectors.piped.program import KeeperProgram, keeper_program


def test_a_killed_keeper_ends_all_that_waits_and_names_its_host(tmp_path: Path) -> None:
    node = KeptNode()
    connection = node.spawn(["sh", "-c", "cat; echo over > over"], {}, str(tmp_path))
    errors: list[Exception] = []

    def wait() -> None:
        try:
            node.run(["sleep", "60"], 60)
        except HostUnreachableError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: len(psutil.Process(node.keeper_pid).children()) == 2)
    children = psutil.Process(node.keeper_pid).children()
    os.kill(node.keeper_pid, signal.SIGKILL)
    waiting.join(60)
    assert read_all(connection.from_supervisor) == b""
    assert connection.wait(60)
    assert "the connection broke: its keeper ended" in connection.error_output()
    with pytest.raises(OSError, match=r"pipe|reset"):
        os.write(connection.to_supervisor, b"x")
    actions: list[Callable[[], object]] = [
        lambda: node.run(["true"], 5),
        lambda: node.put("/tmp/x", b""),
        lambda: node.spawn(["true"], {}),
        lambda: node.walk("/tmp"),
    ]
    for action in actions:
        with pytest.raises(HostUnreachableError) as caught:
            action()
        errors.append(caught.value)
    assert {error.where for error in errors if isinstance(error, HostUnreachableError)} == {"box"}
    until((tmp_path / "over").exists)
    for child in children:
        if child.is_running():
            child.kill()
    node.close()


CLIENT = """
import os, sys
from tests.helpers.keepers import KeptNode, is_gone
node = KeptNode()
connection = node.spawn(["sh", "-c", "echo $$; cat; echo over > over"], {}, sys.argv[1])
command = os.read(connection.from_supervisor, 100).decode().strip()
print(node.keeper_pid, command, flush=True)
node.run(["sh", "-c", "echo $$ > limited; exec sleep 60"], 60) if sys.argv[2:] else sys.stdin.read()
"""


@pytest.mark.parametrize("runs", [False, True], ids=["waits", "runs a command"])
def test_a_killed_client_leaves_nothing(tmp_path: Path, runs: bool) -> None:
    """The end of file goes on to the commands; one that was waited for is killed."""
    words = [sys.executable, "-c", CLIENT, str(tmp_path), *(["run"] if runs else [])]
    client = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
    )
    assert client.stdout is not None
    keeper, command = map(int, client.stdout.readline().split())
    pids = {keeper, command}
    if runs:
        until(lambda: (tmp_path / "limited").exists() and (tmp_path / "limited").read_text())
        pids.add(int((tmp_path / "limited").read_text()))
    assert not any(is_gone(pid) for pid in pids)
    client.kill()
    client.communicate()
    until(lambda: all(is_gone(pid) for pid in pids))
    assert (tmp_path / "over").exists(), "it has read the end of its input"


def test_a_keeper_stays_for_a_command_that_ignores_its_input() -> None:
    """Otherwise a manager would kill the command with the keeper, or lose sight of it."""
    node = KeptNode()
    connection = node.spawn(["sh", "-c", "echo $$; exec sleep 60"], {})
    pid = int(os.read(connection.from_supervisor, 100))
    keeper = node.keeper_pid
    node.close()
    with pytest.raises(psutil.TimeoutExpired):
        psutil.Process(keeper).wait(0.3)
    os.kill(pid, signal.SIGTERM)
    until(lambda: is_gone(keeper))


def test_a_program_that_detaches_is_on_its_own(tmp_path: Path) -> None:
    node = KeptNode()
    script = "echo $$; exec <&- >&- 2>&-; exec sleep 60"
    connection = node.spawn(["sh", "-c", script], {})
    pid = int(read_all(connection.from_supervisor))
    keeper = node.keeper_pid
    node.close()
    until(lambda: is_gone(keeper))
    assert not is_gone(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_manager_that_ends_all_processes_leaves_the_keeper_to_fetch_files() -> None:
    node = KeptNode()
    connection = node.spawn(
        ["sh", "-c", "trap 'echo told; exit' TERM; echo up; while sleep 0.05; do :; done"], {}
    )
    assert os.read(connection.from_supervisor, 100) == b"up\n"
    family = [psutil.Process(node.keeper_pid), *psutil.Process(node.keeper_pid).children(True)]
    for process in family:
        process.terminate()
    assert read_all(connection.from_supervisor) == b"told\n"
    assert node.run(["echo", "on"], 10).stdout == "on\n"
    node.close()


def test_a_keeper_that_hears_nothing_gives_up() -> None:
    program = keeper_program(0.3)
    channel = ProcessChannel(program.words(sys.executable))
    link = KeeperLink("box", channel)
    link.start(program, 20)
    call = link.call(
        "spawn",
        {"words": ["cat"], "env": {}, "directory": None, "has_input": True, "limit_s": None},
    )
    *_, (end, _) = call.frames(20)
    assert end["code"] == 0, "it has read the end of its input"
    until(lambda: is_gone(channel.process.pid))
    with pytest.raises(HostUnreachableError, match="the connection broke"):
        list(link.call("exists", {"path": "/"}).frames(20))


def test_beats_keep_a_keeper() -> None:
    node = KeptNode(lease_s=8.0)  # longer than a busy machine stands still
    connection = node.spawn(["sh", "-c", "sleep 8.5; echo on"], {})
    assert read_all(connection.from_supervisor) == b"on\n"
    node.close()


def test_a_keeper_that_does_not_answer_is_given_up() -> None:
    """A manager can be silent for minutes about a node that has died."""
    node = KeptNode(lease_s=4.0)
    connection = node.spawn(["cat"], {})
    os.write(connection.to_supervisor, b"word")
    assert os.read(connection.from_supervisor, 4) == b"word"
    os.kill(node.keeper_pid, signal.SIGSTOP)
    assert read_all(connection.from_supervisor) == b""
    assert connection.wait(60)
    assert "nothing has come for" in connection.error_output()
    with pytest.raises(HostUnreachableError, match="nothing has come for"):
        node.run(["true"], 5)
    os.kill(node.keeper_pid, signal.SIGKILL)
    node.close()


def test_a_frozen_keeper_is_unreachable_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tianji_cli.connectors.piped.node.SILENCE_S", 0.3)
    monkeypatch.setattr("tianji_cli.connectors.piped.channel.SILENCE_S", 0.5)
    monkeypatch.setattr("tianji_cli.connectors.piped.node.GRACE_S", 0.1)
    node = KeptNode()
    os.kill(node.keeper_pid, signal.SIGSTOP)
    actions: list[Callable[[], object]] = [
        lambda: node.run(["true"], 0.2),
        lambda: node.read("/etc/hostname"),
        lambda: node.put("/tmp/x", bytes(10_000_000)),
    ]
    for action in actions:
        with pytest.raises(HostUnreachableError, match=r"no answer|timed out") as caught:
            action()
        assert caught.value.where == "box"
    os.kill(node.keeper_pid, signal.SIGKILL)
    node.close()


def test_answers_that_are_none_are_said_so() -> None:
    def open_channel(program: KeeperProgram) -> ProcessChannel:
        script = (
            f"printf '\\n{program.mark} ready\\n'; head -c 1000 >/dev/null; echo 'Killed: memory'"
        )
        return ProcessChannel(["sh", "-c", script])

    with pytest.raises(KeeperNotStartedError, match="Killed: memory"):
        start_keeper("box", open_channel, lease_s=None)
