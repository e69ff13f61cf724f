"""Tests are dealt so that no worker is left alone with a long one."""

from __future__ import annotations

import pytest

from tests.helpers.dealing import dealt

TESTS = [f"{kind}{number}" for number in range(10) for kind in ("long", "short", "brief")]
IS_LONG = [test.startswith("long") for test in TESTS]


def test_one_worker_runs_tests_as_they_are_written() -> None:
    assert dealt(TESTS, IS_LONG, 1) == TESTS


@pytest.mark.parametrize("num_workers", [2, 3, 4, 7, 31])
def test_each_test_is_run_once(num_workers: int) -> None:
    assert sorted(dealt(TESTS, IS_LONG, num_workers)) == sorted(TESTS)


@pytest.mark.parametrize("num_workers", [2, 5, 10])
def test_each_part_begins_with_its_share_of_the_long_ones(num_workers: int) -> None:
    order, size = dealt(TESTS, IS_LONG, num_workers), len(TESTS) // num_workers
    for begin in range(0, len(order), size):
        are_long = [test.startswith("long") for test in order[begin : begin + size]]
        assert are_long == sorted(are_long, reverse=True)
        assert sum(are_long) == 10 // num_workers


def test_short_ones_stay_with_their_neighbours() -> None:
    short = [test for test in dealt(TESTS, IS_LONG, 3) if not test.startswith("long")]
    assert short == [test for test in TESTS if not test.startswith("long")]
