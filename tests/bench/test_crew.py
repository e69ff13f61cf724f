"""Cells side by side: in order, each once, ended together, none lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from engine.errors import PreflightError
from tianji_cli.bench.crew import Crew, run_side_by_side

WAIT_S = 20.0


@dataclass(frozen=True)
class Cell:
    number: int

    @property
    def name(self) -> str:
        return f"cell{self.number}"


class Fake(Crew):  # type: ignore[type-arg]  # its results are numbers
    """Runs a function for each cell."""

    def __init__(self, num_parallel: int, work: Callable[[Fake, int], int | None]) -> None:
        super().__init__(num_parallel)
        self._work = work
        self.begun: list[int] = []

    def __call__(self, cell: Cell) -> int | None:
        self.begun.append(cell.number)
        return self._work(self, cell.number)

    def until_stopped(self) -> None:
        """As a run does that is asked to end."""
        while not self.stop.is_asked:
            threading.Event().wait(0.01)
        raise KeyboardInterrupt


def run(crew: Fake, num_cells: int, finished: Callable[[int], None] = lambda _: None) -> list[int]:
    """The results that were stored, in that order."""
    stored: list[int] = []
    run_side_by_side(
        crew,
        [Cell(number) for number in range(num_cells)],
        lambda _, result: stored.append(result),
        finished,
    )
    return stored


def test_every_cell_runs_once_and_begins_in_order():
    crew = Fake(3, lambda _, number: number)
    shown: list[int] = []
    stored = run(crew, 20, shown.append)
    assert sorted(stored) == list(range(20))
    assert shown == stored, "shown once it is stored"
    assert sorted(crew.begun) == list(range(20))


def test_so_many_run_at_once_and_no_more():
    together = threading.Barrier(3, timeout=WAIT_S)
    running, most, lock = 0, 0, threading.Lock()

    def work(_: Fake, number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1
        return number

    assert len(run(Fake(3, work), 9)) == 9
    assert most == 3


def test_results_are_stored_by_one_thread_at_a_time():
    storing = threading.Lock()

    def store(_: object, __: object) -> None:
        assert storing.acquire(blocking=False), "another is storing"
        storing.release()

    crew = Fake(4, lambda _, number: number)
    run_side_by_side(crew, [Cell(number) for number in range(50)], store, lambda _: None)


def test_a_cell_that_cannot_be_measured_stays_open():
    crew = Fake(2, lambda _, number: None if number == 1 else number)
    assert sorted(run(crew, 4)) == [0, 2, 3]


def test_an_error_ends_the_others_and_is_the_one_that_is_raised():
    def work(crew: Fake, number: int) -> int:
        if number == 1:
            raise PreflightError("the disk is full")
        crew.until_stopped()
        raise AssertionError

    crew = Fake(3, work)
    with pytest.raises(PreflightError, match="the disk is full"):
        run(crew, 9)
    assert crew.stop.is_asked
    assert len(crew.begun) <= 3, "nothing else begins"


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where a shell has started the tests without it."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_ends_all_and_keeps_what_was_finished():
    both = threading.Barrier(2, timeout=WAIT_S)

    def work(crew: Fake, number: int) -> int:
        if number == 0:
            return number
        both.wait()
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)
        crew.until_stopped()
        raise AssertionError

    crew, stored = Fake(2, work), []
    with pytest.raises(KeyboardInterrupt):
        run_side_by_side(
            crew,
            [Cell(number) for number in range(9)],
            lambda _, result: stored.append(result),
            lambda _: None,
        )
    assert stored == [0]
    assert sorted(crew.begun) == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cells-")]


@pytest.mark.usefixtures("_interruptible")
def test_a_second_ctrl_c_makes_it_urgent():
    def work(crew: Fake, _: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        while not crew.stop.is_asked:
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        while not crew.stop.is_urgent:
            threading.Event().wait(0.01)
        raise KeyboardInterrupt

    crew = Fake(2, work)
    with pytest.raises(KeyboardInterrupt):
        run(crew, 1)
    assert crew.stop.is_urgent
