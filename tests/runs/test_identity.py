"""Processes by identity, states on disk, sockets of killed supervisors, the agenda, clocks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from engine.clock import ManualClock, TimerQueue
from engine.errors import PreflightError
from engine.host.endpoints import Endpoints, sweep_stale
from engine.host.process_identity import (
    RUN_VARIABLE,
    ProcessId,
    await_end,
    descendants,
    end_all,
    find_marked,
    is_alive,
    kill_all,
    kill_marked,
    mark,
    send_signal,
)
from engine.supervision.host_state import HostState, read_state, state_path, write_state
from engine.supervision.run_inspector import look, stop
from tianji_cli.lab.processes import LabProcessId
from tianji_cli.storage.clock_sync import ClockAnswer, ClockOffset, estimate, relative_to

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]


HOLD = [*SLEEP[:2], "held = bytearray(300 << 20); " + SLEEP[2]]
"""Touches so much memory that the kernel needs a while to end it."""
NEVER_REAP = "import subprocess, time; c = subprocess.Popen(['true'], stdout=-3)"
NEVER_REAP += "; print(c.pid, flush=True); time.sleep(60)"


def sleeper(
    run: str, run_dir: Path = Path("/runs"), command: list[str] = SLEEP, attempt: str = ""
) -> subprocess.Popen[bytes]:
    env = {**os.environ, "TIANJI_RUN": mark(run, "h", str(run_dir), attempt)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_pid_alone_is_nobody() -> None:
    own = ProcessId.of(os.getpid())
    assert own is not None
    assert is_alive(own)
    other = ProcessId(own.pid, own.started + 1)
    assert not is_alive(other)
    assert not send_signal(other, signal.SIGKILL)


def test_a_zombie_is_gone() -> None:
    process = sleeper("zombie")
    known = ProcessId.of(process.pid)
    assert known is not None
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(known)
    end(process)


def test_who_was_killed_is_gone_when_that_is_said() -> None:
    """One look right after the signal would find a process of much memory still there."""
    large = sleeper("large", command=HOLD)
    known = ProcessId.of(large.pid)
    assert known is not None
    try:
        assert kill_marked(mark("large", "h", "/runs"), spare=set()) == [large.pid]
        assert not is_alive(known)
    finally:
        end(large)


def test_what_the_killed_had_started_meanwhile_is_killed_too(monkeypatch) -> None:
    """It was not there yet when the table of processes was read."""
    first, later = sleeper("fleeing"), []

    def forks_before_it_dies(process: ProcessId, number: int) -> bool:
        if not later:
            later.append(sleeper("fleeing"))
        return send_signal(process, number)

    monkeypatch.setattr("engine.host.process_identity.send_signal", forks_before_it_dies)
    try:
        killed = kill_marked(mark("fleeing", "h", "/runs"), spare=set())
        assert killed == [first.pid, later[0].pid]
        assert not find_marked(mark("fleeing", "h", "/runs"))
    finally:
        for process in (first, *later):
            end(process)


def test_a_zombie_that_nobody_reaps_is_not_waited_for() -> None:
    """As where process 1 of a container takes no statuses."""
    parent = subprocess.Popen([*SLEEP[:2], NEVER_REAP], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        while (child := ProcessId.of(pid)) is not None:
            assert await_end([child], 10.0) == []
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    finally:
        end(parent)


def test_who_does_not_end_is_named_when_its_time_is_over() -> None:
    process = sleeper("stays")
    known = ProcessId.of(process.pid)
    assert known is not None
    assert await_end([known], 0.05) == [known]
    end(process)


def test_marked_processes_are_found_and_killed_and_others_are_not() -> None:
    ours, others = sleeper("ours"), sleeper("others")
    try:
        assert set(find_marked(mark("ours", "h", "/runs"))) == {ours.pid}
        assert {ours.pid, others.pid} <= set(find_marked())
        assert kill_marked(mark("ours", "h", "/runs"), spare=set()) == [ours.pid]
        assert ours.wait(60) == -signal.SIGKILL
        assert others.poll() is None
    finally:
        end(ours)
        end(others)


def test_another_attempt_at_the_same_directory_is_somebody_else(tmp_path: Path) -> None:
    """Two commands may be given one directory; what the loser ends must not be the winner's."""
    marks = [mark("r", "h", str(tmp_path), attempt) for attempt in ("", "a", "b")]
    assert len(set(marks)) == 3
    winner, old = sleeper("r", tmp_path, attempt="a"), sleeper("r", tmp_path)
    try:
        known = ProcessId.of(winner.pid)
        assert known is not None
        state = HostState(run_id="r", host="h", supervisor=known, attempt="a")
        write_state(state_path(tmp_path, "h"), state)
        left = stop(tmp_path, "r", "h", within_s=5.0, attempt="b")
        assert (left.state, left.marked, left.is_supervised) == (None, [], False)
        assert (winner.poll(), old.poll()) == (None, None)
        assert look(tmp_path, "r", "h", "a").marked == [winner.pid]
        stop(tmp_path, "r", "h", within_s=5.0, attempt="a")
        assert not is_alive(known)
        assert old.poll() is None
    finally:
        end(winner)
        end(old)


def test_a_run_of_an_earlier_release_is_still_ended(tmp_path: Path) -> None:
    """Its mark has no attempt, nor has its deployment."""
    earlier = sleeper("r", tmp_path)
    try:
        known = ProcessId.of(earlier.pid)
        document = {"run_id": "r", "host": "h", "supervisor": known}
        path = state_path(tmp_path, "h")
        path.parent.mkdir()
        path.write_bytes(msgspec.json.encode(document))
        command = [sys.executable, "-m", "engine.supervision.run_inspector"]
        arguments = ["stop", str(tmp_path), "r", "h", "5.0"]
        done = subprocess.run([*command, *arguments], capture_output=True, check=True)
        assert earlier.wait(60) == -signal.SIGTERM
        assert msgspec.json.decode(done.stdout)["marked"] == []
    finally:
        end(earlier)


@pytest.mark.parametrize("marked_as", ["", "r@h:elsewhere"])
def test_a_process_without_the_runs_mark_is_no_supervisor_of_it(
    tmp_path: Path, marked_as: str
) -> None:
    """After a reboot pid and start may be those of somebody else: ticks count from the boot."""
    env = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
    if marked_as:
        env[RUN_VARIABLE] = marked_as
    stranger = subprocess.Popen(SLEEP, env=env, stdout=subprocess.PIPE)
    try:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        known = ProcessId.of(stranger.pid)
        assert known is not None
        write_state(state_path(tmp_path, "h"), HostState(run_id="r", host="h", supervisor=known))
        assert not look(tmp_path, "r", "h").is_supervised
        left = stop(tmp_path, "r", "h", within_s=5.0)
        assert not left.was_forced
        assert stranger.poll() is None
    finally:
        end(stranger)


def test_states_are_replaced_whole(tmp_path: Path) -> None:
    own = ProcessId.of(os.getpid())
    assert own is not None
    path = state_path(tmp_path, "h")
    assert read_state(path) is None
    state = HostState(run_id="r", host="h", supervisor=own, roles={"actor-0": own})
    write_state(path, state)
    assert read_state(path) == state
    assert [item.name for item in path.parent.iterdir()] == ["h.json"]
    path.write_text('{"half":')
    assert read_state(path) is None


def test_stop_ends_what_was_recorded_and_nothing_else(tmp_path: Path) -> None:
    supervisor, stranger = sleeper("r", tmp_path), sleeper("r", tmp_path / "elsewhere")
    try:
        known = ProcessId.of(supervisor.pid)
        assert known is not None
        write_state(state_path(tmp_path, "h"), HostState(run_id="r", host="h", supervisor=known))
        assert look(tmp_path, "r", "h").is_supervised
        left = stop(tmp_path, "r", "h", within_s=5.0)
        assert not is_alive(known)
        assert (left.is_supervised, left.marked) == (False, [])
        assert stranger.poll() is None
    finally:
        end(supervisor)
        end(stranger)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """For Unix sockets, whose paths may have 107 characters; pytest's own may be longer."""
    with tempfile.TemporaryDirectory(prefix="tj-") as name:
        yield Path(name)


def test_sockets_of_a_killed_supervisor_are_swept(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    dead = short_path / f"tianji-{namespace}-{os.getpid()}-1-xyz"
    strange = short_path / "tianji-something-else"
    elsewhere = short_path / f"tianji-{namespace + 1}-{os.getpid()}-1-xyz"
    for directory in (dead, strange, elsewhere):
        directory.mkdir()
    endpoints = Endpoints()
    first, second = endpoints.reserve(2, None)
    assert first != second
    home = f"{short_path}/tianji-{os.getuid()}"
    assert first.startswith(f"ipc://{home}/tianji-{namespace}-{os.getpid()}-")
    assert not dead.exists()
    assert strange.exists()
    assert elsewhere.exists()
    assert sweep_stale() == []
    endpoints.release()
    assert {item.name for item in short_path.iterdir()} == {strange.name, elsewhere.name}


def test_ports_are_reserved_at_the_address() -> None:
    endpoints = Endpoints()
    found = endpoints.reserve(2, ("127.0.0.1", 41000, 41100))
    assert all(endpoint.startswith("tcp://127.0.0.1:410") for endpoint in found)
    assert Endpoints().reserve(0, None) == []
    with pytest.raises(PreflightError):
        endpoints.reserve(5, ("127.0.0.1", 41000, 41002))
    endpoints.release()


def test_the_agenda_keeps_time() -> None:
    clock, done = ManualClock(), list[str]()
    timers = TimerQueue(clock.now_s)
    assert timers.timeout_s() is None
    timers.add(2.0, lambda: done.append("late"))
    timers.every(1.0, lambda: done.append("tick"))
    timers.run_due()
    assert done == ["tick"]
    assert timers.timeout_s() == 1.0
    clock.advance(2.5)
    timers.run_due()
    assert done == ["tick", "tick", "late"]


def test_the_fastest_answer_decides() -> None:
    answers = [
        ClockAnswer(0, 5_000, 1_000),
        ClockAnswer(0, 5_060, 100),
        ClockAnswer(0, 9_999, 5_000),
    ]
    assert estimate(answers) == ClockOffset(5_010, 50)


def test_offsets_are_relative_to_the_coordinators_host() -> None:
    offsets = {"a": ClockOffset(100, 1), "b": ClockOffset(30, 2)}
    assert relative_to("a", offsets) == {"a": ClockOffset(0, 0), "b": ClockOffset(-70, 3)}


def without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other systems than Linux, or where no descriptor is left."""

    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.parametrize("has_pidfds", [True, False])
def test_processes_are_killed_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, has_pidfds: bool
) -> None:
    if not has_pidfds:
        without_pidfds(monkeypatch)
    large, small = sleeper("r", command=HOLD), sleeper("r")
    try:
        known = [found for child in (large, small) if (found := ProcessId.of(child.pid))]
        assert await_end(known[1:], 0.02) == known[1:]
        assert kill_all([*known, ProcessId(known[0].pid, known[0].started + 1)], 5.0) == []
        assert not any(map(is_alive, known))
        assert not send_signal(known[0], signal.SIGKILL)
        assert await_end(known, 0.0) == []
    finally:
        end(large)
        end(small)


def test_a_later_process_of_the_same_pid_is_not_signalled() -> None:
    other = sleeper("r")
    try:
        known = ProcessId.of(other.pid)
        assert known is not None
        earlier = ProcessId(known.pid, known.started - 1)
        assert not send_signal(earlier, signal.SIGKILL)
        assert await_end([earlier], 5.0) == []
        assert is_alive(known)
    finally:
        end(other)


FAMILY = """import subprocess, sys, time
child = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
grandchild = subprocess.Popen(child, start_new_session=True, stdout=subprocess.PIPE)
grandchild.stdout.readline()
print(flush=True)
time.sleep(60)
"""


def test_descendants_are_found_and_ended_also_in_sessions_of_their_own() -> None:
    parent = sleeper("r", command=[*SLEEP[:2], FAMILY])
    try:
        known = ProcessId.of(parent.pid)
        assert known is not None
        (grandchild,) = descendants([known])
        assert psutil.Process(grandchild.pid).ppid() == parent.pid
        assert descendants([ProcessId(known.pid, known.started + 1)]) == []
        everybody = [known, grandchild]
        end_all(lambda: [one for one in everybody if is_alive(one)], patience_s=5.0)
        assert not any(map(is_alive, everybody))
        assert parent.wait() == -signal.SIGTERM
    finally:
        end(parent)


def test_who_does_not_listen_is_killed() -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP[2]}"
    process = sleeper("r", command=[*SLEEP[:2], deaf])
    try:
        known = ProcessId.of(process.pid)
        assert known is not None
        end_all(lambda: [known] if is_alive(known) else [], patience_s=0.1)
        assert process.wait(60) == -signal.SIGKILL
    finally:
        end(process)


def test_the_labs_state_still_calls_it_start_ticks() -> None:
    own = LabProcessId.of(os.getpid())
    assert own is not None
    data = msgspec.json.encode(own)
    assert msgspec.json.decode(data) == {"pid": own.pid, "start_ticks": own.started}
    assert msgspec.json.decode(data, type=LabProcessId) == own
    assert is_alive(own)
