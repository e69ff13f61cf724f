"""Reads what XingTian prints about itself, while it runs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import msgspec

from tianji_cli.bench.systems.base import CellPaths
from tianji_cli.bench.systems.raw import Claimed, RawFeed, RawRecord

LIVE_NAME = "learner-statistics.jsonl"
_TASK = re.compile(
    r"Task: (?P<task>\S+)\s*\| Train_count:\s*(?P<train_count>\d+) \| Steps:\s*(?P<steps>\d+)"
)
_FIGURE = re.compile(r"(?P<name>[a-z_]+):\s*(?P<value>-?\d+(?:\.\d+)?|nan)")


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """One block of statistics that XingTian prints every 10,000 steps."""

    train_count: int
    steps: int
    """Env steps that its learner has received."""
    figures: dict[str, float]
    """Its own, such as `step_per_second` and `train_reward_avg`."""


def parse_statistics(lines: Iterable[str]) -> list[Statistics]:
    """All statistic blocks of XingTian's output, in order; everything else is passed over.

    A block is a line that begins with `Task:` and the lines of figures below it; an empty line
    ends it, and a block that the end of the output cuts is left out.
    """
    found: list[Statistics] = []
    head: re.Match[str] | None = None
    figures: dict[str, float] = {}
    for line in lines:
        if match := _TASK.search(line):
            head, figures = match, {}
        elif head is not None and line.strip():
            figures |= {m["name"]: float(m["value"]) for m in _FIGURE.finditer(line)}
        elif head is not None and line.endswith("\n"):
            counts = int(head["train_count"]), int(head["steps"])
            found.append(Statistics(train_count=counts[0], steps=counts[1], figures=figures))
            head = None
    return found


class StatisticsFeed:
    """Follows the counting environments, and records when XingTian printed what.

    XingTian's lines carry no usable time, so they are stamped when they are read; with the stamps
    written into the raw files, reading those again later gives the same.

    Args:
        paths: Of the cell.
        is_bounded: Whether its explorers wait for its learner, so that little is in transit.
    """

    def __init__(self, paths: CellPaths, *, is_bounded: bool) -> None:
        self._is_bounded = is_bounded
        self._raw = RawFeed(paths.raw)
        self._output = paths.output
        self._live = paths.raw / LIVE_NAME
        self._num_known = 0

    def poll(self) -> list[RawRecord]:
        if self._output.is_file():
            with self._output.open(encoding="utf-8", errors="replace") as file:
                blocks = parse_statistics(file)
            with self._live.open("ab") as live:
                for block in blocks[self._num_known :]:
                    live.write(self._line(block))
            self._num_known = len(blocks)
        return self._raw.poll()

    def _line(self, block: Statistics) -> bytes:
        now_s = round(time.monotonic(), 6)
        record = Claimed(t=now_s, env_steps=block.steps, is_received=not self._is_bounded)
        return msgspec.json.encode(record) + b"\n"
