"""The stopwatch: always in exactly one section, so that sections add up to wall time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.timing import (
    CONTROL,
    ENVIRONMENT,
    INFERENCE,
    OFF,
    OTHERS,
    RECORDING,
    SECTIONS,
    UPDATING,
    WAITING,
    Stopwatch,
)


class Clocks:
    """Wall and processor time, moved by hand."""

    def __init__(self) -> None:
        self.wall = 1_000
        self.cpu = 500
        self.watch = Stopwatch(lambda: self.wall, lambda: self.cpu, lambda: 2 * self.cpu)

    def work(self, ns: int) -> None:
        self.wall += ns
        self.cpu += ns

    def sleep(self, ns: int) -> None:
        self.wall += ns

    def working(self, section: str) -> Callable[[int], None]:
        return self.watch.timed(section, self.work)


def spent(clocks: Clocks, role: str) -> dict[str, int]:
    wall_ns = clocks.watch.read(role).wall_ns
    assert list(wall_ns) == list(SECTIONS)
    assert sum(wall_ns.values()) == clocks.wall - 1_000, "all time is somewhere, and once"
    return {name: ns for name, ns in wall_ns.items() if ns}


def test_off_hands_functions_back_as_they_are():
    assert OFF.timed(UPDATING, spent) is spent


def test_each_section_has_what_was_spent_in_it():
    clocks = Clocks()
    clocks.watch.add_role("actor-0")
    act, step = clocks.working(INFERENCE), clocks.working(ENVIRONMENT)
    clocks.watch.give_turn("actor-0")
    for _ in range(3):
        act(20)
        clocks.work(3)
        step(50)
    clocks.watch.timed(WAITING, clocks.sleep)(1_000)
    wanted = {INFERENCE: 60, ENVIRONMENT: 150, CONTROL: 9, WAITING: 1_000}
    assert spent(clocks, "actor-0") == wanted
    reading = clocks.watch.read("actor-0")
    assert (reading.cpu_ns, reading.process_cpu_ns) == (219, 2 * 719)


def test_an_inner_section_counts_instead_of_the_outer_one():
    clocks = Clocks()
    clocks.watch.add_role("actor-0")
    act = clocks.working(INFERENCE)

    def collect() -> None:
        clocks.work(5)
        act(20)
        clocks.work(7)

    clocks.watch.give_turn("actor-0")
    clocks.watch.timed(RECORDING, collect)()
    assert spent(clocks, "actor-0") == {RECORDING: 12, INFERENCE: 20}


def test_a_section_ends_also_where_its_function_raises():
    clocks = Clocks()
    clocks.watch.add_role("learner-0")

    def fail() -> None:
        clocks.work(5)
        raise ValueError("no")

    clocks.watch.give_turn("learner-0")
    with pytest.raises(ValueError, match="no"):
        clocks.watch.timed(UPDATING, fail)()
    clocks.work(1)
    assert spent(clocks, "learner-0") == {UPDATING: 5, CONTROL: 1}


def test_roles_of_one_process_see_each_other_and_wait_together():
    clocks = Clocks()
    for role in ("actor-0", "learner-0"):
        clocks.watch.add_role(role)
    update, wait = clocks.working(UPDATING), clocks.watch.timed(WAITING, clocks.sleep)
    clocks.watch.give_turn("actor-0")
    clocks.working(ENVIRONMENT)(10)
    clocks.watch.give_turn("learner-0")
    update(30)
    wait(100)
    update(5)
    clocks.watch.give_turn("actor-0")
    clocks.work(1)
    assert spent(clocks, "actor-0") == {ENVIRONMENT: 10, CONTROL: 1, WAITING: 100, OTHERS: 35}
    assert spent(clocks, "learner-0") == {UPDATING: 35, WAITING: 100, OTHERS: 11}
    assert clocks.watch.read("actor-0").cpu_ns == 11
    assert clocks.watch.read("learner-0").cpu_ns == 35


def test_timed_functions_keep_arguments_and_results():
    clocks = Clocks()
    clocks.watch.add_role("buffer-0")
    assert clocks.watch.timed(INFERENCE, divmod)(7, 2) == (3, 1)
    assert clocks.watch.timed(INFERENCE, sorted)([1, 2], reverse=True) == [2, 1]
