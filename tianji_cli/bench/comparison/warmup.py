"""What a system does once, before the first cell of a task: no part of any measurement."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tianji_cli.bench.comparison.results import Cell
from tianji_cli.bench.process_tree import clean_environment, modules_environment
from tianji_cli.bench.systems.base import Installed, System
from tianji_cli.bench.tasks.suite import Task


def warm_up(
    cell: Cell, task: Task, system: System, installed: Installed, say: Callable[[str], None]
) -> None:
    """Does it and shows what it says. If it fails its last line is shown, and the cell runs.

    Args:
        cell: The first of its task and system.
        task: As written.
        system, installed: The system.
        say: Shows one line.
    """
    with tempfile.TemporaryDirectory(prefix="tjb-") as name:
        scratch = Path(name)
        command = system.rehearsal(cell.job(task.of(cell.system), scratch), scratch, installed)
        if command is None:
            return
        done = subprocess.run(
            list(command.argv),
            env={
                **clean_environment(command.unset),
                **modules_environment(),
                **command.env,
            },
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    lines = done.stdout.splitlines()
    if done.returncode:
        lines += done.stderr.splitlines()[-1:] or [f"ended with code {done.returncode}"]
    for line in lines:
        say(f"  {system.title}, {cell.task}: {line}")
