"""The verdict of a row: ours beside a published mean, spread and number of runs."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import scipy.stats

from tests.helpers.bench.published_fakes import ROWS, SMALL, make_runs, manifest_of
from tianji_cli.bench.published.compare import (
    PublishedComparison,
    compare_published,
    difference_of,
    verdict_of,
)
from tianji_cli.bench.published.suite import PublishedReturn

MANY = ROWS["many"].published
ONE = ROWS["one"].published
FLAT = PublishedReturn(mean=-200.0, spread=0.0, runs=3)
SOLVED = PublishedReturn(mean=500.0, spread=0.0, runs=1, episodes=300)


def verdict(ours: list[float], published: PublishedReturn) -> str | None:
    difference = difference_of(ours, published)
    return None if difference is None else verdict_of(difference)


@pytest.mark.parametrize(
    ("ours", "published", "expected"),
    [
        ([98.0, 101.0, 103.0], MANY, "agrees"),
        ([130.0, 131.0, 132.0], MANY, "better"),
        ([70.0, 71.0, 72.0], MANY, "worse"),
        ([60.0, 100.0, 160.0], MANY, "agrees"),  # it varies too much to tell
        ([200.0], MANY, None),
        ([], MANY, None),
        ([-200.0, -200.0, -200.0], FLAT, "agrees"),
        ([-199.0, -199.0, -199.0], FLAT, "better"),
        ([500.0, 500.0], SOLVED, "agrees"),
        ([480.0, 481.0, 482.0, 481.0, 480.0], SOLVED, "worse"),
        ([-85.0, -78.0, -82.0], ONE, "agrees"),
        ([-120.0, -121.0, -122.0], ONE, "worse"),
        ([-40.0, -41.0, -42.0], ONE, "better"),
    ],
)
def test_the_verdict(ours: list[float], published: PublishedReturn, expected: str | None):
    assert verdict(ours, published) == expected


def test_the_published_spread_is_numpys_so_it_is_made_unbiased():
    theirs = np.array([93.0, 104.0, 103.0])
    published = PublishedReturn(mean=float(theirs.mean()), spread=float(theirs.std()), runs=3)
    ours = [101.0, 99.0, 104.0, 110.0]
    difference = difference_of(ours, published)
    expected = scipy.stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert difference is not None
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_a_figure_of_one_run_takes_its_spread_over_seeds_from_ours():
    ours = [-81.0, -79.0, -80.0]
    exact = msgspec.structs.replace(ONE, spread=0.0)
    for published, error in ((exact, 0.0), (ONE, 1.0)):
        found = difference_of(ours, published)
        assert found is not None
        half = scipy.stats.t.ppf(0.975, 2) * np.sqrt(1.0 + 1.0 / 3.0 + error)
        assert found.high == pytest.approx(half)


def compared(means: dict[str, list[float]]) -> PublishedComparison:
    return compare_published(manifest_of(), make_runs(means))


def test_a_row_has_ours_with_its_interval_and_the_published_figure():
    row = compared({"many": [98.0, 101.0, 104.0], "one": [-80.0, -81.0]}).rows[0]
    assert row.ours is not None
    assert row.ours.estimate == pytest.approx(101.0)
    assert row.ours.high == pytest.approx(101.0 + scipy.stats.t.ppf(0.975, 2) * np.sqrt(3.0))
    assert (row.published, row.source, row.verdict) == (MANY, ROWS["many"].source, "agrees")
    assert (row.env_steps, row.wall_s, row.num_planned) == (900, 12.5, 3)
    assert [run.return_mean for run in row.runs] == pytest.approx([98.0, 101.0, 104.0])


def test_runs_that_are_missing_or_have_failed_are_said_and_not_counted():
    runs = make_runs({"many": [98.0, 101.0, 104.0]})
    first = next(iter(runs))
    runs[first] = msgspec.structs.replace(
        runs[first], outcome="failed", detail="only 12 episodes ended; 100 judge it\nmore"
    )
    found = compare_published(manifest_of(), runs)
    many, one = found.rows
    assert (many.num_failed, len(many.runs), many.verdict) == (1, 2, "agrees")
    assert (one.ours, one.difference, one.verdict) == (None, None, None)
    assert "2 of 5 runs are still to be made." in found.warnings
    assert f"{first.name} failed: only 12 episodes ended; 100 judge it" in found.warnings


def test_changed_settings_are_part_of_the_row():
    suite = msgspec.structs.replace(SMALL, settings={"policy": "tianji"})
    row = compare_published(manifest_of(suite), {}).rows[0]
    assert row.settings == {"policy": "tianji"}
