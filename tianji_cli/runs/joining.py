"""Which hosts have joined a run, and which roles were started and never did."""

from __future__ import annotations

from collections.abc import Sequence

from engine.host.process import log_tail
from engine.messages import COORDINATOR
from engine.progress import Progress
from engine.trace.reader import read_table
from engine.trace.records import Event
from tianji_cli.planning.placement import Placement
from tianji_cli.storage.run_dir import RunPaths


class Joining:
    """Follows the hosts of a run until they have joined.

    Args:
        placements: The placement of its processes.
    """

    def __init__(self, placements: Sequence[Placement]) -> None:
        self._host_of = {role: item.host for item in placements for role in item.roles}
        self._open = {item.host for item in placements}

    def take(self, progress: Progress) -> list[str]:
        """The hosts that have joined since the last call."""
        waiting = {
            self._host_of[address]
            for address, role in progress.roles.items()
            if role.state == "starting" and address in self._host_of
        }
        joined = sorted(self._open - waiting)
        self._open &= waiting
        return joined


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
