"""A wall clock that is set is noticed; one that drifts is not."""

from __future__ import annotations

from pathlib import Path

from engine.clock import WallClock
from engine.executors import coordinator as coordinate
from engine.executors.coordinator import CoordinatorExecutor
from engine.progress import Progress
from engine.roles.commands import ShowProgress
from engine.roles.events import Noted
from engine.testing import only

SHOW = ShowProgress(Progress(phase="running", t_s=1.0))


class Clocks:
    def __init__(self) -> None:
        self.unix_s, self.steady_s = 1.7e9, 50.0

    def pass_time(self, seconds: float, drift: float = 0.0) -> None:
        self.steady_s += seconds
        self.unix_s += seconds * (1 + drift)


def watched(clocks: Clocks) -> WallClock:
    return WallClock(lambda: clocks.unix_s, lambda: clocks.steady_s)


def test_time_that_passes_moves_nothing():
    clocks = Clocks()
    clock = watched(clocks)
    for _ in range(5000):
        clocks.pass_time(1.0, drift=500e-6)  # as fast as clocks are slewed
        assert clock.moved_s() == 0.0


def test_a_clock_that_is_set_is_told_once_and_by_how_much():
    clocks = Clocks()
    clock = watched(clocks)
    for set_s in (3600.0, -3600.0):
        clocks.pass_time(2.0)
        clocks.unix_s += set_s
        assert abs(clock.moved_s() - set_s) < 1e-3
        clocks.pass_time(2.0)
        assert clock.moved_s() == 0.0


def test_the_run_notes_it(tmp_path: Path, monkeypatch, capsys):
    clocks = Clocks()
    monkeypatch.setattr(coordinate, "WallClock", lambda: watched(clocks))
    monkeypatch.setattr(coordinate, "LOOK_S", 0.0)
    (tmp_path / "trace").mkdir()
    executor = CoordinatorExecutor(tmp_path, lambda progress: None)
    assert executor.perform(SHOW) == []
    clocks.unix_s -= 7200.0
    note = only(executor.perform(SHOW), Noted)
    assert note.kind == "clock-set"
    assert "by -7200.0 s" in note.detail
    assert "by -7200.0 s" in capsys.readouterr().err
    assert executor.perform(SHOW) == []
    executor.close()
