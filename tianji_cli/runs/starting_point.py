"""What a run that does not start from nothing gets before its roles do: files in its directory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from engine.errors import PreflightError
from engine.messages import role_of
from tianji_cli.connectors.base import Node
from tianji_cli.planning.plan import Plan
from tianji_cli.provisioning.provision import ReadyHost
from tianji_cli.storage.run_dir import RunPaths

_READERS = frozenset({"learner", "reducer", "buffer"})
"""Roles that begin with these files."""


class StartingPoint(Protocol):
    """A checkpoint that is resumed (`resume`), or weights of a former run (`warm_start`)."""

    def copy_to(self, paths: RunPaths) -> None:
        """Copies it into the new run here; raises OSError."""
        ...

    def ship(self, node: Node, run_dir: str, roles: Collection[str]) -> None:
        """Copies what these roles need to their host; raises HostUnreachableError."""
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
    for host, ready_host in ready_hosts.items():
        there = [role for p in plan.placements if p.host == host for role in p.roles]
        reading = [role for role in there if role_of(role) in _READERS]
        if ready_host.node.is_remote and reading:
            point.ship(ready_host.node, ready_host.part.run_dir, reading)
