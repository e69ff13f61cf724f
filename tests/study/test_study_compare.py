"""What a study shows: medians, ratios, and what a reader must be told."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from tests.helpers.bench.study_fakes import MACHINE, SMALL, make_runs, manifest_of, run_of, summary
from tianji_cli.bench.statistics import bootstrap_median, median_ratio
from tianji_cli.bench.study.compare import VariantResult, compare_study, horizon_of, mean_return_of
from tianji_cli.bench.study.records import LearningCurve
from tianji_cli.render.bench.figures_study import make_comparison, make_returns
from tianji_cli.render.bench.study_text import (
    interval_text,
    ratio_lines,
    result_rows,
    title_of_returns,
    whole,
)

THREE = {"a": [100, 200, 300], "b": [110, 240, 390]}


def variant(steps: dict[str, list[int | None]], name: str) -> VariantResult:
    comparison = compare_study(manifest_of(), make_runs(steps))
    return next(item for item in comparison.tasks[0].variants if item.variant == name)


def test_the_median_is_the_median_and_lies_in_its_interval():
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    found = bootstrap_median(values)
    assert found is not None
    assert found.estimate == np.median(values) == 3.0
    assert found.low is not None
    assert found.high is not None
    assert min(values) <= found.low < found.estimate < found.high <= max(values)


def test_the_interval_agrees_with_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).lognormal(size=12)
    found = bootstrap_median(values.tolist())
    other = bootstrap(
        (values,), np.median, method="percentile", rng=np.random.default_rng(1), n_resamples=10_000
    ).confidence_interval
    assert found is not None
    assert found.low == pytest.approx(other.low, rel=0.05)
    assert found.high == pytest.approx(other.high, rel=0.05)


def test_a_censored_run_counts_as_longer_than_any():
    found = bootstrap_median([1.0, 2.0, 3.0, 4.0, math.inf])
    assert found is not None
    assert found.estimate == 3.0
    assert found.high is None, "the interval is open above"
    assert bootstrap_median([1.0, 2.0, math.inf, math.inf]) is None
    alone = bootstrap_median([7.0])
    assert alone is not None
    assert (alone.estimate, alone.low) == (7.0, None)


def test_a_ratio_of_medians_is_exact_where_one_side_is_a_multiple():
    found = median_ratio([2.0, 4.0, 6.0, 9.0], [1.0, 2.0, 3.0, 4.5])
    assert (found.estimate, found.low, found.high) == (2.0, 2.0, 2.0)


def test_ratios_are_to_the_baseline_over_the_same_seeds():
    ratio = variant(THREE, "b").ratios["steps_to_threshold"]
    assert ratio.estimate == pytest.approx(240 / 200)
    assert ratio.low is not None
    assert ratio.low < ratio.estimate
    assert variant(THREE, "b").ratios["consume_per_s"].estimate == 1
    assert variant(THREE, "a").ratios == {}
    line = ratio_lines(compare_study(manifest_of(), make_runs(THREE)))[0]
    assert line.startswith("two: b has 1.20 [")
    assert "env steps to the threshold of a" in line


def test_a_run_that_did_not_reach_leaves_no_ratio_of_steps():
    found = variant({"a": [100, 200, 300], "b": [110, None, 390]}, "b")
    assert (found.num_reached, found.num_censored) == (2, 1)
    assert found.steps_to_threshold is not None
    assert found.steps_to_threshold.estimate == 390
    assert set(found.ratios) == {"consume_per_s"}


def test_failed_runs_are_named_and_counted_nowhere():
    runs = make_runs(THREE)
    cell = next(cell for cell in runs if cell.variant == "b" and cell.seed == 1)
    runs[cell] = run_of(cell, summary(1, steps=None, status="failed"))
    comparison = compare_study(manifest_of(), runs)
    (found,) = [item for item in comparison.tasks[0].variants if item.variant == "b"]
    assert (found.num_runs, found.num_reached, found.num_failed) == (3, 2, 1)
    assert found.steps_to_threshold is not None
    assert found.steps_to_threshold.estimate == 250
    assert any("two-b-seed1 failed: actor-0 died" in line for line in comparison.warnings)


def test_a_reader_is_told_what_is_missing_and_what_disturbed():
    runs = make_runs(THREE)
    cell = next(iter(runs))
    busy = msgspec.structs.replace(runs[cell].load, busy_cores=1.5)
    runs[cell] = msgspec.structs.replace(runs[cell], load=busy, disagreements=2)
    del runs[list(runs)[-1]]
    dirty = msgspec.structs.replace(manifest_of().git, dirty=True)
    manifest = msgspec.structs.replace(manifest_of(), git=dirty)
    text = "\n".join(compare_study(manifest, runs).warnings)
    for words in (
        "1 of 7 runs is still to be made",
        "Fewer than 10 seeds",
        f"{cell.name}: 2 figures disagreed",
        "busy before 1 of 6 runs",
        "uncommitted changes",
    ):
        assert words in text
    assert MACHINE.num_cores == 2


def test_a_clean_study_of_ten_seeds_has_no_warning():
    tasks = {"two": SMALL.tasks["two"]}
    study = msgspec.structs.replace(SMALL, seeds=10, tasks=tasks)
    steps = {"a": [100] * 10, "b": [100] * 10}
    assert compare_study(manifest_of(study), make_runs(steps, study)).warnings == []


def test_rows_say_what_was_not_reached():
    comparison = compare_study(manifest_of(), make_runs({"a": [1, 2, 3], "b": [None] * 3}))
    rows = {(row[0], row[1]): row[2:] for row in result_rows(comparison)}
    assert rows["two", "b"][:4] == ("475", "0 of 3", "not reached", "not reached")
    assert rows["two", "a"][1:3] == ("3 of 3", "2 [1–3]")
    assert rows["one", "default"][2] == "50,000"
    assert rows["two", "a"][-1] == "10.0%"
    censored = bootstrap_median([1.0, 2.0, 3.0, 4.0, math.inf])
    assert interval_text(censored, whole).endswith("–not reached]")


@pytest.mark.parametrize(
    ("steps", "num_panels", "verb"),
    [(THREE, 2, "takes"), ({"a": [None] * 3, "b": [None] * 3}, 1, "consumes")],
    ids=["reached", "never reached"],
)
def test_env_steps_to_a_threshold_are_drawn_where_some_run_reached_it(steps, num_panels, verb):
    runs = make_runs(steps)
    figure = make_comparison(compare_study(manifest_of(), runs).tasks[0], runs)
    assert figure is not None
    assert len(figure.axes) == num_panels
    title = figure.axes[0].get_title(loc="left") or figure.axes[0].get_title()
    assert title.startswith(f"b {verb} 1")


def test_returns_are_compared_also_without_a_threshold():
    runs = make_runs(THREE)
    for cell, run in runs.items():
        assert run.summary is not None
        value = {"a": 500.0, "b": 267.0}.get(cell.variant, 9.0) + cell.seed
        curve = LearningCurve(
            t_s=[1, 2, 3], env_steps=[0, 100, 200 + cell.seed], return_mean=[0.0, value, value]
        )
        changed = msgspec.structs.replace(run.summary, return_mean=value, threshold=None)
        runs[cell] = msgspec.structs.replace(run, summary=changed, curve=curve)
    task = next(t for t in compare_study(manifest_of(), runs).tasks if t.task == "two")
    assert task.horizon_env_steps == 200
    a, b = task.variants
    assert (a.final_return and a.final_return.estimate) == 501
    assert (b.mean_return and b.mean_return.estimate) == pytest.approx(0.75 * 268)
    assert task.horizon_s == 3
    assert (a.mean_return_over_time and a.mean_return_over_time.estimate) == pytest.approx(
        0.75 * 501
    )
    assert title_of_returns(task).startswith("Highest final return at a: 501")
    lines = ratio_lines(compare_study(manifest_of(), runs))
    assert any(line.startswith("two: b ends at a mean return of 268") for line in lines)
    figure = make_returns(task, runs)
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "final return", "return over env steps", "return over time",
    ]  # fmt: skip


def test_the_area_under_a_curve_ends_at_the_horizon():
    runs = make_runs(THREE)
    curve = LearningCurve(t_s=[1, 2, 3], env_steps=[10, 20, 40], return_mean=[0.0, 10.0, 30.0])
    run = msgspec.structs.replace(next(iter(runs.values())), curve=curve)
    assert mean_return_of(run, 20) == 5.0
    assert mean_return_of(run, 30) == pytest.approx((50 + 150) / 20)
    assert mean_return_of(run, 40) == pytest.approx((50 + 400) / 30)
    assert mean_return_of(run, 10) is None
    assert horizon_of([run]) == 40
    bare = msgspec.structs.replace(run, curve=LearningCurve())
    assert horizon_of([run, bare]) is None
    assert horizon_of([]) is None
