"""Faults of the machine below a run: memory that runs out, a wall clock that is set."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.host.usage import count_oom_kills
from tests.helpers.process_fixtures import OWN_PATH
from tests.helpers.running import EASY, ENDLESS, rows, wait_for

pytestmark = pytest.mark.processes

LIMIT_BYTES = 48 * 2**20
HOUR_S = 3600.0
STEPPED_CLOCK = Path(__file__).with_name("stepped_clock")


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group whose processes may take little memory, of version 2 or 1."""
    name = f"tianji-test-{os.getpid()}"
    own = Path("/proc/self/cgroup").read_text().splitlines()
    paths = {key: path for _, keys, path in (line.split(":", 2) for line in own)
             for key in keys.split(",")}  # fmt: skip
    for base, limit in (
        (Path("/sys/fs/cgroup") / paths.get("", "/").lstrip("/"), "memory.max"),
        (Path("/sys/fs/cgroup/memory") / paths.get("memory", "/").lstrip("/"),
         "memory.limit_in_bytes"),
    ):  # fmt: skip
        group = base / name
        if not (base / "cgroup.procs").exists():
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        if not (group / limit).exists():
            group.rmdir()
            continue
        (group / limit).write_text(str(LIMIT_BYTES))
        yield group
        wait_for(lambda group=group: not (group / "cgroup.procs").read_text(), 10, "it is empty")
        group.rmdir()
        return
    pytest.skip("no control group for memory can be made here")


@pytest.mark.slow
def test_a_role_that_runs_out_of_memory_is_told_apart(tianji, tmp_path, witness, small_memory):
    if (before := count_oom_kills()) is None:
        pytest.skip("this kernel does not count such kills")
    run = tmp_path / "results/run"
    command = tianji("up", "--name", "run", "-s", "env.id=broken_env:Hungry-v0", *ENDLESS)
    command.wait_for(lambda: len(rows(run, "consumption")) > 3, "training")
    actor = command.role("actor-1")
    (small_memory / "cgroup.procs").write_text(str(actor.pid))
    wait_for(lambda: len(rows(run, "resources")) > 8, 20, "its memory was measured")
    began_s = time.monotonic()
    (tmp_path / "eat").touch()
    wait_for(lambda: (count_oom_kills() or 0) > before, 30, "the kernel has killed it")
    (tmp_path / "eat").unlink()

    def restarts() -> list[dict[str, object]]:
        return [row for row in rows(run, "events") if row["kind"] == "restarted"]

    wait_for(lambda: bool(restarts()), 10, "it was replaced")
    report_s = time.monotonic() - began_s
    detail = str(restarts()[0]["detail"])
    assert restarts()[0]["role"] == "actor-1"
    assert "SIGKILL, out of memory by the kernel's count" in detail
    assert "MiB in the last samples" in detail
    command.process.send_signal(signal.SIGINT)
    assert command.end()[0] == 130
    summary = json.loads((run / "summary.json").read_text())
    assert summary["restarts"] == 1
    witness(
        "memory runs out (OOM kill)",
        f"`{detail.partition(';')[0]}`, replaced, trained on",
        report_s=report_s,
        summary=summary,
    )


def told_of_clock(run: Path) -> list[str]:
    return [str(row["detail"]) for row in rows(run, "events") if row["kind"] == "clock-set"]


def test_setting_the_wall_clock_changes_no_duration(tianji, tmp_path, witness):
    run, clock = tmp_path / "results/run", tmp_path / "clock"
    path = os.pathsep.join((str(STEPPED_CLOCK), OWN_PATH))
    began_s = time.monotonic()
    settings = (*ENDLESS, *EASY)
    command = tianji("up", "--name", "run", *settings, PYTHONPATH=path, STEPPED_CLOCK=str(clock))
    begun_s = 0.0
    for number, offset_s in enumerate((HOUR_S, -HOUR_S), 1):
        trained = len(rows(run, "consumption"))
        command.wait_for(lambda more=trained + 20: len(rows(run, "consumption")) > more, "training")
        clock.write_text(str(offset_s))
        # A role asks the wall clock when it is started and no more, so one is.
        command.role("actor-1").send_signal(signal.SIGKILL)
        felt = tmp_path / f"felt-tj-forkserver-{offset_s:+.0f}"
        wait_for(felt.exists, 20, "the run has seen the other time")
        begun_s = begun_s or time.monotonic()
        wait_for(lambda n=number: len(told_of_clock(run)) == n, 20, "it is noted")
    wait_for(lambda: any(row["epoch"] == 2 for row in rows(run, "production")), 30, "it goes on")
    stepped_s = time.monotonic() - begun_s
    command.process.send_signal(signal.SIGINT)
    assert command.end()[0] == 130
    took_s = time.monotonic() - began_s
    summary = json.loads((run / "summary.json").read_text())
    assert stepped_s < summary["wall_s"] < took_s
    for table in ("consumption", "ledger", "events", "weights"):
        times_s = [float(str(row["t_s"])) for row in rows(run, table)]
        assert min(times_s) >= 0
        assert max(times_s) < took_s
    moved = [f"the wall clock was set by {moved_s:+.1f} s" for moved_s in (HOUR_S, -2 * HOUR_S)]
    assert told_of_clock(run) == moved
    witness(
        "wall clock set one hour forward, then back, while a run goes on",
        f"noted twice; {summary['wall_s']:.0f} s of training counted in {took_s:.0f} s, no row out"
        " of time",
        summary=summary,
    )
