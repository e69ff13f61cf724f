"""The cells of a comparison, and how long they take (pure functions)."""

from __future__ import annotations

from collections.abc import Sequence

from tianji_cli.bench.blocks import in_blocks
from tianji_cli.bench.comparison.results import Cell
from tianji_cli.bench.tasks.suite import Suite

LAUNCH_S = 12.0
"""Seconds planned for launch and end of a cell, in addition to its training."""


def make_cells(suite: Suite, systems: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Randomised blocks: all systems run a task with one seed before the next seed begins.

    A slow drift of the machine then hits all systems alike, and the ratios within a block are
    paired. The order within a block is random but the same for the same suite and seeds.
    """
    able = {
        name: [system for system in systems if system in task.systems]
        for name, task in suite.tasks.items()
    }
    return [
        Cell(task=task, system=system, seed=seed)
        for task, system, seed in in_blocks(suite.name, able, seeds)
    ]


def planned_s(suite: Suite, cells: Sequence[Cell]) -> float:
    """How long these cells take if each uses up its budget, in seconds."""
    return sum(suite.tasks[cell.task].budget_s + LAUNCH_S for cell in cells)


def shortest_s(suite: Suite, cells: Sequence[Cell]) -> float:
    """How long they take if each reaches its threshold at once, in seconds."""
    return sum(suite.tasks[cell.task].min_s + LAUNCH_S for cell in cells)
