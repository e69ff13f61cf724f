"""What a coordinator does: writes traces and the summary, shows progress."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.clock import WallClock
from engine.host.descriptors import spare
from engine.progress import Progress
from engine.roles.commands import Command, EndRun, ShowProgress, WriteTrace
from engine.roles.events import Event, Noted
from engine.trace.summary import Summary
from engine.trace.writer import TraceWriter

SUMMARY_NAME = "summary.json"
TRACE_NAME = "trace"
SUMMARY_BYTES = 16 * 2**10
"""More bytes than a summary has, unless its error is long."""
LOOK_S = 1.0
"""How often disk and clock are checked."""


class CoordinatorExecutor:
    """Performs the coordinator's commands.

    Args:
        run_dir: `results/<run-id>`; its `trace` directory must exist.
        show: Called with each snapshot of progress.
    """

    def __init__(self, run_dir: Path, show: Callable[[Progress], None]) -> None:
        self._run_dir = run_dir
        self._show = show
        self._writer = TraceWriter(run_dir / TRACE_NAME)
        reserve_summary(run_dir / SUMMARY_NAME)
        self._look_at_s = 0.0
        self._wall_clock = WallClock()
        self._has_told = False

    def close(self) -> None:
        self._writer.close()

    @property
    def is_busy(self) -> bool:
        return False

    def advance(self, budget_s: float) -> list[Event]:
        raise RuntimeError("a coordinator's commands are done when performed")

    def perform(self, command: Command) -> list[Event]:
        match command:
            case WriteTrace(records=records):
                self._writer.write(records)
            case ShowProgress(progress=progress):
                self._writer.flush()
                self._show(progress)
                return self._look_around()
            case EndRun(summary=summary):
                self._writer.finish()
                whole = msgspec.structs.replace(summary, trace_error=self._writer.stopped)
                with spare():
                    write_summary(self._run_dir / SUMMARY_NAME, whole)
            case _:
                raise RuntimeError(f"a coordinator cannot perform {type(command).__name__}")
        return []

    def _look_around(self) -> list[Event]:
        """Periodic checks of this host; changes become events of the run."""
        found: list[Event] = []
        now_s = time.monotonic()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            self._writer.stop_if_disk_is_low()
            if moved_s := self._wall_clock.moved_s():
                found.append(_note("clock-set", f"the wall clock was set by {moved_s:+.1f} s"))
        if self._writer.stopped is not None and not self._has_told:
            self._has_told = True
            found.append(_note("traces-stopped", self._writer.stopped))
        return found


def _note(kind: str, detail: str) -> Noted:
    """Writes to the trace and the log."""
    print(f"{kind}: {detail}", file=sys.stderr, flush=True)
    return Noted(kind, detail)


def reserve_summary(path: Path) -> None:
    """Reserves the disk space that `write_summary` will need, so that it fits on a full disk.

    If this fails, the summary can still fit at the end.
    """
    with contextlib.suppress(OSError), _temporary(path).open("wb") as file:
        file.write(b" " * SUMMARY_BYTES)


def write_summary(path: Path, summary: Summary) -> None:
    """Writes `summary.json` atomically.

    Raises:
        OSError: It cannot be written.
    """
    temporary = _temporary(path)
    data = msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
    with open(
        descriptor, "r+b"
    ) as file:  # not truncated first: its blocks are possibly the last ones
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")
