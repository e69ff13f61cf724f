"""Runs the program of a cell to its end and watches it, in the same way for all benchmarks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tianji_cli.bench.process_tree import LeftFile, Leftover, ProcessTree

LOOK_S = 0.1
"""How often a watcher looks, and so how soon it ends the program."""
LOOK_AT_TREE_S = 0.5
"""How often descendants are looked for; this costs more."""
TAIL_LINES = 15
MAX_LINE_CHARS = 300
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Watcher(Protocol):
    """Decides when a program must end."""

    @property
    def grace_s(self) -> float:
        """How long it may take to end once it is asked to; 0: it is ended at once. Read when it
        has to end, for whatever reason."""
        ...

    def must_end(self, since_s: float, exit_code: int | None) -> bool:
        """Looks at a program that was launched `since_s` seconds ago, and may have ended."""
        ...


@dataclass(frozen=True)
class TimeLimit:
    """A program that ends by itself, within a time limit.

    Attributes:
        limit_s: Seconds from launch.
        grace_s: See `Watcher`.
        show: Called regularly with the seconds it has run.
    """

    limit_s: float
    grace_s: float = 0.0
    show: Callable[[float], None] = lambda _: None

    def must_end(self, since_s: float, exit_code: int | None) -> bool:
        self.show(since_s)
        return exit_code is None and since_s >= self.limit_s


@dataclass(frozen=True)
class Ended:
    """How a program has ended; none of its processes is left. Times are CLOCK_MONOTONIC.

    Attributes:
        exit_code: None if it was killed.
        stop_asked_s: When it was asked to end; None: it never was.
        ended_s: When it had ended, or was about to be killed.
        is_by_itself: Whether it ended without being asked to.
        leftovers: Processes that were still there although it had ended.
        left_files: Shared memory that was still there, likewise.
        peak_rss_bytes: Of all its processes together.
    """

    exit_code: int | None
    stop_asked_s: float | None
    ended_s: float
    is_by_itself: bool
    leftovers: list[Leftover]
    left_files: list[LeftFile]
    peak_rss_bytes: int

    def problem(self, output: Path) -> str:
        """What went wrong with a program that should end by itself without error; empty if it did.

        Args:
            output: What it printed, the end of which is part of the answer.
        """
        if not self.is_by_itself:
            return with_tail("it did not end in time", output)
        code = self.exit_code
        return with_tail(f"its exit code was {code}", output) if code else ""


def run_child(
    argv: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    output: Path,
    watcher: Watcher,
) -> Ended:
    """Starts a program and watches it until it has ended or is ended.

    Args:
        argv, environment, cwd, output: See `ProcessTree`.
        watcher: Decides when it must end.

    Raises:
        OSError: It cannot be started.
        KeyboardInterrupt: The user stopped it; it was ended.
    """
    launched_s, stop_asked_s, exit_code = time.monotonic(), None, None
    tree = ProcessTree(argv, environment, cwd, output)
    is_asked = True  # also by whatever interrupts this
    try:
        while exit_code is None:
            exit_code = _next_look(tree)
            if watcher.must_end(time.monotonic() - launched_s, exit_code):
                break
        else:
            is_asked = False
    finally:
        if is_asked and watcher.grace_s > 0:
            stop_asked_s = time.monotonic()
            tree.ask_to_stop()
            while _next_look(tree) is None and time.monotonic() - stop_asked_s < watcher.grace_s:
                pass
        ended_s, exit_code = time.monotonic(), tree.process.poll()
        leftovers = tree.end()
    return Ended(
        exit_code, stop_asked_s, ended_s, not is_asked, leftovers, tree.left_files,
        tree.peak_rss_bytes,
    )  # fmt: skip


def _next_look(tree: ProcessTree) -> int | None:
    """Waits until it is time to look again; the exit code if it has ended."""
    exit_code = tree.wait(LOOK_S)
    tree.look(at_most_every_s=LOOK_AT_TREE_S)
    return exit_code


def with_tail(head: str, output: Path) -> str:
    """What happened, and the last lines of what a program printed."""
    if not output.is_file():
        return head
    return with_last_lines(head, output.read_text(encoding="utf-8", errors="replace"))


def with_last_lines(head: str, said: str) -> str:
    """The same for output already read."""
    lines = _COLOURS.sub("", said).splitlines()[-TAIL_LINES:]
    return "\n    ".join([head, *(line[:MAX_LINE_CHARS] for line in lines)])
