"""What a mean return looks like beside the threshold that it is held against."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console
from rich.table import Table

from engine.progress import Progress
from engine.trace.summary import Summary
from tests.helpers.synthetic_run import make_trace, summary_of
from tianji_cli import units
from tianji_cli.analysis.runs import RunRow
from tianji_cli.render.live import line
from tianji_cli.render.run.page_parts import _return_tile
from tianji_cli.render.run.rows import Row, mean_at_end, rows_side_by_side, summary_rows
from tianji_cli.render.run.tables import runs_table, summary_table

FALLEN = [
    (0.8, 0.794),
    (0.8, 0.79996),
    (0.8, 0.7999999),
    (475.0, 474.96),
    (475.0, 474.99999999),
    (-100.0, -100.4),
    (-100.0, -100.004),
    (-0.05, -0.0504),
    (0.0, -0.0001),
    (1e-4, 9.9e-5),
    (6000.0, 5999.99),
    (1e6, 999_999.97),
    (1.5, 1.4999),
    (474.9625, 474.9624),
    (1e17, 99999999999999984.0),
]


def summary(threshold: float, mean: float, *, is_reached: bool = True) -> Summary:
    found = summary_of("20260131-235959-one", "ok", 450.0, make_trace(1.0, 450.0, 8))
    return msgspec.structs.replace(
        found,
        threshold=threshold,
        return_mean=mean,
        reached=is_reached,
        time_to_threshold_s=12.3 if is_reached else None,
    )


def row_of(found: Summary, label: str) -> Row:
    return next(row for row in summary_rows(found) if row.label == label)


def text_of(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def as_number(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.parametrize(("threshold", "mean"), FALLEN)
def test_a_mean_below_its_threshold_is_written_below_it(threshold: float, mean: float):
    shown = mean_at_end(mean, summary(threshold, mean))
    assert as_number(shown) < as_number(units.short(threshold)) == threshold


@pytest.mark.parametrize(("threshold", "mean"), FALLEN)
def test_a_mean_at_its_threshold_is_not_written_below_it(threshold: float, mean: float):
    for at_least in (threshold, threshold + (threshold - mean)):
        assert as_number(units.mean_return(at_least, threshold)) >= threshold


@pytest.mark.parametrize("value", [0.80004, 475.04, -99.96, 0.0004, 1e-5, -0.00049])
def test_what_is_above_is_not_rounded_to_below(value: float):
    threshold = value - abs(value) * 1e-7
    assert as_number(units.mean_return(value, threshold)) >= threshold


@pytest.mark.parametrize(("threshold", "mean"), FALLEN)
def test_reached_beside_a_lower_mean_says_why(threshold: float, mean: float):
    found = summary(threshold, mean)
    goal = units.short(threshold)
    row = row_of(found, "Mean return")
    assert row.explanation == f"at the end; {goal} was reached before"
    assert row.explanation in text_of(summary_table(found))
    assert _return_tile(found)[2] == f"of the last episodes, {row.explanation}"


def test_among_other_runs_only_the_fallen_one_is_remarked():
    fine, fallen = summary(0.8, 0.81), summary(0.8, 0.794)
    cells = next(
        same for same in rows_side_by_side([fine, fallen]) if same[0].label == "Mean return"
    )
    assert [row.remarked_text for row in cells] == [
        "0.810",
        "0.794 (at the end; 0.8 was reached before)",
    ]


def test_not_reached_beside_a_higher_mean_says_why():
    row = row_of(summary(0.8, 0.81, is_reached=False), "Mean return")
    assert "too few in a row" in row.explanation


def test_training_returns_are_not_held_against_a_threshold_of_evaluations():
    judged = msgspec.structs.replace(summary(0.8, 0.7), judge="evaluation", evaluation_return=0.79)
    assert "evaluations decide" in row_of(judged, "Mean return").explanation
    assert "0.8 was reached before" in row_of(judged, "Evaluation").explanation


@pytest.mark.parametrize(("threshold", "mean"), [(0.8, 0.81), (475.0, 475.0), (-100.0, -99.5)])
def test_who_agrees_with_the_verdict_needs_no_remark(threshold: float, mean: float):
    assert not row_of(summary(threshold, mean), "Mean return").remark


def test_the_list_of_runs_marks_a_run_that_has_fallen():
    rows = [
        RunRow(
            run_id=name,
            path=name,
            status="ok",
            threshold=475.0,
            return_mean=mean,
            reached=True,
            time_to_threshold_s=3.0,
        )
        for name, mean in (("up", 480.0), ("down", 474.96))
    ]
    shown = text_of(runs_table(rows))
    assert "474.96*" in shown
    assert "480.0*" not in shown
    assert "* below the threshold at the end" in shown
    assert "*" not in text_of(runs_table(rows[:1]))


def test_a_run_under_way_has_not_reached_what_it_only_comes_near_to():
    shown = line(Progress(phase="running", t_s=3.0, threshold=475.0, return_mean=474.96))
    assert "474.96" in shown
    assert "475" not in shown
