"""A cell's program is followed to its end, whoever brings that about, and nothing of it is left."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tianji_cli.bench.child import (
    LOOK_AT_TREE_S,
    Ended,
    TimeLimit,
    Watcher,
    run_child,
    with_last_lines,
)

READY = "print('ready', flush=True); "
WAITS = READY + "import signal; signal.pause()"
DEAF = (
    "import signal; signal.signal(2, signal.SIG_IGN); " + READY + "[signal.pause() for _ in 'ab']"
)
pytestmark = pytest.mark.processes


@dataclass
class WhenReady:
    """Ends a program as soon as it has said something, or is interrupted itself then; not before
    `least_s`, since a kernel may call the memory of a process that has just begun none."""

    output: Path
    grace_s: float
    is_interrupted: bool = False
    least_s: float = 0.0

    def must_end(self, since_s: float, exit_code: int | None) -> bool:
        is_ready = "ready" in self.output.read_text() and since_s >= self.least_s
        if is_ready and self.is_interrupted:
            raise KeyboardInterrupt
        return is_ready


def run(root: Path, program: str, watcher: Watcher) -> Ended:
    argv = [sys.executable, "-c", program]
    environment = {**os.environ, "MARK": str(root)}
    return run_child(argv, environment, root, root / "output", watcher)


def nothing_is_left(root: Path) -> bool:
    return not [process for process in psutil.process_iter() if _is_marked(process, root)]


def _is_marked(process: psutil.Process, root: Path) -> bool:
    try:
        return process.environ().get("MARK") == str(root)
    except (psutil.Error, OSError):
        return False


def test_a_program_that_ends_well_by_itself_has_no_problem(tmp_path: Path):
    ended = run(tmp_path, "print('done')", TimeLimit(60.0))
    assert (ended.exit_code, ended.is_by_itself, ended.stop_asked_s) == (0, True, None)
    assert ended.problem(tmp_path / "output") == ""
    assert ended.leftovers == []


def test_a_program_that_fails_says_its_last_words_without_colours(tmp_path: Path):
    ended = run(tmp_path, r"print('\x1b[31mred\x1b[0m'); raise SystemExit(3)", TimeLimit(60.0))
    assert ended.problem(tmp_path / "output") == "its exit code was 3\n    red"


def test_a_program_that_is_asked_ends_itself(tmp_path: Path):
    watcher = WhenReady(tmp_path / "output", grace_s=60.0, least_s=2 * LOOK_AT_TREE_S)
    ended = run(tmp_path, WAITS, watcher)
    assert ended.exit_code not in (0, None)
    assert ended.stop_asked_s is not None
    assert not ended.is_by_itself
    assert ended.peak_rss_bytes > 0
    problem = ended.problem(tmp_path / "output")
    assert problem.startswith("it did not end in time\n    ready")
    assert problem.endswith("KeyboardInterrupt")


@pytest.mark.parametrize(("program", "grace_s"), [(DEAF, 0.2), (WAITS, 0.0)])
def test_a_program_that_does_not_answer_or_is_not_asked_is_ended(
    tmp_path: Path, program: str, grace_s: float
):
    ended = run(tmp_path, program, WhenReady(tmp_path / "output", grace_s))
    assert ended.exit_code is None
    assert (ended.stop_asked_s is None) == (grace_s == 0.0)
    assert nothing_is_left(tmp_path)


def test_whoever_is_interrupted_ends_its_program_first(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, WAITS, WhenReady(tmp_path / "output", 60.0, is_interrupted=True))
    assert "KeyboardInterrupt" in (tmp_path / "output").read_text()
    assert nothing_is_left(tmp_path)


def test_a_time_limit_tells_how_long_it_has_been():
    shown: list[float] = []
    limit = TimeLimit(10.0, show=shown.append)
    assert [limit.must_end(s, None) for s in (0.5, 9.9, 10.0)] == [False, False, True]
    assert limit.must_end(11.0, 0) is False
    assert shown == [0.5, 9.9, 10.0, 11.0]


def test_only_the_last_lines_are_kept_and_none_is_long():
    said = "\n".join([*map(str, range(100)), "x" * 1000])
    head, *lines = with_last_lines("head", said).split("\n    ")
    assert head == "head"
    assert lines == [*map(str, range(86, 100)), "x" * 300]
