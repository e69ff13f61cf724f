"""Commands and files through real keepers, as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.errors import DeadlineError, HostUnreachableError, PreflightError
from tests.helpers.keepers import KeptNode, is_gone, read_all, until
from tests.helpers.running import no_new_descriptor
from tianji_cli.connectors.base import MAX_DEPTH
from tianji_cli.connectors.keeper.frames import WINDOW_BYTES
from tianji_cli.connectors.piped.link import KeeperNotStartedError

LARGE = random.Random(1).randbytes(20_000_000)


@pytest.fixture(scope="module")
def node() -> Iterator[KeptNode]:
    found = KeptNode()
    yield found
    found.close()


def test_a_large_file_goes_there_and_back(node: KeptNode, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    node.put(path, LARGE)
    assert node.read(path) == LARGE
    assert node.read(path, 19_999_990) == LARGE[-10:]
    assert node.read(path, 1_000_000, 100_000) == LARGE[1_000_000:1_100_000]
    assert node.read(path, 30_000_000) == b""
    node.put(path, b"")
    assert node.read(path) == b""


def test_a_large_input_comes_back_as_output(node: KeptNode) -> None:
    connection = node.spawn(["cat"], {})

    def write() -> None:
        view = memoryview(LARGE)
        while view:
            view = view[os.write(connection.to_supervisor, view) :]
        connection.close_input()

    writer = threading.Thread(target=write)
    writer.start()
    assert read_all(connection.from_supervisor) == LARGE
    writer.join()
    assert connection.wait(60)
    connection.close()


def test_codes_words_environment_and_streams_are_the_commands_own(
    node: KeptNode, tmp_path: Path
) -> None:
    done = node.run(["sh", "-c", "echo out; echo err >&2; exit 7"], 10)
    assert (done.code, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert node.run(["sh", "-c", "kill -TERM $$"], 10).code == -1
    missing = node.run(["/no/such/program"], 10)
    assert (missing.code, missing.stderr) == (127, "/no/such/program: not found\n")
    (tmp_path / "text").write_text("no program")
    assert node.run([str(tmp_path / "text")], 10).code == 126
    assert node.run(["cat"], 10).stdout == "", "there is no input"
    assert node.run(["printf", "%s", "a\nb ' \" $(x) é \udcff"], 10).stdout == "a\nb ' \" $(x) é �"
    show = "import os; print(os.environ['A'], os.getcwd())"
    connection = node.spawn([sys.executable, "-c", show], {"A": "it's = 1"}, str(tmp_path))
    assert read_all(connection.from_supervisor).decode() == f"it's = 1 {tmp_path}\n"
    nowhere = node.spawn(["true"], {}, str(tmp_path / "none"))
    assert read_all(nowhere.from_supervisor) == b""
    assert nowhere.wait(60)
    assert nowhere.error_output() == f"{tmp_path}/none: not found"
    for word in ("a\0b", "\ud800"):
        assert node.run([word], 10).code == 126


def test_a_command_that_takes_too_long_is_killed_with_its_children(
    node: KeptNode, tmp_path: Path
) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    with pytest.raises(DeadlineError, match="took longer than 2 s") as caught:
        node.run(["sh", "-c", script], 2.0)
    assert caught.value.where == "box"
    pid = int((tmp_path / "pid").read_text())
    until(lambda: is_gone(pid))


def test_what_a_command_leaves_in_the_background_holds_up_no_answer(node: KeptNode) -> None:
    began_s = time.monotonic()
    done = node.run(["sh", "-c", "sleep 30 & echo $!"], 20)
    assert time.monotonic() - began_s < 15
    psutil.Process(int(done.stdout)).kill()


def test_a_slow_reader_bounds_what_is_sent_and_holds_up_nobody(
    node: KeptNode, tmp_path: Path
) -> None:
    progress = tmp_path / "progress"
    write = (
        "import os, sys\nfile = open(sys.argv[1], 'wb', 0)\n"
        "while True:\n os.write(1, bytes(4096))\n file.write(b'x')\n"
    )
    connection = node.spawn([sys.executable, "-c", write, str(progress)], {})
    until(lambda: progress.exists() and progress.stat().st_size * 4096 >= WINDOW_BYTES)
    for _ in range(20):
        assert node.run(["echo", "on"], 10).stdout == "on\n"
    path = str(tmp_path / "file")
    node.put(path, LARGE[:3_000_000])
    assert node.read(path) == LARGE[:3_000_000]
    assert progress.stat().st_size * 4096 < 4 * WINDOW_BYTES
    for _ in range(100):
        assert os.read(connection.from_supervisor, 65536)
    connection.close()
    assert connection.wait(60), "nobody reads what it writes"


def test_a_child_that_reads_nothing_holds_up_nobody(node: KeptNode) -> None:
    connection = node.spawn(["sleep", "60"], {})
    os.set_blocking(connection.to_supervisor, False)
    given, end_s = 0, time.monotonic() + 0.5
    while time.monotonic() < end_s:
        with contextlib.suppress(BlockingIOError):
            given += os.write(connection.to_supervisor, bytes(65536))
        time.sleep(0.01)
    assert given < 4 * WINDOW_BYTES
    assert node.run(["echo", "on"], 10).stdout == "on\n"
    (child,) = psutil.Process(node.keeper_pid).children()
    child.kill()
    assert connection.wait(60)
    with pytest.raises(OSError, match=r"pipe|reset"):
        os.write(connection.to_supervisor, b"nobody reads")
    connection.close()


def test_a_hundred_programs_at_once(node: KeptNode) -> None:
    connections = [node.spawn(["cat"], {}) for _ in range(100)]
    for number, connection in enumerate(connections):
        os.write(connection.to_supervisor, b"%d\n" % number)
    for connection in connections:
        connection.close_input()
    for number, connection in enumerate(connections):
        assert read_all(connection.from_supervisor) == b"%d\n" % number
        assert connection.wait(60)
        connection.close()


NAMES = ["é 日本", "a\nb", "it's", 'a "b" $(c)', "-rf", "\udcff\udc80", " "]


def test_files_may_have_any_name(node: KeptNode, tmp_path: Path) -> None:
    root = tmp_path / "r\udcfe"
    (root / "sub").mkdir(parents=True)
    names = [*NAMES, *(f"sub/{name}" for name in NAMES)]
    for name in names:
        path = f"{root}/{name}"
        assert not node.exists(path)
        assert node.read(path) == b""
        node.put(path, name.encode("utf-8", "surrogateescape"))
        assert node.exists(path)
        assert Path(path).read_bytes() == node.read(path) != b""
    assert node.walk(str(root)) == {n: len(os.fsencode(n)) for n in names}


def test_directories_are_walked_to_their_depth_and_links_left_out(
    node: KeptNode, tmp_path: Path
) -> None:
    names = {f"{place}/f{number}" for place in ("a", "a/b", "c/d", "c") for number in range(300)}
    for name in (*names, "top", "deep/" * MAX_DEPTH + "beyond"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    assert node.walk(str(tmp_path)) == dict.fromkeys({*names, "top"}, 1)
    assert node.walk(str(tmp_path / "none")) == {}


def test_what_the_host_refuses_is_an_error_that_says_so(node: KeptNode, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for refused in (
        lambda: node.put(str(tmp_path / "none" / "file"), b"x"),
        lambda: node.put(str(tmp_path), b"x" * 5_000_000),
        lambda: node.read(str(tmp_path)),
        lambda: node.read(str(tmp_path / "pipe")),
        lambda: node.read("/a\0b"),
        lambda: node.read("/\ud800"),
        lambda: node.exists("/" + "x" * 300),
    ):
        with pytest.raises(PreflightError) as caught:
            refused()
        assert caught.value.where == "box"
        assert caught.value.what.startswith("/")
        assert caught.value.fix
    assert node.read(str(tmp_path / "none" / "file")) == b""
    assert not node.exists(str(tmp_path / "pipe" / "file"))


def test_a_path_is_expanded_for_the_user_there() -> None:
    node = KeptNode(env={"HOME": "/homes/ann/"})
    paths = ("~", "~/x", "x", "/x")
    expanded = [node.expand(path) for path in paths]
    node.close()
    assert expanded == ["/homes/ann", "/homes/ann/x", "/homes/ann/x", "/x"]


@pytest.mark.parametrize(
    "noise",
    [
        "echo Welcome; echo careful >&2",
        "printf 'no end of line'",
        "head -c 3000000 /dev/zero",
        "echo tianji-00 ready",
    ],
)
def test_what_a_login_shell_says_first_is_ignored(noise: str) -> None:
    node = KeptNode(before=noise)
    assert node.run(["echo", "on"], 10).stdout == "on\n"
    node.close()


def test_the_first_interpreter_that_is_new_enough_is_taken(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text(
        f'#!/bin/sh\ncase $* in *version*) echo False;; *) exec {sys.executable} "$@";; esac\n'
    )
    old.chmod(0o755)
    node = KeptNode(
        pythons=["/no/python", "/bin/true", str(old), "~/it's/python"], env={"HOME": str(tmp_path)}
    )
    home = tmp_path / "it's"
    home.mkdir()
    (home / "python").symlink_to(sys.executable)
    assert node.link.facts["python"] == sys.version.split()[0]
    assert psutil.Process(node.keeper_pid).cmdline()[0] == f"{home}/python"
    node.close()


def test_a_host_without_python_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tianji_cli.connectors.piped.program._USUAL", ("python3",))
    node = KeptNode(pythons=["/no/python", "/bin/true"], env={"PATH": "/nowhere"})
    with pytest.raises(PreflightError, match="there is no Python") as caught:
        node.run(["true"], 10)
    assert caught.value.where == "box"


@pytest.mark.parametrize("says", ["out", "err"])
def test_what_is_no_keeper_is_quoted(says: str) -> None:
    words = f"echo 'Permission denied' {'>&2' if says == 'err' else ''}; exit 1"
    with pytest.raises(KeeperNotStartedError) as caught:
        KeptNode(before=words).run(["true"], 10)
    assert caught.value.said == "Permission denied"


def test_a_program_that_is_not_there_is_no_keeper() -> None:
    with pytest.raises(KeeperNotStartedError, match="/no/python: No such file"):
        KeptNode(pythons=["/no/python"]).run(["true"], 10)


def test_an_ended_node_leaves_no_descriptor() -> None:
    threads = set(threading.enumerate())
    with no_new_descriptor():
        node = KeptNode()
        connection = node.spawn(["cat"], {})
        os.write(connection.to_supervisor, b"word")
        assert os.read(connection.from_supervisor, 4) == b"word"
        pid = node.keeper_pid
        node.close()
        node.close()
        until(lambda: not psutil.pid_exists(pid))
        until(lambda: set(threading.enumerate()) <= threads)
    with pytest.raises(HostUnreachableError, match="closed"):
        node.run(["true"], 1)
