"""A disk that fills up: traces stop first, old checkpoints stay, the run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.supervision.supervisor import SAMPLE_S
from engine.trace.checkpoint_choice import choose_checkpoint
from engine.trace.writer import LOW_DISK_BYTES
from tests.helpers.running import EASY, rows, wait_for

pytestmark = pytest.mark.processes

DISK_BYTES = 64 * 2**20
SETTINGS = (
    *EASY,
    *("-s", "stop.env_steps=null", "-s", "stop.return_threshold=null", "-s", "stop.seconds=300"),
    *("-s", "checkpoint.every_s=0.5"),
)


ENDING = (
    *EASY,
    *("-s", "stop.env_steps=null", "-s", "stop.return_threshold=null", "-s", "stop.seconds=6"),
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, small enough to be filled."""
    place = tmp_path / "disk"
    place.mkdir()
    command = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={DISK_BYTES},nr_inodes=3000",
        "tmpfs",
        str(place),
    ]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs root and the right to mount one")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    """Takes all room but so much; the fault is there when this returns."""
    ballast = disk / "ballast"
    state = os.statvfs(disk)
    left = state.f_bavail * state.f_frsize - leave_bytes
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):  # others write, too
        while left > 0:
            left -= file.write(b"\0" * min(left, 1 << 16))
    state = os.statvfs(disk)
    assert state.f_bavail * state.f_frsize <= leave_bytes + 2**16
    return ballast


def kinds(run: Path, kind: str) -> list[dict[str, object]]:
    return [row for row in rows(run, "events") if row["kind"] == kind]


def test_a_disk_that_fills_up_stops_traces_first_and_never_the_run(tianji, disk, witness):
    run = disk / "run"
    command = tianji("up", "--name", "run", "--results", str(disk), *SETTINGS)
    wait_for(lambda: len(kinds(run, "checkpoint")) > 1, 60, "checkpoints are written")
    assert kinds(run, "traces-stopped") == []

    began_s = time.monotonic()
    fill(disk, LOW_DISK_BYTES - 2**20)
    wait_for(lambda: bool(kinds(run, "traces-stopped")), 20, "traces stop")
    report_s = time.monotonic() - began_s
    before = [(run / f"trace/{name}.jsonl").stat().st_size for name in ("consumption", "episodes")]
    saved = len(kinds(run, "checkpoint"))
    wait_for(lambda: len(kinds(run, "checkpoint")) > saved + 1, 30, "it trains and saves on")
    after = [(run / f"trace/{name}.jsonl").stat().st_size for name in ("consumption", "episodes")]
    assert after == before

    ballast = fill(disk, 0)
    wait_for(lambda: "No space left" in learner_log(run) or full_event(run), 30, "it is full")
    found = choose_checkpoint(run / "checkpoints", "last")
    assert not found.refused, "what could not be written is no checkpoint"
    assert not list((run / "checkpoints").glob(".*")), "and leaves nothing"

    ballast.unlink()
    version = found.info.version
    wait_for(
        lambda: choose_checkpoint(run / "checkpoints", "last").info.version > version,
        30,
        "with room again it saves again",
    )
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end()
    assert code == 130, err
    assert "traces end early: only" in err
    summary = json.loads((run / "summary.json").read_text())
    assert "MiB are free" in summary["trace_error"]
    taken = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == taken + summary["env_steps_in_flight"]
    witness(
        "disk full",
        "traces stopped, older checkpoints whole, with room again it saved again, exit as asked",
        report_s=report_s,
        summary=summary,
    )


def test_a_full_disk_does_not_end_a_detached_run(tianji, disk):
    """What its supervisor prints goes to that disk, too: its first word finds no room there."""
    run = disk / "run"
    where = ("--results", str(disk))
    assert tianji("up", "-d", "--name", "run", *where, *SETTINGS).end(60)[0] == 0
    ballast = fill(disk, 0)
    state = run / "state/localhost.json"
    known = state.stat().st_mtime_ns
    time.sleep(3 * SAMPLE_S)
    assert state.stat().st_mtime_ns == known, "it cannot be written"
    code, out, err = tianji("status", "run", "--json", *where).end()
    assert json.loads(out)["phase"] == "running", err
    ballast.unlink()
    wait_for(lambda: state.stat().st_mtime_ns > known, 10, "with room again it is")
    code, _, err = tianji("down", "run", *where).end(60)
    assert code == 0, err
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"


def learner_log(run: Path) -> str:
    return (run / "logs/localhost/learner-0.log").read_text(errors="replace")


def full_event(run: Path) -> bool:
    return bool(kinds(run, "checkpoint-failed"))


@pytest.mark.parametrize("lack", ["bytes", "inodes"])
def test_a_disk_that_is_full_in_the_end_costs_no_outcome(tianji, disk, lack):
    """Neither the summary nor what is said of it: room for the one is taken when the run begins."""
    run = disk / "run"
    command = tianji("up", "--json", "--name", "run", "--results", str(disk), *ENDING)
    wait_for(lambda: len(rows(run, "consumption")) > 3, 60, "it trains")
    if lack == "bytes":
        fill(disk, 0)
    else:
        take_all_inodes(disk)
    code, out, err = command.end(60)
    assert code == 1, "what was learnt last is lost, so the run has failed"
    assert "Traceback" not in err
    assert "its last checkpoint was not written: [Errno 28] No space left on device" in err
    summary = json.loads(out)
    assert (summary["status"], summary["stop_reason"]) == ("failed", "seconds")
    assert json.loads((run / "summary.json").read_text()) == summary
    if lack == "inodes":
        assert "nothing is left on any host, but this cannot be recorded here: No space left" in err
        assert not json.loads((run / "deployment.json").read_text())["is_collected"]
    assert not list(run.glob("*.part")) + list(run.glob(".*.tmp"))


def take_all_inodes(disk: Path) -> None:
    with contextlib.suppress(OSError):
        for number in range(200_000):
            (disk / f"ballast-{number}").touch()
    assert os.statvfs(disk).f_favail == 0
