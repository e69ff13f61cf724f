"""The hosts that have joined a run: those whose roles have all joined."""

from __future__ import annotations

from collections.abc import Sequence

from engine.progress import Progress
from tianji_cli.planning.placement import Placement


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
