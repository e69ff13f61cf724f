"""Where an SSH connection goes, worked out from the inventory and the user's own `~/.ssh/config`.

Pure: the configuration comes in as a function from alias to options. What the inventory says wins
over the configuration, as a command-line option of `ssh` would.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from tianji_cli.inventory import Host

DEFAULT_PORT = 22
MAX_JUMPS = 8
_JUMP = re.compile(r"(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:@]+)(?::(?P<port>\d+))?")

Lookup = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Target:
    """One hop.

    Attributes:
        alias: What the user calls it.
        keys: Private key files to try; empty for the usual ones.
        uses_agent: Whether keys of an agent may be tried.
        known_hosts: Files of trusted host keys; empty for the user's and the system's.
        proxy_command: How the user's own ssh gets there, if not by jumps.
        jumps: Hops before this one, the first of them first.
    """

    alias: str
    hostname: str
    port: int
    user: str
    keys: tuple[str, ...] = ()
    uses_agent: bool = True
    known_hosts: tuple[str, ...] = ()
    proxy_command: str | None = None
    jumps: tuple[Target, ...] = ()

    @property
    def endpoint(self) -> str:
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        return f"{self.user}@{self.hostname}{port}"

    @property
    def key_name(self) -> str:
        """What `known_hosts` calls it."""
        is_usual = self.port == DEFAULT_PORT
        return self.hostname if is_usual else f"[{self.hostname}]:{self.port}"


def resolve_target(host: Host, lookup: Lookup) -> Target:
    """The way to a host of the inventory.

    Raises:
        ConfigError: A jump host cannot be read, or jumps go round in a circle.
    """
    target = _resolve(host.ssh_host, lookup, host.user, host.port, host.jump, depth=0)
    keys = (str(Path(host.key).expanduser()),) if host.key else target.keys
    known_hosts = target.known_hosts
    jumps = target.jumps
    if host.known_hosts:
        known_hosts = (str(Path(host.known_hosts).expanduser()),)
        jumps = tuple(_with_known_hosts(jump, known_hosts) for jump in jumps)
    if host.key:
        jumps = tuple(_with_keys(jump, keys) for jump in jumps)
    return Target(
        alias=host.ssh_host,
        hostname=target.hostname,
        port=target.port,
        user=target.user,
        keys=keys,
        uses_agent=target.uses_agent,
        known_hosts=known_hosts,
        proxy_command=None if host.jump else target.proxy_command,
        jumps=jumps,
    )


def _with_known_hosts(jump: Target, known_hosts: tuple[str, ...]) -> Target:
    """A jump host that names no file of its own is judged by the same one."""
    return jump if jump.known_hosts else replace(jump, known_hosts=known_hosts)


def _with_keys(jump: Target, keys: tuple[str, ...]) -> Target:
    return jump if jump.keys else replace(jump, keys=keys)


def _resolve(
    alias: str,
    lookup: Lookup,
    user: str | None,
    port: int | None,
    jump: str | None,
    depth: int,
) -> Target:
    if depth > MAX_JUMPS:
        raise ConfigError(
            f"more than {MAX_JUMPS} jumps, so they probably go round in a circle", where=alias
        )
    options = lookup(alias)
    via = jump if jump is not None else str(options.get("proxyjump", "none"))
    jumps: tuple[Target, ...] = ()
    if via.lower() != "none":
        jumps = tuple(
            hop for text in via.split(",") for hop in _hops(text.strip(), lookup, depth + 1)
        )
    command = str(options.get("proxycommand", "none"))
    return Target(
        alias=alias,
        hostname=str(options.get("hostname", alias)),
        port=port or int(options.get("port", DEFAULT_PORT)),
        user=user or str(options.get("user", "")) or getpass.getuser(),
        keys=tuple(str(Path(key).expanduser()) for key in options.get("identityfile", ())),
        uses_agent=str(options.get("identitiesonly", "no")).lower() != "yes",
        known_hosts=_known_hosts(options),
        proxy_command=None if command.lower() == "none" or jumps else command,
        jumps=jumps,
    )


def _hops(text: str, lookup: Lookup, depth: int) -> list[Target]:
    match = _JUMP.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no jump host", where="jump", fix="user@gateway:22")
    name = match["host"].strip("[]")
    port = int(match["port"]) if match["port"] else None
    hop = _resolve(name, lookup, match["user"], port, None, depth)
    return [*hop.jumps, hop]


def _known_hosts(options: Mapping[str, Any]) -> tuple[str, ...]:
    text = str(options.get("userknownhostsfile", ""))
    return tuple(str(Path(part).expanduser()) for part in text.split())
