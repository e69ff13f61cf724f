"""Can the hosts of a run reach each other where the roles will listen? Asked both ways, for real:
each host listens on a free port of its range, every other host connects to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from engine.errors import TianJiError
from tianji_cli.connectors.base import Connection, Node
from tianji_cli.inventory import DEFAULT_PORTS, Host
from tianji_cli.preflight import Finding, read_line
from tianji_cli.probe import probe_command

REACH_S = 30.0
_OPEN_PORTS = "open the ports of `ports:` between the hosts (firewall), or correct `address:`"


@dataclass(frozen=True)
class Reachable:
    """A host that can take part.

    Attributes:
        host: Its address filled in.
        python: Its interpreter.
    """

    node: Node
    host: Host
    python: str


class _Listening(msgspec.Struct):
    port: int
    error: str


def check_ports(hosts: Mapping[str, Reachable], num_hosts: int) -> dict[str, Finding]:
    """One finding for each host: can it listen, and do the others get through to it?

    Args:
        hosts: Those that can be asked.
        num_hosts: Of the inventory.
    """
    if len(hosts) < 2 <= num_hosts:
        detail = "no other host could be asked"
        return {name: Finding(probe="ports", verdict="skipped", detail=detail) for name in hosts}
    if len(hosts) < 2:
        detail = "the only host; its roles use Unix sockets"
        return {name: Finding(probe="ports", verdict="ok", detail=detail) for name in hosts}
    listeners: dict[str, Connection] = {}
    findings: dict[str, Finding] = {}
    targets: dict[str, str] = {}
    try:
        for name, item in hosts.items():
            listeners[name] = _listen(item)
        for name, item in hosts.items():
            answer = _answer(listeners[name])
            if answer.port:
                targets[name] = f"{item.host.address}:{answer.port}"
            else:
                where = item.host.address
                findings[name] = _failed(f"cannot listen at {where}: {answer.error}")
        problems = _connect_all(hosts, targets)
    finally:
        for connection in listeners.values():
            connection.close_input()
        for connection in listeners.values():
            connection.wait(5.0)
            connection.close()
    for name, target in targets.items():
        findings[name] = (
            _failed("; ".join(problems[name]))
            if problems[name]
            else _answered(target, len(hosts) - 1)
        )
    return findings


def _answered(target: str, num_others: int) -> Finding:
    others = "the other host" if num_others == 1 else f"all {num_others} other hosts"
    return Finding(probe="ports", verdict="ok", detail=f"{target} answers {others}")


def _failed(detail: str) -> Finding:
    return Finding(probe="ports", verdict="failed", detail=detail, fix=_OPEN_PORTS)


def _listen(item: Reachable) -> Connection:
    first, end = item.host.ports or _default_range()
    command = probe_command(item.python, "listen", item.host.address, str(first), str(end))
    return item.node.spawn(command, {})


def _answer(listener: Connection) -> _Listening:
    """What a host's listener says first."""
    line = read_line(listener.from_supervisor)
    try:
        return msgspec.json.decode(line, type=_Listening)
    except msgspec.DecodeError:
        said = line.decode("utf-8", "replace").strip() or listener.error_output()
        return _Listening(port=0, error=f"its answer cannot be understood: {said or 'it ended'}")


def _default_range() -> tuple[int, int]:
    first, _, last = DEFAULT_PORTS.partition("-")
    return int(first), int(last) + 1


def _connect_all(
    hosts: Mapping[str, Reachable], targets: Mapping[str, str]
) -> dict[str, list[str]]:
    """For each target host, who did not get through, and why."""
    problems: dict[str, list[str]] = {name: [] for name in targets}
    for source, item in hosts.items():
        others = {name: target for name, target in targets.items() if name != source}
        command = probe_command(item.python, "reach", *others.values())
        try:
            done = item.node.run(command, REACH_S)
            answers = msgspec.json.decode(done.stdout, type=dict[str, str])
        except (TianJiError, msgspec.DecodeError) as error:
            for name in others:
                problems[name].append(f"{source} could not try: {error}")
            continue
        for name, target in others.items():
            if reason := answers.get(target, "no answer"):
                problems[name].append(f"{source} does not get through to {target}: {reason}")
    return problems
