"""Roles that were started and never joined, with their last log lines."""

from __future__ import annotations

from engine.host.process import log_tail
from engine.messages import COORDINATOR
from engine.trace.reader import read_table
from engine.trace.records import Event
from tianji_cli.storage.run_dir import RunPaths

NUM_LINES = 5
_ALWAYS_THERE = frozenset({COORDINATOR, "supervisor"})


def words_of_laggards(paths: RunPaths) -> str:
    """One indented block per role; empty if all roles with a log have joined."""
    joined = {event.role for event in read_table(paths.trace, Event) if event.kind == "joined"}
    blocks = []
    for log in sorted(paths.logs.glob("*/*.log")):
        if log.stem not in joined | _ALWAYS_THERE:
            lines = log_tail(log)[-NUM_LINES:] or ["(said nothing)"]
            words = "".join(f"\n        {line}" for line in lines)
            blocks.append(f"\n    {log.stem} on {log.parent.name} logged last:{words}")
    return "".join(blocks)
