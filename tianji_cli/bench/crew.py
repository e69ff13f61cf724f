"""Runs cells of a benchmark side by side, each in a thread of its own, and ends all of them."""

from __future__ import annotations

import contextlib
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic

from tianji_cli.bench.cells import CellT, ResultT

WAKE_S = 1.0
"""How often the thread that waits for the others looks for signals."""


class StopSwitch:
    """Asks all cells that are running to end; threads see it, unlike Ctrl-C."""

    def __init__(self) -> None:
        self._is_asked = threading.Event()
        self._is_urgent = threading.Event()

    def ask(self) -> None:
        """Asked a second time, cells end at once."""
        if self._is_asked.is_set():
            self._is_urgent.set()
        self._is_asked.set()

    @property
    def is_asked(self) -> bool:
        return self._is_asked.is_set()

    @property
    def is_urgent(self) -> bool:
        return self._is_urgent.is_set()


class Crew(ABC, Generic[CellT, ResultT]):
    """Runs the cells of a benchmark, several at once if `num_parallel` is above 1.

    Attributes:
        num_parallel: How many cells run at once.
        stop: Once asked, `__call__` ends its run and raises KeyboardInterrupt.
    """

    def __init__(self, num_parallel: int = 1) -> None:
        self.num_parallel = num_parallel
        self.stop = StopSwitch()

    @abstractmethod
    def __call__(self, cell: CellT) -> ResultT | None:
        """Runs one cell, in any thread; as `run_open_cells` wants it."""

    def stored(self, result: ResultT) -> None:
        """The result of a cell is in its file; called in the thread of the cell, one at a time."""


@dataclass
class _Shared(Generic[CellT, ResultT]):
    """What the threads share.

    Attributes:
        open_cells: Those that no thread has taken yet.
        ends: A result as soon as it is stored, the error that ended a thread, or None if the thread
            has nothing left to do.
    """

    open_cells: Iterator[CellT]
    taking: threading.Lock = field(default_factory=threading.Lock)
    storing: threading.Lock = field(default_factory=threading.Lock)
    ends: queue.SimpleQueue[ResultT | BaseException | None] = field(
        default_factory=queue.SimpleQueue
    )


def run_side_by_side(
    crew: Crew[CellT, ResultT],
    cells: Sequence[CellT],
    store: Callable[[CellT, ResultT], None],
    finished: Callable[[ResultT], None],
) -> None:
    """Runs cells in the order given, `crew.num_parallel` at a time, until none is left.

    Args:
        crew: Runs them.
        cells: The cells.
        store: Writes the result of a cell; called by one thread at a time.
        finished: Called in this thread after each.

    Raises:
        KeyboardInterrupt: The user stopped it; all runs were ended.
        Exception: That of the first cell that could not be run; the others were ended.
    """
    shared: _Shared[CellT, ResultT] = _Shared(iter(cells))
    threads = [
        threading.Thread(target=_work, args=(crew, shared, store), name=f"cells-{number}")
        for number in range(min(crew.num_parallel, len(cells)))
    ]
    error: BaseException | None = None
    with _joined(threads, crew.stop):
        for thread in threads:
            thread.start()
        num_left = len(threads)
        while num_left:
            match _next_end(shared):
                case None:
                    num_left -= 1
                case BaseException() as found:
                    num_left -= 1
                    error = error or found
                    crew.stop.ask()
                case result:
                    finished(result)
    if error is not None:
        raise error


def _next_end(shared: _Shared[CellT, ResultT]) -> ResultT | BaseException | None:
    """Waits for the next end. A signal can reach another thread, which does not wake this one, so
    it wakes by itself."""
    while True:
        with contextlib.suppress(queue.Empty):
            return shared.ends.get(timeout=WAKE_S)


def _work(
    crew: Crew[CellT, ResultT],
    shared: _Shared[CellT, ResultT],
    store: Callable[[CellT, ResultT], None],
) -> None:
    """One thread: takes the next cell until none is left."""
    try:
        while not crew.stop.is_asked:
            with shared.taking:
                cell = next(shared.open_cells, None)
            if cell is None:
                break
            result = crew(cell)
            if result is not None:
                with shared.storing:
                    store(cell, result)
                shared.ends.put(result)
        shared.ends.put(None)
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
        shared.ends.put(error)


@contextmanager
def _joined(threads: Sequence[threading.Thread], stop: StopSwitch) -> Iterator[None]:
    """No thread outlives the block, however it ends; Ctrl-C, also while they end, asks them to."""
    try:
        yield
    except BaseException:
        stop.ask()
        raise
    finally:
        for thread in threads:
            if thread.ident is not None:  # it was started
                _join(thread, stop)


def _join(thread: threading.Thread, stop: StopSwitch) -> None:
    is_alive = True
    while is_alive:
        try:
            thread.join(WAKE_S)
            is_alive = thread.is_alive()
        except KeyboardInterrupt:
            stop.ask()
