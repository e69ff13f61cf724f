"""Sockets lie where nobody else can reach, and nothing that others do nearby ends a run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import PreflightError
from engine.host.endpoints import make_socket_dir, remove_socket_dir, sweep_stale

NAMESPACE = Path("/proc/self/ns/pid").stat().st_ino
DEAD = f"tianji-{NAMESPACE}-{os.getpid()}-1-"
"""This process's pid, but not its start time."""


@pytest.fixture
def tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="tj-", dir="/tmp") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield Path(name)


def own_home(tmp: Path) -> Path:
    return tmp / f"tianji-{os.getuid()}"


def test_it_is_the_users_alone_and_nothing_is_left(tmp: Path) -> None:
    first, second = make_socket_dir(), make_socket_dir()
    assert first.parent == second.parent == own_home(tmp)
    for directory in (first, first.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    remove_socket_dir(first)
    assert second.is_dir()
    remove_socket_dir(second)
    assert list(tmp.iterdir()) == []


def test_a_directory_of_the_user_that_others_may_enter_is_closed(tmp: Path) -> None:
    own_home(tmp).mkdir(mode=0o777)
    own_home(tmp).chmod(0o777)
    assert make_socket_dir().parent == own_home(tmp)
    assert stat.S_IMODE(own_home(tmp).stat().st_mode) == 0o700


@pytest.mark.parametrize("has_runtime_dir", [True, False])
@pytest.mark.parametrize("planted", ["dangling link", "link to a directory", "file", "FIFO"])
def test_a_name_that_another_has_planted_is_gone_around(
    tmp: Path, monkeypatch: pytest.MonkeyPatch, planted: str, has_runtime_dir: bool
) -> None:
    home = own_home(tmp)
    target = tmp / "target"
    match planted:
        case "dangling link":
            home.symlink_to(tmp / "nowhere")
        case "link to a directory":
            target.mkdir()
            home.symlink_to(target)
        case "file":
            home.write_text("")
        case "FIFO":
            os.mkfifo(home)
    runtime = tmp / "runtime"
    if has_runtime_dir:
        runtime.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    directory = make_socket_dir()
    assert directory.parent == (runtime / "tianji" if has_runtime_dir else tmp)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not target.exists() or not list(target.iterdir())
    assert not (tmp / "nowhere").exists()
    remove_socket_dir(directory)
    assert not directory.exists()


def test_another_users_directory_is_not_used(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_home(tmp).mkdir()
    real = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: real + 1)
    (tmp / f"tianji-{real + 1}").mkdir()  # made by `real`, who is another user now
    assert make_socket_dir().parent == tmp


@pytest.mark.parametrize("place", ["in the shared directory", "in the user's own"])
def test_links_and_files_of_such_a_name_are_left_alone(tmp: Path, place: str) -> None:
    directory = tmp if place == "in the shared directory" else own_home(tmp)
    directory.mkdir(exist_ok=True)
    victim = tmp / "victim"
    victim.mkdir()
    (victim / "kept").write_text("")
    (directory / f"{DEAD}a").symlink_to(tmp / "nowhere")
    (directory / f"{DEAD}b").symlink_to(victim)
    (directory / f"{DEAD}c").write_text("")
    stale = directory / f"{DEAD}e"
    stale.mkdir()
    (stale / "s0").write_text("")
    assert sweep_stale() == [stale]
    assert (victim / "kept").exists()
    assert not stale.exists()


@pytest.mark.parametrize(
    "name",
    ["tianji-²-1-x", f"tianji-{NAMESPACE}-²-1-x", f"{DEAD[:-2]}²-x"],
    ids=["namespace", "pid", "time"],  # the same in every process, whatever its pids
)
def test_names_that_only_look_like_numbers_are_left_alone(tmp: Path, name: str) -> None:
    (tmp / name).mkdir()
    assert sweep_stale() == []
    assert (tmp / name).is_dir()


def test_a_directory_that_vanishes_under_the_sweep_is_no_error(
    tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run sweeps at the same time, and is faster."""
    for number in range(3):
        (tmp / f"{DEAD}{number}").mkdir()
    look = Path.lstat

    def late(path: Path) -> os.stat_result:
        if path.name.startswith(DEAD):
            path.rmdir()
        return look(path)

    monkeypatch.setattr(Path, "lstat", late)
    assert sweep_stale() == []


def test_many_begin_and_end_at_once(tmp: Path) -> None:
    """The directory of all is removed with the last, again and again, while others begin."""
    errors: list[BaseException] = []

    def begin_and_end() -> None:
        try:
            for _ in range(40):
                remove_socket_dir(make_socket_dir())
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=begin_and_end) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(tmp.iterdir()) == []


def test_a_path_that_is_too_long_says_what_to_do(
    tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(PreflightError, match="107 characters") as caught:
        make_socket_dir()
    assert "TMPDIR" in caught.value.fix
    assert list(long.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error_with_a_way_out(
    tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp / "gone"))
    with pytest.raises(PreflightError, match="cannot be made"):
        make_socket_dir()


def test_what_a_killed_process_has_left_is_swept_by_the_next(tmp: Path) -> None:
    script = (
        "import os, signal; from engine.host.endpoints import make_socket_dir;"
        "print(make_socket_dir(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp)},
        capture_output=True,
        text=True,
        check=False,
    )
    left = Path(done.stdout.strip())
    assert left.parent == own_home(tmp), done.stderr
    assert left.is_dir()
    kept = make_socket_dir()
    assert not left.exists()
    assert kept.is_dir()
    assert sweep_stale() == []
