"""The order of the cells, and how long they will take. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from tianji_cli.bench.results import Cell
from tianji_cli.bench.suite import Suite

SideT = TypeVar("SideT")
LAUNCH_S = 12.0
"""Planned for launch and end of a cell, beside its training."""


def make_cells(suite: Suite, peers: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Randomised blocks: all systems do a task with one seed before the next seed begins.

    A slow drift of the machine then hits all systems alike, and the ratios within a block are
    paired. The order within a block is random but the same for the same suite and seeds.
    """
    able = {
        name: [peer for peer in peers if peer in task.peers] for name, task in suite.tasks.items()
    }
    return [
        Cell(task=task, peer=peer, seed=seed)
        for task, peer, seed in in_blocks(suite.name, able, seeds)
    ]


def in_blocks(
    name: str, sides: Mapping[str, Sequence[SideT]], seeds: Sequence[int]
) -> list[tuple[str, SideT, int]]:
    """(task, side, seed) of every cell; within a block the sides of each task are shuffled.

    Args:
        name: Of the suite; with task and seed it decides the order.
        sides: By task, what is compared.
        seeds: One block each.
    """
    cells = []
    for seed in seeds:
        for task, compared in sides.items():
            block = [(task, side, seed) for side in compared]
            random.Random(f"{name} {task} {seed}").shuffle(block)
            cells += block
    return cells


def planned_s(suite: Suite, cells: Sequence[Cell]) -> float:
    """How long these cells take if each uses up its budget, in seconds."""
    return sum(suite.tasks[cell.task].budget_s + LAUNCH_S for cell in cells)


def shortest_s(suite: Suite, cells: Sequence[Cell]) -> float:
    """How long they take if each reaches its threshold at once, in seconds."""
    return sum(suite.tasks[cell.task].min_s + LAUNCH_S for cell in cells)
