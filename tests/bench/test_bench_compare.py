"""From results to answers: what may be claimed, and when nothing may."""

from __future__ import annotations

import msgspec
import pytest

from tests.helpers.bench.bench_fakes import FakeSystem, make_suite, make_task, result_of
from tianji_cli.bench.comparison.compare import compare
from tianji_cli.bench.comparison.harness import new_bench
from tianji_cli.bench.comparison.results import make_cells, planned_s
from tianji_cli.bench.systems.base import Installed
from tianji_cli.render.bench.bench_tables import task_table
from tianji_cli.render.bench.bench_text import ratio_text, verdicts


def comparison_of(results, tmp_path, *, num_seeds=5, budget_s=60.0, env_steps=None):
    systems = FakeSystem("tianji", ""), FakeSystem("rllib", "")
    found = {system.name: Installed(python="p", versions={}) for system in systems}
    suite = make_suite(make_task(budget_s=budget_s, env_steps=env_steps), num_seeds)
    manifest = new_bench(suite, systems, found, range(num_seeds), tmp_path / "b").manifest
    clean = msgspec.structs.replace(manifest.git, dirty=False)
    manifest = msgspec.structs.replace(manifest, git=clean)
    return compare(manifest, {r.cell: r for r in results}, ["b"])


def summary_of(results, tmp_path, **settings):
    comparison = comparison_of(results, tmp_path, **settings)
    return next(p for p in comparison.tasks[0].systems if p.system == "rllib")


def both(times_us, times_them, rates=(2000.0, 1000.0)):
    ours = [result_of("tianji", i, time_s=t, rate=rates[0] + i) for i, t in enumerate(times_us)]
    theirs = [result_of("rllib", i, time_s=t, rate=rates[1] + i) for i, t in enumerate(times_them)]
    return ours + theirs


def test_a_clear_difference_is_called_faster(tmp_path):
    summary = summary_of(both([5, 6, 5, 6, 5], [20, 22, 21, 19, 20]), tmp_path)
    assert summary.time_ratio.answer == "faster"
    assert summary.time_ratio.value.estimate == pytest.approx(3.8, abs=0.3)
    assert summary.throughput_ratio.answer == "faster"
    assert summary.throughput_ratio.value.estimate == pytest.approx(2.0, abs=0.01)


def test_slower_is_said_as_plainly(tmp_path):
    summary = summary_of(both([20, 22, 21, 19, 20], [5, 6, 5, 6, 5], (500.0, 1000.0)), tmp_path)
    assert summary.time_ratio.answer == "slower"
    assert summary.throughput_ratio.answer == "slower"


def test_an_interval_with_1_in_it_shows_no_difference(tmp_path):
    summary = summary_of(both([10, 20, 10, 20, 14], [20, 10, 20, 10, 15]), tmp_path)
    assert summary.time_ratio.answer == "no difference shown"
    assert "no difference shown" in ratio_text(summary.time_ratio)


def at_equal_steps(returns_us, returns_them):
    results = both([5] * len(returns_us), [20] * len(returns_us))
    returns = [*returns_us, *returns_them]
    return [
        msgspec.structs.replace(
            result,
            figures=msgspec.structs.replace(
                result.figures,
                return_mean=value,
                trained_per_s=1000.0 if result.cell.system == "tianji" else 200.0,
            ),
        )
        for result, value in zip(results, returns, strict=True)
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "answer"),
    [
        ([300.0, 310.0, 305.0], [200.0, 190.0, 210.0], "better"),
        ([200.0, 190.0, 210.0], [300.0, 310.0, 305.0], "worse"),
        ([300.0, 200.0, 250.0], [250.0, 260.0, 240.0], "no difference shown"),
        ([300.0], [200.0], "too few blocks"),
    ],
)
def test_returns_at_equal_env_steps_are_compared_within_blocks(tmp_path, ours, theirs, answer):
    comparison = comparison_of(at_equal_steps(ours, theirs), tmp_path, env_steps=1000)
    summary = comparison.tasks[0].systems[1]
    assert summary.return_difference.answer == answer
    assert summary.return_difference.num_blocks == len(ours)
    assert summary.trained_ratio.value.estimate == pytest.approx(5.0)
    assert summary.trained.estimate == 200.0
    lines = verdicts(comparison.tasks[0])
    assert sum("at equal env steps" in line for line in lines) == 1


def test_a_task_without_env_steps_says_nothing_of_equal_ones(tmp_path):
    comparison = comparison_of(at_equal_steps([300.0], [200.0]), tmp_path)
    assert comparison.tasks[0].systems[1].return_difference is None
    assert not any("equal env steps" in line for line in verdicts(comparison.tasks[0]))


@pytest.mark.parametrize("side", [0, 1])
def test_no_speed_up_when_more_than_half_of_a_side_is_censored(tmp_path, side):
    times = [[5, 6, 5, 6, 5], [20, 21, 20, 21, 20]]
    times[side] = [None, None, None, 6, 5]
    summary = summary_of(both(*times), tmp_path)
    assert summary.time_ratio.value is None
    assert "more than half" in summary.time_ratio.reason
    if side == 1:
        assert summary.median_s is None
        assert summary.median_from_launch_s is None


def test_some_censoring_makes_it_a_ratio_of_restricted_means(tmp_path):
    summary = summary_of(both([5, 6, 5, 6, 5], [20, 22, None, 19, 20]), tmp_path)
    assert "restricted means" in summary.time_ratio.method
    assert summary.time_ratio.value.estimate == pytest.approx((20 + 22 + 60 + 19 + 20) / 27)
    assert summary.success.estimate == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("times", "median_s", "from_launch_s"),
    [
        ([10, 20, 50, None, None], 50.0, 52.0),
        ([10, 20, 30, 50, None], 30.0, 32.0),
        ([10, 20, None, None, None], None, None),
        ([None] * 5, None, None),
    ],
)
def test_every_median_counts_censored_runs_as_longer_than_all(
    tmp_path, times, median_s, from_launch_s
):
    results = both([5, 6, 5, 6, 5], times)
    found = {}
    for result in results:
        reached_s = result.figures.time_to_threshold_s
        steps = None if reached_s is None else 100 * int(reached_s)
        figures = msgspec.structs.replace(result.figures, steps_to_threshold=steps)
        found[result.cell] = msgspec.structs.replace(result, figures=figures)
    summary = summary_of(list(found.values()), tmp_path)
    assert summary.median_s == median_s
    assert summary.median_from_launch_s == from_launch_s
    assert summary.median_steps == (None if median_s is None else 100 * median_s)


def test_a_failed_cell_takes_its_block_out_and_is_counted(tmp_path):
    results = both([5, 6, 5], [20, 22, 21])
    results[-1] = msgspec.structs.replace(results[-1], outcome="crashed")
    comparison = comparison_of(results, tmp_path, num_seeds=3)
    summary = comparison.tasks[0].systems[1]
    assert summary.outcomes == {"reached": 2, "crashed": 1}
    assert summary.time_ratio.num_blocks == 2
    assert any("crashed" in warning for warning in comparison.warnings)


def test_one_block_has_a_ratio_but_no_answer(tmp_path):
    summary = summary_of(both([5], [20]), tmp_path, num_seeds=1)
    assert summary.time_ratio.answer == "too few blocks"


def test_without_a_common_block_there_is_no_ratio(tmp_path):
    results = [result_of("tianji", 0), result_of("rllib", 1)]
    summary = summary_of(results, tmp_path, num_seeds=2)
    assert summary.time_ratio.answer == "not computable"


def test_the_horizon_is_never_later_than_a_censored_run_was_followed(tmp_path):
    results = [*both([5, 6], [20, 21]), result_of("rllib", 2, time_s=None, budget_s=40.0)]
    assert comparison_of(results, tmp_path, num_seeds=3).tasks[0].horizon_s == 40.0


def test_instability_is_warned_of(tmp_path):
    wild = [result_of("tianji", i, rate=1000.0 * (i + 1), busy=1.5) for i in range(3)]
    warnings = " ".join(comparison_of(wild, tmp_path, num_seeds=3).warnings)
    for words in (
        "varies by",
        "not idle before 3 of 3",
        "Unfinished: 3 of 6",
        "Number of blocks: 3",
    ):
        assert words in warnings


def test_verdicts_name_every_system(tmp_path):
    (line,) = verdicts(comparison_of(both([5, 6], [20, 21]), tmp_path, num_seeds=2).tasks[0])
    assert line.startswith("RLlib: throughput 2.00 × [")


def test_blocks_are_complete_random_and_reproducible():
    systems = ("tianji", "single-process", "rllib", "sample-factory", "xingtian")
    suite = make_suite(make_task(systems))
    cells = make_cells(suite, systems, range(8))
    assert cells == make_cells(suite, systems, range(8))
    orders = [tuple(cell.system for cell in cells[i : i + 5]) for i in range(0, 40, 5)]
    assert all(set(order) == set(systems) for order in orders)
    assert len(set(orders)) > 4
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert planned_s(suite, cells) == 40 * (1.0 + 12.0)


def test_agent_steps_are_shown_where_a_task_has_several_agents(tmp_path):
    alone = both([5, 6], [20, 22])
    of_team = [
        msgspec.structs.replace(
            result,
            figures=msgspec.structs.replace(
                result.figures, agent_steps_per_s=3 * (result.figures.collect_per_s or 0.0)
            ),
        )
        for result in alone
    ]
    for results, is_shown in ((alone, False), (of_team, True)):
        (task,) = comparison_of(results, tmp_path, num_seeds=2).tasks
        table = task_table(comparison_of(results, tmp_path, num_seeds=2), task)
        headings = [str(column.header) for column in table.columns]
        assert ("agent steps/s" in headings) == is_shown
    us, them = task.systems
    assert us.agent_steps.estimate == pytest.approx(3 * us.throughput.estimate)
    assert them.agent_steps.estimate == pytest.approx(3 * them.throughput.estimate)
