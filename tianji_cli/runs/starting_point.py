"""What a run that does not start from nothing gets before its roles do: files in its directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from engine.errors import PreflightError
from engine.messages import role_of
from tianji_cli.connectors.base import Node
from tianji_cli.planning.plan import Plan
from tianji_cli.provisioning.provision import ReadyHost
from tianji_cli.storage.run_dir import RunPaths

_READERS = frozenset({"learner", "reducer"})
"""Roles that begin with these files."""


class StartingPoint(Protocol):
    """A checkpoint that is resumed (`resume`), or weights of a former run (`warm_start`)."""

    def copy_to(self, paths: RunPaths) -> None:
        """Copies it into the new run here; raises OSError."""
        ...

    def ship(self, node: Node, run_dir: str) -> None:
        """Copies it to a remote host; raises HostUnreachableError."""
        ...


def place_copy(point: StartingPoint, paths: RunPaths) -> None:
    """`copy_to`, with a readable error.

    Raises:
        PreflightError: It cannot be written.
    """
    try:
        point.copy_to(paths)
    except OSError as error:
        raise PreflightError(
            f"what the run starts from cannot be copied: {error}", where=str(paths.root)
        ) from error


def ship_copies(point: StartingPoint, plan: Plan, ready_hosts: Mapping[str, ReadyHost]) -> None:
    """Copies it to all remote hosts with a role that reads it.

    Raises:
        HostUnreachableError: A host cannot be reached.
    """
    reading = {p.host for p in plan.placements if not _READERS.isdisjoint(map(role_of, p.roles))}
    for host, ready_host in ready_hosts.items():
        if ready_host.node.is_remote and host in reading:
            point.ship(ready_host.node, ready_host.part.run_dir)
