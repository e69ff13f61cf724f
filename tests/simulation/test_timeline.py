"""Simulated time: calls in order, and cores shared as a kernel shares them."""

from __future__ import annotations

import pytest

from tianji_cli.simulation.timeline import Cores, Timeline


def ends(cores: float, *tasks: tuple[float, float, float]) -> tuple[list[float], float]:
    """When tasks (seconds, share of a core, weight) that start together end; core seconds used."""
    timeline, found = Timeline(), [0.0] * len(tasks)
    pool = Cores(timeline, cores)
    for number, (wall_s, share, weight) in enumerate(tasks):

        def end(number: int = number) -> None:
            found[number] = timeline.now_s

        pool.start(wall_s, share, weight, end)
    timeline.run(1e6, 1000)
    return [round(end_s, 6) for end_s in found], round(pool.used_s, 6)


@pytest.mark.parametrize(
    ("cores", "tasks", "expected"),
    [
        pytest.param(2, [(1, 1, 1), (2, 1, 1)], [1, 2], id="enough for all"),
        pytest.param(1, [(1, 1, 1), (1, 1, 1)], [2, 2], id="half a core each"),
        pytest.param(1, [(1, 1, 1), (2, 1, 1)], [2, 3], id="alone once the other has ended"),
        pytest.param(1, [(1, 1, 3), (1, 1, 1)], [4 / 3, 2], id="by weight"),
        pytest.param(1, [(1, 0.1, 1)] * 10, [1] * 10, id="waiting needs no core"),
        pytest.param(1, [(1, 0.2, 1), (1, 1, 1)], [1, 1.2], id="nobody gets more than it can use"),
        pytest.param(1, [(1, 0.0, 1), (1, 1, 1)], [1, 1], id="sleeping"),
    ],
)
def test_cores_are_shared(
    cores: float, tasks: list[tuple[float, float, float]], expected: list[float]
):
    found, used_s = ends(cores, *tasks)
    assert found == pytest.approx(expected, abs=1e-5)
    assert used_s == pytest.approx(sum(wall_s * share for wall_s, share, _ in tasks), abs=1e-5)


def test_a_task_that_comes_later_slows_down_one_that_is_running():
    timeline, found = Timeline(), {}
    pool = Cores(timeline, 1)
    pool.start(1.0, 1.0, 1.0, lambda: found.update(first=timeline.now_s))
    timeline.at(0.5, lambda: pool.start(0.25, 1.0, 1.0, lambda: found.update(late=timeline.now_s)))
    timeline.run(10.0, 100)
    assert found == {"late": pytest.approx(1.0), "first": pytest.approx(1.25)}


def test_calls_of_one_time_come_in_order_and_those_beyond_the_end_do_not():
    timeline, found = Timeline(), []
    for number in range(3):
        timeline.at(1.0, lambda number=number: found.append(number))
    timeline.at(2.0, lambda: found.append(9))
    timeline.run(1.5, 100)
    assert (found, timeline.now_s, timeline.num_calls) == ([0, 1, 2], 1.0, 3)
