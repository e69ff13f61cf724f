"""Runs one cell: launch, watch, stop, measure. Effects are here; `stop_rule` decides the end."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from engine.errors import PreflightError, TianJiError
from engine.trace.records import Record
from engine.trace.writer import TraceWriter
from tianji_cli.bench.child import run_child, with_tail
from tianji_cli.bench.comparison.measure import MAX_MISCOUNT, Figures, measure
from tianji_cli.bench.comparison.results import Cell, CellResult
from tianji_cli.bench.comparison.stop_rule import StopRule, Verdict
from tianji_cli.bench.machine import Load
from tianji_cli.bench.process_tree import clean_environment, modules_environment
from tianji_cli.bench.systems.base import CellPaths, Command, Installed, System
from tianji_cli.bench.systems.raw import Feed, GarbageError, RawRecord
from tianji_cli.bench.tasks.suite import Task
from tianji_cli.storage.safe_files import clear

GRACE_S = 20.0
"""Seconds after which a system that was asked to end and has not is killed."""


@dataclass(frozen=True)
class Seen:
    """Progress of a cell, for the display.

    Attributes:
        since_launch_s: Seconds.
        trained_s: Seconds since the first sample; None before.
        env_steps: Counted so far.
        return_mean: Of the last window.
    """

    since_launch_s: float
    trained_s: float | None
    env_steps: int
    return_mean: float | None


class CellWatch:
    """Reads the records of the system of one cell, and lets the stop rule decide.

    Args:
        feed: Source of its records.
        rule: When the cell ends.
        show: Called while it runs.

    Attributes:
        records: All records so far.
        verdict: Why the cell ends; None while it runs.
    """

    def __init__(self, feed: Feed, rule: StopRule, show: Callable[[Seen], None]) -> None:
        self._feed = feed
        self._rule = rule
        self._show = show
        self.records: list[RawRecord] = []
        self.verdict: Verdict | None = None

    @property
    def grace_s(self) -> float:
        """Only a system that has finished its work is asked to end; a hung one cannot."""
        is_done = self.verdict is not None and self.verdict.outcome in ("reached", "censored")
        return GRACE_S if is_done else 0.0

    def must_end(self, since_s: float, exit_code: int | None) -> bool:
        now_s = time.monotonic()
        try:
            self.hear(now_s)
        except GarbageError as error:
            self.verdict = Verdict("garbage", error.what)
            return True
        self.verdict = self._rule.verdict(now_s)
        if self.verdict is None and exit_code is not None:
            text = f"it ended by itself with exit code {exit_code}"
            self.verdict = Verdict("crashed", text)
        if self.verdict is None:
            self._show(self._seen(since_s, now_s))
        return self.verdict is not None

    def hear(self, now_s: float) -> None:
        """Reads what was written since.

        Raises:
            GarbageError: That is no record.
        """
        new = self._feed.poll()
        self.records += new
        self._rule.hear(new, now_s)

    def _seen(self, since_s: float, now_s: float) -> Seen:
        first_s = self._rule.first_sample_s
        return Seen(
            since_launch_s=since_s,
            trained_s=None if first_s is None else now_s - first_s,
            env_steps=self._rule.env_steps,
            return_mean=self._rule.return_mean,
        )


@dataclass(frozen=True)
class Assignment:
    """One cell and everything needed to run it.

    Attributes:
        cell: The cell.
        task: As in the suite, without the overrides of this system.
        system: The system.
        installed: Where it is installed.
        paths: The cell's files.
        machine_id: Of this machine.
        load: How busy it is just before launch.
    """

    cell: Cell
    task: Task
    system: System
    installed: Installed
    paths: CellPaths
    machine_id: str
    load: Load


def run_cell(work: Assignment, show: Callable[[Seen], None]) -> CellResult:
    """Runs one cell to its end, of whatever kind; no process of the system is left running.

    Returns:
        Its result. The caller stores it; the trace tables are written here.

    Raises:
        TianJiError: The cell cannot be prepared, or its traces cannot be written.
        KeyboardInterrupt: The user stopped it; the system was ended, and nothing was concluded.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    task, paths = work.task.of(work.cell.system), work.paths
    with _prepared(paths) as scratch:
        command = _write_job(work, task, scratch)
        launched_s = time.monotonic()
        watch = CellWatch(work.system.feed(paths), StopRule(task, launched_s), show)
        ended = run_child(
            command.argv, _environment(work, command), paths.root, paths.output, watch
        )
        stop_asked_s = None if ended.stop_asked_s is None else ended.stop_asked_s - launched_s
        verdict, figures = _conclude(watch, launched_s, stop_asked_s, task, work.system, paths)
        if ended.exit_code not in (None, *command.ok_codes) and stop_asked_s is not None:
            detail = f"{verdict.detail}; its exit code was {ended.exit_code}"
            verdict = Verdict(verdict.outcome, detail)
    return CellResult(
        cell=work.cell,
        outcome=verdict.outcome,
        detail=_with_tail(verdict, paths),
        figures=figures,
        started_at=started_at,
        launched_s=launched_s,
        stop_asked_s=stop_asked_s,
        ended_s=ended.ended_s - launched_s,
        exit_code=ended.exit_code,
        peak_rss_bytes=ended.peak_rss_bytes,
        leftovers=ended.leftovers,
        left_files=ended.left_files,
        load=work.load,
        machine_id=work.machine_id,
        command=list(command.argv),
        versions=work.installed.versions,
    )


def _write_job(work: Assignment, task: Task, scratch: Path) -> Command:
    """Writes `job.json` and the other files the system needs."""
    job = work.cell.job(task, scratch)
    work.paths.job.write_bytes(msgspec.json.encode(job))
    return work.system.command(job, work.paths, work.installed)


def _environment(work: Assignment, command: Command) -> dict[str, str]:
    return {
        **clean_environment(command.unset),
        **modules_environment(),
        **command.env,
        "TIANJI_BENCH_RAW": str(work.paths.raw),
    }


@contextmanager
def _prepared(paths: CellPaths) -> Iterator[Path]:
    """An empty cell, and a short-lived scratch directory beside the system's temporary files.

    What an interrupted attempt left in the cell is removed first.
    """
    clear(paths.root.parents[2], paths.root)
    for directory in (paths.root, paths.raw, paths.trace):
        directory.mkdir(parents=True)
    scratch = Path(tempfile.mkdtemp(prefix="tjb-"))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _conclude(
    watch: CellWatch,
    launched_s: float,
    stop_asked_s: float | None,
    task: Task,
    system: System,
    paths: CellPaths,
) -> tuple[Verdict, Figures]:
    """Writes the trace tables and measures; unreadable records are an outcome, not an error."""
    verdict = watch.verdict
    assert verdict is not None, "it has ended"
    try:
        watch.hear(time.monotonic())
        rows = system.trace(watch.records, paths, launched_s)
    except TianJiError as error:
        return Verdict("garbage", error.what), Figures()
    write_trace(paths, rows)
    figures = measure(rows, task, stop_asked_s)
    if verdict.outcome in ("reached", "censored"):
        if figures.miscount is not None and figures.miscount > MAX_MISCOUNT:
            detail = (
                f"it claims {figures.claimed_env_steps:,} env steps,"
                f" {figures.miscount:.1%} off what its environments counted"
            )
            return Verdict("garbage", detail), figures
        is_reached = figures.reached_s is not None
        verdict = Verdict("reached" if is_reached else "censored", verdict.detail)
    return verdict, figures


def write_trace(paths: CellPaths, rows: list[Record]) -> None:
    """Writes the trace tables of a cell.

    Raises:
        PreflightError: The disk has not taken all of them, or has hardly any room left; then what
            the system wrote may be cut short as well, and nothing can be concluded.
    """
    try:
        with TraceWriter(paths.trace) as writer:
            writer.write(rows)
            writer.stop_if_disk_is_low()
        stopped = writer.stopped
    except OSError as error:
        stopped = f"traces cannot be written: {error.strerror}"
    if stopped is not None:
        fix = "free space there, then continue with --resume; this cell will run again"
        raise PreflightError(stopped, where=str(paths.trace), fix=fix)


def _with_tail(verdict: Verdict, paths: CellPaths) -> str:
    """For failures, also the last output of the system."""
    is_fine = verdict.outcome in ("reached", "censored")
    return verdict.detail if is_fine else with_tail(verdict.detail, paths.output)
