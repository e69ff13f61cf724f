"""A live display on a terminal whose size changes while it is drawn."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from engine.progress import Progress, RoleState
from tests.helpers.paths import REPOSITORY
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_live import BenchDisplay
from tianji_cli.render.live import LiveDisplay, RedrawnLive

CLEAR = "\x1b[H\x1b[J"
UP = "\x1b[1A"
PROGRESS = Progress(
    phase="running",
    t_s=3.0,
    env_steps_consumed=1200,
    env_steps_limit=20_000,
    roles={f"actor-{i}": RoleState(state="running") for i in range(4)},
)


class Terminal:
    """A terminal of a changeable size, and what was written to it."""

    def __init__(self, columns: int) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self._slave = os.fdopen(slave, "w", encoding="utf-8")
        self.resize(columns)
        self.console = Console(file=self._slave, force_terminal=True, _environ={"TERM": "xterm"})

    def resize(self, columns: int, lines: int = 24) -> None:
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._slave.fileno(), termios.TIOCSWINSZ, size)

    def written(self) -> str:
        self._slave.flush()
        data = b""
        while True:
            try:
                data += os.read(self._master, 1 << 16)
            except BlockingIOError:
                return data.decode()

    def close(self) -> None:
        self._slave.close()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal(100)
    # As the console asks its own terminal, not those that pytest has.
    size = lambda _fd: os.terminal_size(_size_of(made))  # noqa: E731
    monkeypatch.setattr("rich.console.os.get_terminal_size", size)
    yield made
    made.close()


def _size_of(terminal: Terminal) -> tuple[int, int]:
    packed = fcntl.ioctl(terminal._slave.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
    lines, columns, _, _ = struct.unpack("HHHH", packed)
    return columns, lines


def widths(text: str) -> set[int]:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return {len(line.rstrip("\r")) for line in plain.split("\n")}


def test_a_narrower_terminal_is_cleared_and_drawn_anew(terminal: Terminal) -> None:
    display = LiveDisplay(terminal.console, "run")
    display.show(PROGRESS)
    terminal.written()
    display.show(PROGRESS)
    again = terminal.written()
    assert CLEAR not in again
    assert UP in again
    terminal.resize(60)
    display.show(PROGRESS)
    narrow = terminal.written()
    before, _, drawn = narrow.partition(CLEAR)
    assert UP not in narrow
    assert before == ""
    assert max(widths(drawn)) == 60
    display.show(PROGRESS)
    assert CLEAR not in terminal.written()
    display.close()


@pytest.mark.parametrize(("columns", "lines"), [(140, 24), (100, 40), (100, 12), (99, 24)])
def test_any_other_size_brings_nothing_back(terminal: Terminal, columns: int, lines: int) -> None:
    display = LiveDisplay(terminal.console, "run")
    display.show(PROGRESS)
    terminal.written()
    terminal.resize(columns, lines)
    display.show(PROGRESS)
    drawn = terminal.written()
    assert drawn.startswith(CLEAR)
    assert max(widths(drawn)) == columns
    display.show(PROGRESS)
    assert CLEAR not in terminal.written()
    display.close()


def test_the_end_leaves_nothing_of_a_display_that_was_made_narrower(terminal: Terminal) -> None:
    display = LiveDisplay(terminal.console, "run")
    display.show(PROGRESS)
    terminal.written()
    terminal.resize(50)
    display.close()
    left = terminal.written()
    assert left.startswith(CLEAR)
    assert left.count(UP) > 3


def test_lines_above_a_narrower_display_are_kept(terminal: Terminal) -> None:
    live = RedrawnLive("below", console=terminal.console, auto_refresh=False)
    live.start(refresh=True)
    terminal.resize(50)
    terminal.written()
    terminal.console.print("a line of the run")
    written = terminal.written()
    assert written.index(CLEAR) < written.index("a line of the run") < written.index("below")
    live.stop()


def test_the_display_of_a_benchmark_is_one(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    output = Output()
    monkeypatch.setattr(output, "notes", terminal.console)
    display = BenchDisplay(output, 3, 0)
    assert display._progress is not None
    assert isinstance(display._progress.live, RedrawnLive)
    terminal.resize(50)
    display._progress.refresh()
    assert CLEAR in terminal.written()
    display.close()


SHOWN = """
import sys, time
from pathlib import Path
from rich.console import Console
from tests.render.test_resized_terminal import PROGRESS
from tianji_cli.render.live import LiveDisplay
display = LiveDisplay(Console(), "run")
for number in range(600):
    display.show(PROGRESS)
    if Path({stop!r}).exists():
        break
    time.sleep(0.1)
display.close()
print("closed")
time.sleep(60)
"""


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux, to see what a person sees")
def test_a_person_sees_one_panel_after_each_resize(tmp_path: Path) -> None:
    stop, script = tmp_path / "stop", tmp_path / "shown.py"
    script.write_text(SHOWN.format(stop=str(stop)))
    socket = ("tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null")
    begin = ("new-session", "-d", "-x", "110", "-y", "40", sys.executable, str(script))
    is_size = ("COLUMNS", "LINES").__contains__  # as another test may say it to what it starts
    env = {name: value for name, value in os.environ.items() if not is_size(name)}
    env["PYTHONPATH"] = str(REPOSITORY)

    def seen() -> list[str]:
        words = (*socket, "capture-pane", "-p")
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\n")

    def wait_until_width(columns: int) -> list[str]:
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            lines = seen()
            if any(len(line) == columns and line[0] + line[-1] == "╭╮" for line in lines):
                return lines
            time.sleep(0.05)
        raise AssertionError("\n".join(seen()))

    subprocess.run((*socket, *begin), env=env, check=True)
    try:
        for columns in (110, 70, 45, 90, 60):
            subprocess.run((*socket, "resize-window", "-x", str(columns)), check=True)
            lines = wait_until_width(columns)
            assert sum("╭" in line for line in lines) == 1, "\n".join(lines)
            assert sum("╰" in line for line in lines) == 1, "\n".join(lines)
        stop.touch()
        deadline_s = time.monotonic() + 30
        while not any("closed" in line for line in seen()):
            assert time.monotonic() < deadline_s, "\n".join(seen())
            time.sleep(0.05)
        lines = seen()
        assert not any("╭" in line or "│" in line for line in lines), "\n".join(lines)
    finally:
        subprocess.run((*socket, "kill-server"), check=False)
