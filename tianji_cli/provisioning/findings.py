"""Findings about a host: one of each probe, of the way to it first, in their order.

Probes of one host depend on each other: without a connection there is no Python, without Python
there are no facts. Probes that cannot run are reported as skipped, never as passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from engine.errors import ConfigError, HostUnreachableError, TianJiError
from tianji_cli.config.inventory_schema import ConnectionKind
from tianji_cli.connectors.base import Node

Verdict = Literal["ok", "warning", "failed", "skipped"]
WAYS = ("ssh", "slurm", "ray")
"""The probes of ways to a host."""
_OTHERS = (
    "python",
    "versions",
    "cores",
    "memory",
    "disk",
    "gpu",
    "ports",
    "clock",
    "leftovers",
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one probe.

    Attributes:
        fix: How to fix it; empty if nothing is wrong.
    """

    probe: str
    verdict: Verdict
    detail: str
    fix: str = ""


def names_of(connection: ConnectionKind) -> tuple[str, ...]:
    """The probes of a host, in their order."""
    way = way_to(connection)
    return (way, "host key", *_OTHERS) if way == "ssh" else (way, *_OTHERS)


def way_to(connection: ConnectionKind) -> str:
    """The probe of the way to a host; that of this machine is in the place of SSH."""
    return "ssh" if connection == "local" else connection


def failed(probe: str, error: TianJiError) -> Finding:
    """A probe that ended with an error."""
    return Finding(probe=probe, verdict="failed", detail=error.what, fix=error.fix)


def passed(probe: str, detail: str) -> Finding:
    """A probe that found nothing wrong."""
    return Finding(probe=probe, verdict="ok", detail=detail)


def access_findings(node: Node, connection: ConnectionKind) -> list[Finding]:
    """How a host was reached."""
    access, way = node.access, way_to(connection)
    if way != "ssh":
        return [passed(way, f"{access.endpoint}, as {access.user}")]
    if not node.is_remote:
        return [passed("ssh", f"this machine, as {access.user}"), passed("host key", "not needed")]
    way = f" through {access.jump}" if access.jump else ""
    return [
        passed("ssh", f"{access.endpoint}{way}, key: {access.key}"),
        passed("host key", access.host_key),
    ]


def access_failure(error: TianJiError, connection: ConnectionKind) -> list[Finding]:
    """Why a host was not reached."""
    way = way_to(connection)
    if way != "ssh":
        return [failed(way, error)]
    if isinstance(error, HostUnreachableError) or not error.what.startswith("the host key"):
        place = f"{error.where}: " if isinstance(error, ConfigError) and error.where else ""
        return [Finding(probe="ssh", verdict="failed", detail=place + error.what, fix=error.fix)]
    return [passed("ssh", "it answers"), failed("host key", error)]


def complete(findings: Sequence[Finding], connection: ConnectionKind) -> list[Finding]:
    """All probes in their order; those without a finding were skipped."""
    by_name = {finding.probe: finding for finding in findings}
    first_failure = next((f.probe for f in findings if f.verdict == "failed"), "")
    reason = f"could not be asked: {first_failure} failed" if first_failure else "not asked"
    return [
        by_name.get(name, Finding(probe=name, verdict="skipped", detail=reason))
        for name in names_of(connection)
    ]
