"""Simulated time: a queue of calls, and cores that processes share."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from functools import partial

Call = Callable[[], None]
_ENOUGH = 1e-9
"""Differences of shares below this are rounding."""


class Timeline:
    """Makes calls in the order of their time; of equal times, in the order in which they came."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.num_calls = 0
        self._queue: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()

    def at(self, time_s: float, call: Call) -> None:
        """Calls this at that time."""
        heapq.heappush(self._queue, (time_s, next(self._numbers), call))

    def run(self, until_s: float, most_calls: int) -> None:
        """Makes all calls up to a time, or as many as this."""
        queue, last = self._queue, self.num_calls + most_calls
        while queue and queue[0][0] <= until_s and self.num_calls < last:
            self.now_s, _, call = heapq.heappop(queue)
            self.num_calls += 1
            call()


class _Task:
    __slots__ = ("done", "due", "left_s", "share", "since_s", "speed", "weight")

    def __init__(self, wall_s: float, share: float, weight: float, done: Call) -> None:
        self.left_s, self.share, self.weight, self.done = wall_s, share, weight, done
        self.speed = 0.0
        self.since_s = 0.0
        self.due = 0
        """Counts how often its end was planned; an end that was planned before is not one."""


class Cores:
    """Cores, or GPUs, that tasks share as the kernel shares them: by weight, and nobody gets more
    than it can use.

    A task that waits for something half of its time can use half a core. While there is enough for
    all, each takes as long as it took when it was measured.

    Args:
        timeline: Simulated time.
        count: Number of cores.
    """

    def __init__(self, timeline: Timeline, count: float) -> None:
        self.count = count
        self._timeline = timeline
        self._tasks: dict[_Task, None] = {}
        self._wanted = 0.0
        self._is_short = False
        self._used_s = 0.0
        self._granted = 0.0
        self._since_s = 0.0

    @property
    def used_s(self) -> float:
        """Core seconds used so far."""
        return self._used_s + self._granted * (self._timeline.now_s - self._since_s)

    def start(self, wall_s: float, share: float, weight: float, done: Call) -> None:
        """Runs a task.

        Args:
            wall_s: Its duration while there are cores enough.
            share: Of that, the part in which it uses a core, 0 to 1.
            weight: As of the kernel: 1024 for a niceness of 0.
            done: Called at its end.
        """
        task = _Task(wall_s, share, weight, done)
        self._tasks[task] = None
        self._wanted += share
        self._share_out(task)

    def _end(self, task: _Task, due: int) -> None:
        if task.due != due:
            return
        del self._tasks[task]
        self._wanted -= task.share
        self._share_out()
        task.done()

    def _share_out(self, new: _Task | None = None) -> None:
        """Gives every task its speed; only the new one needs to be looked at if all have enough."""
        self._used_s, self._since_s = self.used_s, self._timeline.now_s
        was_short, self._is_short = self._is_short, self._wanted > self.count + _ENOUGH
        if not self._is_short:
            self._granted = max(self._wanted, 0.0)
            for task in self._tasks if was_short else (() if new is None else (new,)):
                self._set_speed(task, 1.0)
            return
        self._granted = self.count
        level = self._level()
        for task in self._tasks:
            self._set_speed(task, min(1.0, level * task.weight / task.share) if task.share else 1.0)

    def _level(self) -> float:
        """Cores per unit of weight for tasks that could use more than they get."""
        left, weight = self.count, sum(task.weight for task in self._tasks)
        for task in sorted(self._tasks, key=lambda task: task.share / task.weight):
            if task.share >= left * task.weight / weight:
                return left / weight
            left, weight = left - task.share, weight - task.weight
        return float("inf")

    def _set_speed(self, task: _Task, speed: float) -> None:
        now_s = self._timeline.now_s
        if task.speed == speed:
            return
        task.left_s -= (now_s - task.since_s) * task.speed
        task.speed, task.since_s, task.due = speed, now_s, task.due + 1
        end_s = now_s + max(task.left_s, 0.0) / speed
        self._timeline.at(end_s, partial(self._end, task, task.due))
