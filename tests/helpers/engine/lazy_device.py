"""A device whose streams do nothing before they must: what is not waited for is not there.

Copies on a stream other than the main one are done only when an event behind them is waited for,
by a stream or a thread, or by `let_run`. So code that forgets an event works with stale values, and
a test sees it. Work of the main stream is done at once, as PyTorch does it here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Work = Callable[[], None]


class LazyEvent:
    """Behind the first `position` pieces of work of a stream."""

    def __init__(self, stream: LazyStream, position: int) -> None:
        self.stream, self.position = stream, position

    def has_happened(self) -> bool:
        self.stream.device.log.append(("ask", self.stream.name))
        return self.stream.done >= self.position

    def wait(self) -> None:
        self.stream.device.log.append(("block", self.stream.name))
        self.stream.run_to(self.position)


class LazyStream:
    """Work in order, done late."""

    def __init__(self, device: LazyDevice, name: str) -> None:
        self.device, self.name = device, name
        self.waiting: deque[Work] = deque()
        self.done = 0

    @contextmanager
    def use(self) -> Iterator[None]:
        before, self.device.current = self.device.current, self
        try:
            yield
        finally:
            self.device.current = before

    def give(self, work: Work) -> None:
        self.waiting.append(work)
        if self is self.device.main:
            self.run_to(self.done + len(self.waiting))

    def record(self) -> LazyEvent:
        self.device.log.append(("record", self.name))
        return LazyEvent(self, self.done + len(self.waiting))

    def wait_for(self, event: LazyEvent) -> None:
        self.device.log.append(("after", self.name, event.stream.name))
        self.give(lambda: event.stream.run_to(event.position))

    def run_to(self, position: int) -> None:
        while self.done < position:
            self.done += 1
            self.waiting.popleft()()


class LazyDevice:
    """See `Device`.

    Attributes:
        log: What was asked of it, in order.
    """

    def __init__(self) -> None:
        self.place = torch.device("cpu")
        self.log: list[tuple[str, ...]] = []
        self.streams: list[LazyStream] = []
        self.main = LazyStream(self, "main")
        self.current = self.main

    def stream(self, *, is_urgent: bool = False) -> LazyStream:
        self.streams.append(LazyStream(self, f"side-{len(self.streams)}"))
        return self.streams[-1]

    def pinned(self, num_bytes: int) -> Tensor:
        return torch.zeros(num_bytes, dtype=torch.uint8)

    def copy(self, target: Tensor, source: Tensor) -> None:
        self.log.append(("copy", self.current.name))
        self.current.give(lambda: _copy(target, source))

    def capture(self, work: Work) -> Work:
        work()
        return lambda: self.current.give(work)

    def let_run(self) -> None:
        """Does all that is waiting."""
        for stream in self.streams:
            stream.run_to(stream.done + len(stream.waiting))


def _copy(target: Tensor, source: Tensor) -> None:
    target.copy_(source)
