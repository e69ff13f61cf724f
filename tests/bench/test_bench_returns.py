"""Returns in comparisons of systems: final, and over env steps, each with its interval."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY
from tianji_cli.bench.statistics import Interval, common_horizon, mean_over_steps
from tianji_cli.commands.benchmarks.bench_report import write_bench_report
from tianji_cli.render.bench.bench_text import return_text, verdicts

REFERENCE = REPOSITORY / "results" / "reference" / "cartpole-dqn"


def test_the_area_under_a_curve_ends_at_the_horizon():
    steps, returns = [0.0, 100.0, 200.0], [0.0, 100.0, 100.0]
    assert mean_over_steps(steps, returns, 200) == pytest.approx(75.0)
    assert mean_over_steps(steps, returns, 50) == pytest.approx(25.0)
    assert mean_over_steps(steps, returns, 1000) == pytest.approx(75.0)
    assert mean_over_steps([], [], 10) is None
    assert mean_over_steps([5.0], [1.0], 10) is None


def test_curves_are_compared_only_where_all_of_them_go():
    assert common_horizon([[1, 10], [2, 7]]) == 7
    assert common_horizon([[1, 10], []]) is None
    assert common_horizon([]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (Interval(estimate=474.96), "474.96"),
        (Interval(estimate=480.0, low=474.96, high=500.0), "480.0 [474.96, 500.0]"),
    ],
)
def test_a_return_is_not_rounded_across_its_threshold(value: Interval | None, text: str):
    assert return_text(value, 475.0) == text


def test_a_kept_benchmark_of_before_has_both_returns_with_intervals(tmp_path: Path):
    report = write_bench_report([REFERENCE], tmp_path)
    (task,) = report.comparison.tasks
    assert task.horizon_env_steps
    for summary in task.systems:
        for value in (summary.final_return, summary.mean_return):
            assert value is not None
            assert value.low is not None
            assert value.high is not None
            assert value.low <= value.estimate <= value.high
    page = report.page.read_text(encoding="utf-8")
    assert "final return" in page
    assert "return over env steps" in page
    assert sum("ends at a mean return of" in line for line in verdicts(task)) == len(task.systems)
    document = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert document["tasks"][0]["peers"][0]["final_return"]["estimate"] > 0
