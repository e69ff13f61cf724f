"""Runs that share their hosts, begun and ended at random; see `two_runs.py`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.faults.two_runs import WAYS, draw, play_all

pytestmark = pytest.mark.processes


def test_every_way_to_end_is_drawn() -> None:
    courses = draw(1, 20)
    assert {course.way for course in courses} == set(WAYS)
    assert any(course.is_coveted for course in courses)
    assert courses == draw(1, 20)


@pytest.mark.parametrize(
    ("seed", "num_runs"), [(12, 2), pytest.param(1, 20, marks=pytest.mark.slow)]
)
def test_none_disturbs_another(seed: int, num_runs: int) -> None:
    """In a directory of a short path, as sockets may lie there."""
    with tempfile.TemporaryDirectory(prefix="tj-", dir="/tmp") as out:
        arena = play_all(seed, num_runs, Path(out) / "two")
    assert sum(map(bool, arena.overlaps)) >= num_runs // 2
