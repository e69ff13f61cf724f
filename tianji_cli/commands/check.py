"""`tianji check`: checks that the hosts of an inventory are ready for a run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
from rich.table import Table
from rich.text import Text

from engine.errors import ConfigError, HostUnreachableError, PreflightError, TianJiError
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.config.lookup import find_file
from tianji_cli.connectors.ssh_tokens import SshConfigError
from tianji_cli.output import Output
from tianji_cli.provisioning.findings import (
    WAYS,
    Finding,
    access_failure,
    access_findings,
    complete,
    failed,
    way_to,
)
from tianji_cli.provisioning.preflight import host_findings
from tianji_cli.provisioning.reachability import Reachable, check_ports
from tianji_cli.provisioning.reaching import Connect, Reach, connect, with_address
from tianji_cli.slurm.hosts import hosts_of_run

CHECK_SCHEMA_VERSION = 1
_MARKS = {"ok": "ok", "warning": "warn", "failed": "FAIL", "skipped": "-"}
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


class CheckDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `check --json` prints."""

    schema_version: int = CHECK_SCHEMA_VERSION
    inventory: str
    is_ready: bool
    hosts: dict[str, list[Finding]]


@dataclass
class _Checked:
    """One host during the check."""

    host: Host
    findings: list[Finding]
    reachable: Reachable | None = None
    is_unreachable: bool = False
    is_misconfigured: bool = False


def check_command(
    name: str | None, limit: Sequence[str], output: Output, *, uses_slurm: bool = False
) -> int:
    """Prints every probe of every host.

    Args:
        name: Of the inventory; needed without `uses_slurm`.
        limit: As `--limit` has it.
        output: Where to.
        uses_slurm: Whether the nodes of this command's Slurm job are hosts.

    Raises:
        ConfigError: There is nothing to check.

    Returns:
        0 if all are ready, 3 if one is not, 4 if one cannot be reached; 2 if the user's own
        configuration of ssh cannot be used.
    """
    if name is None and not uses_slurm:
        raise ConfigError("no inventory is given", where="check", fix="tianji check INVENTORY")
    path = None if name is None else find_file("inventories", name)
    inventory = hosts_of_run(path, limit, uses_slurm=uses_slurm)
    checked = check_hosts(inventory, Reach(inventory.hosts))
    hosts = {item.host.name: complete(item.findings, item.host.connection) for item in checked}
    is_ready = not any(f.verdict == "failed" for found in hosts.values() for f in found)
    if output.is_json:
        output.document(CheckDocument(inventory=inventory.source, is_ready=is_ready, hosts=hosts))
    else:
        output.data.print(_table(hosts))
        output.say("all hosts are ready" if is_ready else "not all hosts are ready")
    if any(item.is_unreachable for item in checked):
        return HostUnreachableError.exit_code
    if any(item.is_misconfigured for item in checked):
        return SshConfigError.exit_code
    return 0 if is_ready else PreflightError.exit_code


def check_hosts(inventory: Inventory, reach: Connect = connect) -> list[_Checked]:
    """Checks all hosts in parallel, then the connections between them."""

    def check(host: Host) -> _Checked:
        try:
            node = reach(host, threading.Event())
        except TianJiError as error:
            return _Checked(
                host,
                access_failure(error, host.connection),
                is_unreachable=isinstance(error, HostUnreachableError),
                is_misconfigured=isinstance(error, SshConfigError),
            )
        found = _Checked(host, access_findings(node, host.connection))
        try:
            findings, python = host_findings(node, host)
            found.findings += findings
            if python:
                found.reachable = Reachable(node, with_address(host, node), python)
        except TianJiError as error:
            found.findings.append(failed(way_to(host.connection), error))
        if found.reachable is None:
            node.close()
        return found

    with ThreadPoolExecutor(max_workers=len(inventory.hosts)) as pool:
        checked = list(pool.map(check, inventory.hosts))
    reachable = {item.host.name: item.reachable for item in checked if item.reachable}
    ports = check_ports(reachable, len(checked))
    for item in checked:
        if item.host.name in ports:
            item.findings.append(ports[item.host.name])
        if item.reachable is not None:
            item.reachable.node.close()
    return checked


def _table(hosts: dict[str, list[Finding]]) -> Table:
    table = Table("host", "probe", "", box=None, pad_edge=False)
    table.add_column("found", overflow="fold")
    for host, findings in hosts.items():
        for number, finding in enumerate(shown(findings)):
            table.add_row(
                host if number == 0 else "",
                finding.probe,
                Text(_MARKS[finding.verdict], style=_STYLES[finding.verdict]),
                Text(f"{finding.detail}{_advice(finding)}"),
            )
    return table


def shown(findings: list[Finding]) -> list[Finding]:
    """The rows of the table: skipped probes in one row, and one row for an unreachable host."""
    if findings[0].verdict == "failed":
        return findings[:1]
    skipped = [finding for finding in findings if finding.verdict == "skipped"]
    if len(skipped) < 2:
        return findings
    kept = [finding for finding in findings if finding.verdict != "skipped"]
    names = ", ".join(finding.probe for finding in skipped)
    rest = Finding(probe="the rest", verdict="skipped", detail=f"{skipped[0].detail} ({names})")
    return [*kept, rest]


def _advice(finding: Finding) -> str:
    if not finding.fix:
        return ""
    return f" (fix: {finding.fix})" if finding.probe in WAYS else f"\nfix: {finding.fix}"
