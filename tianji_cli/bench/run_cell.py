"""Runs one cell: launch, follow, end, measure. Effects; `judge` decides, `measure` counts."""

from __future__ import annotations

import re
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
from tianji_cli.baselines.base import CellPaths, Command, Installed, Peer
from tianji_cli.baselines.raw import Feed, GarbageError, RawRecord
from tianji_cli.bench.machine import Load
from tianji_cli.bench.measure import MAX_MISCOUNT, Figures, measure
from tianji_cli.bench.process_tree import ProcessTree, clean_environment, modules_environment
from tianji_cli.bench.results import Cell, CellResult
from tianji_cli.bench.stop_rule import StopRule, Verdict
from tianji_cli.bench.suite import Task
from tianji_cli.safe_files import clear

LOOK_S = 0.1
"""How often its records are read; a threshold that is crossed ends the cell so soon."""
LOOK_AT_FAMILY_S = 0.5
GRACE_S = 20.0
"""A system that does not end so soon after it was asked to is killed."""
TAIL_LINES = 15
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Seen:
    """How far a cell has come, for the display.

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


class CellRun:
    """One cell under way. Use `run_cell`."""

    def __init__(self, tree: ProcessTree, feed: Feed, judge: StopRule, launched_s: float) -> None:
        self.tree = tree
        self.feed = feed
        self.judge = judge
        self.launched_s = launched_s
        self.records: list[RawRecord] = []
        self.stop_asked_s: float | None = None

    def follow(self, show: Callable[[Seen], None]) -> Verdict:
        """Looks until the cell must end; does not end it."""
        look_at_s = 0.0
        while True:
            exit_code = self.tree.wait(LOOK_S)
            now_s = time.monotonic()
            if now_s >= look_at_s:
                self.tree.look()
                look_at_s = now_s + LOOK_AT_FAMILY_S
            try:
                self._hear(now_s)
            except GarbageError as error:
                return Verdict("garbage", error.what)
            verdict = self.judge.verdict(now_s)
            if verdict is not None:
                return verdict
            if exit_code is not None:
                return Verdict("crashed", f"it ended by itself with exit code {exit_code}")
            show(self._seen(now_s))

    def stop(self) -> None:
        """Asks for a clean end and waits for it, as long as `GRACE_S`."""
        self.stop_asked_s = time.monotonic() - self.launched_s
        self.tree.ask_to_stop()
        deadline_s = time.monotonic() + GRACE_S
        while self.tree.wait(LOOK_S) is None and time.monotonic() < deadline_s:
            self.tree.look()

    def _hear(self, now_s: float) -> None:
        new = self.feed.poll()
        self.records += new
        self.judge.hear(new, now_s)

    def hear_last_words(self) -> None:
        """Reads what was written while it ended.

        Raises:
            GarbageError: That is no record.
        """
        self._hear(time.monotonic())

    def _seen(self, now_s: float) -> Seen:
        first_s = self.judge.first_sample_s
        return Seen(
            since_launch_s=now_s - self.launched_s,
            trained_s=None if first_s is None else now_s - first_s,
            env_steps=self.judge.env_steps,
            return_mean=self.judge.return_mean,
        )


@dataclass(frozen=True)
class Assignment:
    """One cell and all that is needed to run it.

    Attributes:
        cell: Which.
        task: As written, without the overrides of this system.
        peer: The system.
        installed: Where it is.
        paths: The cell's files.
        machine_id: Of this machine.
        load: How busy it is just before launch.
    """

    cell: Cell
    task: Task
    peer: Peer
    installed: Installed
    paths: CellPaths
    machine_id: str
    load: Load


def run_cell(work: Assignment, show: Callable[[Seen], None]) -> CellResult:
    """Runs one cell to its end, whatever that is; nothing of the system is left running.

    Returns:
        What became of it. The caller writes it down; the trace tables are written here.

    Raises:
        TianJiError: The cell cannot be prepared, or its traces cannot be written.
        KeyboardInterrupt: The user stopped it; the system was ended, and nothing was concluded.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    task, paths = work.task.of(work.cell.peer), work.paths
    with _prepared(paths) as scratch:
        command = _write_job(work, task, scratch)
        run = _launch(work, task, command)
        try:
            verdict = run.follow(show)
            if verdict.outcome in ("reached", "censored"):
                run.stop()
        finally:
            ended_s = time.monotonic() - run.launched_s
            exit_code = run.tree.process.poll()
            leftovers = run.tree.end()
        verdict, figures = _conclude(run, verdict, task, work.peer, paths)
        if exit_code not in (None, *command.ok_codes) and run.stop_asked_s is not None:
            verdict = Verdict(verdict.outcome, f"{verdict.detail}; its exit code was {exit_code}")
    return CellResult(
        cell=work.cell,
        outcome=verdict.outcome,
        detail=_with_tail(verdict, paths),
        figures=figures,
        started_at=started_at,
        launched_s=run.launched_s,
        stop_asked_s=run.stop_asked_s,
        ended_s=ended_s,
        exit_code=exit_code,
        peak_rss_bytes=run.tree.peak_rss_bytes,
        leftovers=leftovers,
        left_files=run.tree.left_files,
        load=work.load,
        machine_id=work.machine_id,
        command=list(command.argv),
        versions=work.installed.versions,
    )


def _write_job(work: Assignment, task: Task, scratch: Path) -> Command:
    """Writes `job.json` and whatever else the system needs."""
    job = work.cell.job(task, scratch)
    work.paths.job.write_bytes(msgspec.json.encode(job))
    return work.peer.command(job, work.paths, work.installed)


def _launch(work: Assignment, task: Task, command: Command) -> CellRun:
    paths = work.paths
    environment = {
        **clean_environment(command.unset),
        **modules_environment(),
        **command.env,
        "TIANJI_BENCH_RAW": str(paths.raw),
    }
    launched_s = time.monotonic()
    tree = ProcessTree(command.argv, environment, paths.root, paths.output)
    return CellRun(tree, work.peer.feed(paths), StopRule(task, launched_s), launched_s)


@contextmanager
def _prepared(paths: CellPaths) -> Iterator[Path]:
    """An empty cell, and a short-lived scratch directory beside the system's temporary files.

    What an interrupted attempt left in the cell goes away first.
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
    run: CellRun, verdict: Verdict, task: Task, peer: Peer, paths: CellPaths
) -> tuple[Verdict, Figures]:
    """Writes the trace tables and measures; what cannot be read is an outcome, not an error."""
    try:
        run.hear_last_words()
        rows = peer.trace(run.records, paths, run.launched_s)
    except TianJiError as error:
        return Verdict("garbage", error.what), Figures()
    write_trace(paths, rows)
    figures = measure(rows, task, run.stop_asked_s)
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
    """For what went wrong, also the last words of the system."""
    if verdict.outcome in ("reached", "censored") or not paths.output.is_file():
        return verdict.detail
    text = paths.output.read_text(encoding="utf-8", errors="replace")
    tail = [line[:300] for line in _COLOURS.sub("", text).splitlines()[-TAIL_LINES:]]
    return "\n    ".join([verdict.detail, *tail])
