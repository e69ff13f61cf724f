"""The end of `up`: what it says of a run whose summary cannot be read."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.control_protocol import Failed
from engine.errors import CleanupError, RunFailedError
from engine.executors.coordinator import SUMMARY_BYTES, reserve_summary, write_summary
from engine.trace.reader import read_summary
from engine.trace.summary import CONTROLLER_LOST, KILLED, Summary
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.rebuild import rebuild_summary
from tianji_cli.analysis.remains import summary_of_remains
from tianji_cli.analysis.run import load_run
from tianji_cli.analysis.verify import examine_runs
from tianji_cli.commands import outcome as conclusion
from tianji_cli.commands.outcome import report_outcome
from tianji_cli.output import Output
from tianji_cli.runs.monitor import RunOutcome


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("writes", [True, False])
def test_what_a_killed_coordinator_leaves_is_accused_of_nothing(
    tmp_path: Path, seed: int, writes: bool
):
    """Its tables end anywhere, each at its own row; `up` rebuilds a summary, if it lives itself."""
    paths = write_synthetic_run(tmp_path / "r")
    paths.summary.unlink()
    draw = random.Random(seed)
    for table in sorted(paths.trace.glob("*.jsonl")):
        lines = table.read_bytes().splitlines(keepends=True)
        table.write_bytes(b"".join(lines[: draw.randint(0, len(lines))]) + b'{"t_s": 1.')
    if writes:
        died = Failed(address="coordinator", cause="was killed by SIGKILL", log_tail=[])
        assert report_outcome(paths, RunOutcome([died]), False, Output(verbosity=-1)) == 1
        summary = read_summary(paths.summary)
        assert summary is not None
        assert (summary.status, summary.stop_reason) == ("failed", KILLED)
        taken = summary.env_steps_consumed + summary.env_steps_dropped
        assert summary.env_steps_in_flight == summary.env_steps_collected - taken >= 0
        for row in load_run(paths).ledger:
            assert summary.env_steps_collected >= row.collected, "nothing counted is taken back"
            assert summary.env_steps_consumed >= row.consumed
    (examined,) = examine_runs([paths])
    assert examined.disagreements == []
    assert not [words for words in examined.warnings if "contradict" in words]


def test_both_ways_to_count_what_is_left_agree(tmp_path: Path):
    """The one that is quick, for who waits for `up`, and the report's."""
    paths = write_synthetic_run(tmp_path / "r", threshold=20.0)
    paths.summary.unlink()
    run = load_run(paths)
    quick, thorough = summary_of_remains(run), rebuild_summary(run)
    assert quick.reached
    for name in set(Summary.__struct_fields__) - {"time_to_threshold_s", "steps_to_threshold"}:
        if isinstance(value := getattr(thorough, name), float):
            assert getattr(quick, name) == pytest.approx(value, rel=1e-6), name
        else:
            assert getattr(quick, name) == value, name


def test_who_waits_for_the_end_does_not_wait_for_pandas(tmp_path: Path):
    """Loading it takes seconds on a busy machine, and Ctrl-C twice means at once."""
    paths = write_synthetic_run(tmp_path / "r")
    paths.summary.unlink()
    code = f"""
import sys
from pathlib import Path
from tianji_cli.commands.outcome import report_outcome
from tianji_cli.output import Output
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.runs.monitor import RunOutcome
assert report_outcome(RunPaths(Path({str(paths.root)!r})), RunOutcome(), True, Output()) == 130
assert not {{"pandas", "torch", "matplotlib"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert paths.summary.is_file()


def test_of_a_run_that_could_not_write_all_its_rows_the_rest_is_not_missed(tmp_path: Path):
    paths = write_synthetic_run(tmp_path / "r")
    summary = read_summary(paths.summary)
    assert summary is not None
    write_summary(paths.summary, replace(summary, trace_error="disk full"))
    production = paths.trace / "production.jsonl"
    production.write_bytes(b"".join(production.read_bytes().splitlines(keepends=True)[:-3]))
    (examined,) = examine_runs([paths])
    assert examined.disagreements == []
    assert examined.summary.env_steps_collected == summary.env_steps_collected


def test_rows_that_are_missing_though_the_books_were_closed_are_named(tmp_path: Path):
    paths = write_synthetic_run(tmp_path / "r")
    production = paths.trace / "production.jsonl"
    production.write_bytes(b"".join(production.read_bytes().splitlines(keepends=True)[:-3]))
    (examined,) = examine_runs([paths])
    assert "env_steps_collected" in {item.name for item in examined.disagreements}


@pytest.mark.parametrize("summary", [b'{"run_id": "cut', b'{"schema_version": 99}', b"\xff"])
def test_a_summary_that_cannot_be_read_is_one_error_and_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], summary: bytes
):
    paths = write_synthetic_run(tmp_path / "r")
    paths.summary.write_bytes(summary)
    left = RunOutcome(unclean=CleanupError("2 processes may be left"))
    with pytest.raises(RunFailedError, match="summary") as caught:
        report_outcome(paths, left, was_interrupted=False, output=Output(verbosity=-1))
    assert caught.value.where == str(paths.summary)
    assert "tianji report r" in caught.value.fix
    assert "2 processes may be left" in capsys.readouterr().err


def test_what_is_left_is_said_though_there_is_no_summary_and_none_can_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Both hosts were cut off while the roles joined: not even a manifest can be read."""
    paths = write_synthetic_run(tmp_path / "r")
    paths.summary.unlink()
    paths.manifest.write_text("{")
    left = RunOutcome(
        lost={"a": "its output ended"}, unclean=CleanupError("a: /w/r is still there")
    )
    with pytest.raises(RunFailedError, match="host a was lost"):
        report_outcome(paths, left, was_interrupted=False, output=Output(verbosity=-1))
    assert "a: /w/r is still there" in capsys.readouterr().err


@pytest.mark.parametrize(("was_interrupted", "code"), [(False, 1), (True, 130)])
def test_a_host_that_was_cut_off_and_ended_its_run_well_has_failed_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], was_interrupted: bool, code: int
):
    """Its files may come although its session has died; nobody but the user interrupts a run."""
    paths = write_synthetic_run(tmp_path / "r")
    summary = read_summary(paths.summary)
    assert summary is not None
    ended = replace(summary, status="interrupted", stop_reason=CONTROLLER_LOST)
    write_summary(paths.summary, ended)
    cut_off = RunOutcome(lost={"box1": "the node supervisor failed: its output ended"})
    assert report_outcome(paths, cut_off, was_interrupted, Output(verbosity=-1)) == code
    told = "host box1 was lost: the node supervisor failed" in capsys.readouterr().err
    assert told is not was_interrupted


SURVIVED = Failed(
    address="actor-2", cause="was killed by SIGKILL", log_tail=[], host="far", is_survived=True
)
ELSEWHERE = Failed(address="supervisor-1", cause="heard nothing", log_tail=[], host="far")
KILLER = Failed(address="the forkserver of all roles", cause="died", log_tail=[], host="head")
LOST = {"far": "its output ended", "head": "the connection broke"}


@pytest.mark.parametrize(
    ("failures", "lost", "cause"),
    [
        ([SURVIVED, ELSEWHERE], LOST, "host head was lost: the connection broke"),
        ([SURVIVED], LOST, "host head was lost: the connection broke"),
        ([SURVIVED, ELSEWHERE, KILLER], LOST, "the forkserver of all roles died"),
        ([SURVIVED, ELSEWHERE], {}, "supervisor-1 heard nothing"),
        ([SURVIVED], {"far": "its output ended"}, "host far was lost: its output ended"),
        ([SURVIVED], {}, "the run ended before it could write its summary"),
    ],
)
def test_the_cause_is_what_ended_the_coordinator_and_nothing_that_was_survived(
    tmp_path: Path, failures: list[Failed], lost: dict[str, str], cause: str
):
    """A cut-off host ended three runs, and an actor that had long been back was named."""
    paths = write_synthetic_run(tmp_path / "r")
    paths.summary.unlink()
    outcome = RunOutcome(list(failures), head="head", lost=lost)
    assert report_outcome(paths, outcome, False, Output(verbosity=-1)) == 1
    summary = read_summary(paths.summary)
    assert summary is not None
    assert summary.error == cause


@pytest.mark.parametrize(("was_interrupted", "code"), [(False, 1), (True, 130)])
def test_a_summary_that_cannot_be_written_is_told_all_the_same(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    was_interrupted: bool,
    code: int,
):
    paths = write_synthetic_run(tmp_path / "r")
    paths.summary.unlink()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(conclusion, "write_summary", refuse)
    assert report_outcome(paths, RunOutcome(), was_interrupted, Output(is_json=True)) == code
    said = capsys.readouterr()
    assert '"env_steps_collected"' in said.out
    assert "the summary cannot be written: No space left on device" in said.err


@pytest.mark.parametrize("error", [None, "x" * 100_000])
def test_a_summary_needs_no_room_that_was_not_taken_when_the_run_began(
    tmp_path: Path, error: str | None
):
    summary = read_summary(write_synthetic_run(tmp_path / "r").summary)
    assert summary is not None
    path = tmp_path / "summary.json"
    reserve_summary(path)
    (room,) = tmp_path.glob(".summary*")
    before = room.stat()
    assert before.st_blocks * 512 >= SUMMARY_BYTES
    write_summary(path, replace(summary, error=error))
    assert path.stat().st_ino == before.st_ino
    assert read_summary(path) == replace(summary, error=error)
    assert not list(tmp_path.glob(".summary*"))
