"""What a run shows fits a terminal of 80 columns."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console, RenderableType

from engine.progress import Progress
from engine.trace.reader import read_summary
from engine.trace.summary import Summary
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.curves import curves_of
from tianji_cli.analysis.run import load_run
from tianji_cli.render.live import panel
from tianji_cli.render.run import titles
from tianji_cli.render.run.tables import summary_table


def render(shown: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    found = read_summary(write_synthetic_run(tmp_path / "run").summary)
    assert found is not None
    return found


def test_no_row_of_a_summary_is_folded(summary: Summary):
    slow = replace(summary, stop_reason="return_threshold", time_to_threshold_s=754.0)
    lines = render(summary_table(slow)).splitlines()
    assert [line for line in lines if line.startswith(" ")] == []


def test_no_heading_of_the_panel_is_folded():
    shown = render(panel("run", Progress(phase="running", t_s=1.0)))
    assert "lag mean/max" in shown


def test_returns_between_zero_and_one_are_told_from_their_threshold(summary: Summary):
    near = replace(summary, return_mean=0.796, threshold=0.8, reached=False)
    shown = render(summary_table(near))
    assert "0.796" in shown
    assert "0.8 not reached" in shown
    assert "0.796 of 0.8" in render(
        panel("run", Progress(phase="running", t_s=1.0, return_mean=0.796, threshold=0.8))
    )


def test_runs_with_different_thresholds_are_held_against_their_own(tmp_path: Path):
    runs = []
    for name, threshold in (("low", 400.0), ("high", 600.0)):
        run = load_run(write_synthetic_run(tmp_path / name, threshold=threshold))
        assert run.summary is not None
        runs.append(curves_of(run, run.summary, name))
    assert titles.return_over_time(runs) == "1 of 2 runs reach their own threshold, over time"
