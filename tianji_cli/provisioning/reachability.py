"""Checks, with real connections, that the hosts of a run reach each other where roles will listen:
each host listens on a free port of its range, and the others connect to it and read its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from engine.errors import PreflightError, TianJiError
from tianji_cli.config.inventory import DEFAULT_PORTS, Host
from tianji_cli.connectors.base import Connection, Node
from tianji_cli.provisioning.findings import Finding
from tianji_cli.provisioning.preflight import read_line
from tianji_cli.provisioning.probe import probe_command

REACH_S = 30.0
_OPEN_PORTS = "open the ports of `ports:` between the hosts (firewall), or correct `address:`"
_IN_USE = "already in use"
"""All ports of a narrow range can be in use by the run itself; that does not mean it is blocked."""

T = TypeVar("T")


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


@dataclass(frozen=True)
class Ways:
    """Connections between hosts.

    Attributes:
        targets: Where each host listened, if it could.
        deaf: Why the others could not.
        blocked: For each host that listened, which other hosts cannot connect to it, and why.
        untried: The same for hosts that could not try.
    """

    targets: dict[str, str] = field(default_factory=dict)
    deaf: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, list[str]] = field(default_factory=dict)
    untried: dict[str, list[str]] = field(default_factory=dict)


class _Listening(msgspec.Struct):
    port: int
    error: str


def check_ports(hosts: Mapping[str, Reachable], num_hosts: int) -> dict[str, Finding]:
    """One finding per host: whether it can listen, and whether the others reach it.

    Args:
        hosts: Those that answer.
        num_hosts: Of the inventory.
    """
    if len(hosts) < 2 <= num_hosts:
        detail = "no other host could be asked"
        return {name: Finding(probe="ports", verdict="skipped", detail=detail) for name in hosts}
    if len(hosts) < 2:
        detail = "the only host; its roles use Unix sockets"
        return {name: Finding(probe="ports", verdict="ok", detail=detail) for name in hosts}
    everyone = {source: [name for name in hosts if name != source] for source in hosts}
    ways = try_ways(hosts, everyone)
    findings = {name: _failed(words) for name, words in ways.deaf.items()}
    for name, target in ways.targets.items():
        problems = [*ways.blocked[name], *ways.untried[name]]
        findings[name] = (
            _failed("; ".join(problems)) if problems else _answered(target, len(hosts) - 1)
        )
    return findings


def require_ways(hosts: Mapping[str, Reachable], wanted: Mapping[str, Sequence[str]]) -> None:
    """Tries the connections of a run before it starts.

    Args:
        hosts: All of the run.
        wanted: For each host those to which its processes connect.

    Raises:
        PreflightError: One is blocked; hosts, addresses and reasons are named.
    """
    ways = try_ways(hosts, wanted)
    deaf = {name: text for name, text in ways.deaf.items() if _IN_USE not in text}
    problems = [*deaf.values(), *(text for found in ways.blocked.values() for text in found)]
    if problems:
        closed = [*deaf, *(name for name, found in ways.blocked.items() if found)]
        raise PreflightError(
            "the hosts do not reach each other where the run would listen"
            + "".join(f"\n    {text}" for text in problems),
            where=", ".join(closed),
            fix=_OPEN_PORTS,
        )


def try_ways(hosts: Mapping[str, Reachable], wanted: Mapping[str, Sequence[str]]) -> Ways:
    """Lets hosts listen, and others connect to them, in parallel.

    Args:
        hosts: All hosts.
        wanted: For each host those that it must reach.
    """
    names = list(dict.fromkeys(name for targets in wanted.values() for name in targets))
    ways = Ways()
    if not names:
        return ways
    listeners: dict[str, Connection] = {}
    try:
        for name, started in _at_once(lambda name: _listen(hosts[name]), names).items():
            if isinstance(started, TianJiError):
                ways.deaf[name] = f"{name} cannot be asked to listen: {started.what}"
            else:
                listeners[name] = started
        for name, answer in _at_once(lambda name: _answer(listeners[name]), listeners).items():
            assert not isinstance(answer, TianJiError)
            host = hosts[name].host
            if answer.port:
                ways.targets[name] = endpoint_text(host.address, answer.port)
            else:
                ways.deaf[name] = f"cannot listen at {host.address}: {answer.error}"
        _connect_all(hosts, wanted, ways)
    finally:
        for connection in listeners.values():
            connection.close_input()
        for connection in listeners.values():
            connection.wait(5.0)
            connection.close()
    return ways


def endpoint_text(address: str, port: int) -> str:
    """
    >>> endpoint_text("192.0.2.1", 29500), endpoint_text("::1", 29500)
    ('192.0.2.1:29500', '[::1]:29500')
    """
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _at_once(
    action: Callable[[str], T], names: Sequence[str] | Mapping[str, object]
) -> dict[str, T | TianJiError]:
    """Results by name; in threads, since each waits for its host."""

    def one(name: str) -> T | TianJiError:
        try:
            return action(name)
        except TianJiError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


def _answered(target: str, num_others: int) -> Finding:
    others = "the other host" if num_others == 1 else f"all {num_others} other hosts"
    return Finding(probe="ports", verdict="ok", detail=f"{target} answers {others}")


def _failed(detail: str) -> Finding:
    return Finding(probe="ports", verdict="failed", detail=detail, fix=_OPEN_PORTS)


def _listen(item: Reachable) -> Connection:
    first, end = item.host.ports or _default_range()
    words = (item.host.address, str(first), str(end), item.host.name)
    return item.node.spawn(probe_command(item.python, "listen", *words), {})


def _answer(listener: Connection) -> _Listening:
    """The first message of a host's listener."""
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
    hosts: Mapping[str, Reachable], wanted: Mapping[str, Sequence[str]], ways: Ways
) -> None:
    """Fills in which host cannot connect to which."""
    for name in ways.targets:
        ways.blocked[name] = []
        ways.untried[name] = []
    sources = {
        source: {name: f"{ways.targets[name]}={name}" for name in names if name in ways.targets}
        for source, names in wanted.items()
    }
    sources = {source: items for source, items in sources.items() if items}

    def reach(source: str) -> dict[str, str]:
        item = hosts[source]
        done = item.node.run(
            probe_command(item.python, "reach", *sources[source].values()), REACH_S
        )
        try:
            return msgspec.json.decode(done.stdout, type=dict[str, str])
        except msgspec.DecodeError as error:
            raise TianJiError(f"{error}{done.last_words}") from error

    for source, answers in _at_once(reach, sources).items():
        for name, item in sources[source].items():
            target = ways.targets[name]
            if isinstance(answers, TianJiError):
                ways.untried[name].append(f"{source} could not try: {answers}")
            elif reason := answers.get(item, "no answer"):
                words = f"{source} cannot connect to {name} at {target}: {reason}"
                ways.blocked[name].append(words)
