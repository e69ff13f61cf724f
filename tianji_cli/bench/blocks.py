"""The order in which a benchmark runs its cells (a pure function)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

SideT = TypeVar("SideT")


def in_blocks(
    name: str, sides: Mapping[str, Sequence[SideT]], seeds: Sequence[int]
) -> list[tuple[str, SideT, int]]:
    """(task, side, seed) of every cell; within a block the sides of each task are shuffled.

    Args:
        name: Name of the suite; with task and seed it decides the order.
        sides: What is compared, by task.
        seeds: One block each.
    """
    cells = []
    for seed in seeds:
        for task, compared in sides.items():
            block = [(task, side, seed) for side in compared]
            random.Random(f"{name} {task} {seed}").shuffle(block)
            cells += block
    return cells
