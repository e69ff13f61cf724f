"""The target of an SSH connection, from the inventory and the user's own configuration.

Pure: the configuration is a function from alias to options. The inventory overrides the
configuration, as a command-line option of `ssh` would.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from engine.errors import ConfigError
from engine.host.account import expand, user_name
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.ssh_tokens import Tokens, split_files, without_variables

DEFAULT_PORT = 22
MAX_JUMPS = 8
USUAL_KEYS = tuple(
    f"~/.ssh/id_{kind}"
    for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "xmss", "dsa", "mldsa44")
)
"""The keys that ssh tries by default, in any of its releases."""
USUAL_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_JUMP = re.compile(
    r"(?:(?P<user>.+)@)?(?:\[(?P<bracketed>[^\]]+)\]|(?P<host>[^:@\[\]]+))(?::(?P<port>\d*))?"
)
_URI = re.compile(r"ssh://(?P<rest>[^/]+)/?", re.IGNORECASE)


class Lookup(Protocol):
    """Options of a host; see `ssh_config.UserConfig.lookup`."""

    def __call__(
        self,
        alias: str,
        user: str | None = None,
        port: int | None = None,
        key: str | None = None,
        jump: str | None = None,
    ) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Target:
    """One hop.

    Attributes:
        alias: The user's name for it.
        keys: Private key files to try; empty for the usual ones.
        certificates: Of those keys or of an agent's, beside `KEY-cert.pub`.
        uses_agent: Whether to try keys of an agent that are in none of these files.
        agent: Path of the agent's socket; None without an agent.
        known_hosts: Files of trusted host keys; empty for the user's.
        system_known_hosts: The system's files of trusted host keys.
        revoked_host_keys: File of keys that are never trusted; empty if there is none.
        host_key_alias: Its name in known_hosts, if not name and port.
        strictness: `StrictHostKeyChecking` of the configuration.
        family: `any`, `inet` or `inet6`.
        connect_s: Time-out of the connection; None if not configured.
        proxy_command: The command that connects, if there are no jumps.
        jumps: Hops before this one, the first of them first.
    """

    alias: str
    hostname: str
    port: int
    user: str
    keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    uses_agent: bool = True
    agent: str | None = None
    known_hosts: tuple[str, ...] = ()
    system_known_hosts: tuple[str, ...] = SYSTEM_KNOWN_HOSTS
    revoked_host_keys: str = ""
    host_key_alias: str = ""
    strictness: str = "ask"
    family: str = "any"
    connect_s: float | None = None
    proxy_command: str | None = None
    jumps: tuple[Target, ...] = ()

    @property
    def endpoint(self) -> str:
        return f"{self.user}@{address_text(self.hostname, self.port)}"

    @property
    def key_name(self) -> str:
        """Its name in `known_hosts`."""
        if self.host_key_alias:
            return self.host_key_alias
        is_usual = self.port == DEFAULT_PORT
        return self.hostname if is_usual else f"[{self.hostname}]:{self.port}"


def address_text(host: str, port: int) -> str:
    """Host and port as a user would write them, with brackets if needed.

    >>> address_text("box", 22), address_text("::1", 22), address_text("fe80::1%eth0", 2200)
    ('box', '[::1]', '[fe80::1%eth0]:2200')
    """
    name = f"[{host}]" if ":" in host else host
    return name if port == DEFAULT_PORT else f"{name}:{port}"


def resolve_target(host: Host, lookup: Lookup) -> Target:
    """The route to a host of the inventory.

    Raises:
        ConfigError: A jump host cannot be parsed, or jumps form a loop.
    """
    key = str(expand(host.key)) if host.key else None
    jump = None if host.jump is None else ",".join(part.strip() for part in host.jump.split(","))
    target = _resolve(host.ssh_host, lookup, host.user, host.port, jump, key, depth=0)
    jumps = target.jumps
    if host.known_hosts:
        known_hosts = (str(expand(host.known_hosts)),)
        jumps = tuple(
            jump if jump.known_hosts else _only_trusting(jump, known_hosts) for jump in jumps
        )
        target = _only_trusting(target, known_hosts)
    if key is not None:
        jumps = tuple(jump if jump.keys else replace(jump, keys=(key,)) for jump in jumps)
        target = replace(target, keys=(key,))
    return replace(target, jumps=jumps)


def _only_trusting(target: Target, known_hosts: tuple[str, ...]) -> Target:
    return replace(target, known_hosts=known_hosts, system_known_hosts=())


def _resolve(
    alias: str,
    lookup: Lookup,
    user: str | None,
    port: int | None,
    jump: str | None,
    key: str | None,
    depth: int,
) -> Target:
    if depth > MAX_JUMPS:
        raise ConfigError(
            f"more than {MAX_JUMPS} jumps, so they probably run in a circle", where=alias
        )
    options = lookup(alias, user=user, port=port, key=key, jump=_for_ssh(jump))
    hop = _hop(alias, options, user, port)
    # paramiko's parser has no command line, so the inventory's values are added here
    via = jump if jump is not None else str(options.get("proxyjump", "none"))
    if via.lower() != "none":
        return replace(hop, jumps=tuple(_jumps(via, hop, alias, lookup, depth)))
    command = str(options.get("proxycommand") or "none")
    if command.lower() == "none" or jump is not None:
        return hop
    if str(options.get("proxyusefdpass", "no")) == "yes":
        raise ConfigError("ProxyUseFdpass is not supported", where=alias, fix="give `jump:`")
    return replace(hop, proxy_command=_tokens(alias, hop).replace(command))


def _hop(alias: str, options: Mapping[str, Any], user: str | None, port: int | None) -> Target:
    """One host, without the route to it."""
    name = user or str(options.get("user", "")) or user_name()
    if not name:
        raise ConfigError(
            "no user to log in as is given, and this process's user has no name",
            where=alias,
            fix="add `user:` to the inventory",
        )
    bare = Target(
        alias=alias,
        hostname=str(options.get("hostname", alias)),
        port=port or int(options.get("port", DEFAULT_PORT)),
        user=name,
        host_key_alias=_unless_none(options.get("hostkeyalias", "")),
    )
    tokens = _tokens(alias, bare)

    def files(option: str) -> tuple[str, ...]:
        found = options.get(option, ())
        listed = [found] if isinstance(found, str) else list(found)
        return tuple(tokens.path(text) for text in listed if text.lower() != "none")

    seconds = str(options.get("connecttimeout", "none"))
    return replace(
        bare,
        keys=() if _is_usual(options.get("identityfile", ())) else files("identityfile"),
        certificates=files("certificatefile"),
        uses_agent=str(options.get("identitiesonly", "no")).lower() not in ("yes", "true"),
        agent=_agent(str(options.get("identityagent", "SSH_AUTH_SOCK")), tokens),
        known_hosts=_known_hosts(options, "userknownhostsfile", USUAL_KNOWN_HOSTS, tokens),
        system_known_hosts=_known_hosts(options, "globalknownhostsfile", SYSTEM_KNOWN_HOSTS, tokens)
        or SYSTEM_KNOWN_HOSTS,
        revoked_host_keys="".join(files("revokedhostkeys")[:1]),
        strictness=str(options.get("stricthostkeychecking", "ask")).lower(),
        family=str(options.get("addressfamily", "any")).lower(),
        connect_s=float(seconds) if seconds.isdecimal() and int(seconds) else None,
    )


def _tokens(alias: str, hop: Target) -> Tokens:
    return Tokens(
        alias=alias,
        hostname=hop.hostname,
        port=hop.port,
        user=hop.user,
        key_name=hop.host_key_alias or alias,
    )


def _unless_none(value: object) -> str:
    text = str(value)
    return "" if text.lower() == "none" else text


def _is_usual(found: object) -> bool:
    """Whether these are the keys that ssh lists by default."""
    names = [found] if isinstance(found, str) else list(found) if isinstance(found, list) else []
    usual = {str(expand(path)) for path in USUAL_KEYS}
    return len(names) != 1 and all(str(expand(str(name))) in usual for name in names)


def _agent(value: str, tokens: Tokens) -> str | None:
    """The agent's socket, from the several ways to set it."""
    if value.lower() == "none":
        return None
    if value == "SSH_AUTH_SOCK":
        value = "${SSH_AUTH_SOCK}"
    elif value.startswith("$") and not value.startswith("${"):
        value = f"${{{value[1:]}}}"
    path = without_variables(value, optional=True)
    return tokens.path(path) if path else None


def _known_hosts(
    options: Mapping[str, Any], option: str, usual: tuple[str, ...], tokens: Tokens
) -> tuple[str, ...]:
    """Empty for the usual files, so that those of an inventory can replace them."""
    named = [tokens.path(text) for text in split_files(str(options.get(option, "")))]
    return () if set(named) <= {str(expand(path)) for path in usual} else tuple(named)


def _for_ssh(jump: str | None) -> str | None:
    """A list of jumps that every release of the client accepts: without URIs."""
    if jump is None or jump.lower() == "none":
        return jump
    return ",".join(_words(*read_jump(text)) for text in jump.split(","))


def _words(user: str | None, host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{f'{user}@' if user else ''}{name}{f':{port}' if port else ''}"


def read_jump(text: str) -> tuple[str | None, str, int | None]:
    """User, host and port of a jump host.

    >>> read_jump("ann@gate:2222"), read_jump("ssh://[2001:db8::1]:22"), read_jump("gate")
    (('ann', 'gate', 2222), (None, '2001:db8::1', 22), (None, 'gate', None))

    Raises:
        ConfigError: It is none.
    """
    text = text.strip()
    uri = _URI.fullmatch(text)
    match = _JUMP.fullmatch(uri["rest"] if uri else text)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or (port is not None and not 1 <= port <= 65535):
        raise ConfigError(f"{text!r} is no jump host", where="jump", fix="user@gateway:22")
    user = match["user"]
    if uri and user:
        user = user.partition(";")[0]
    return user, match["bracketed"] or match["host"], port


def _jumps(via: str, hop: Target, alias: str, lookup: Lookup, depth: int) -> list[Target]:
    """The hops of a list: each goes through those before it, the first by its own configuration."""
    *before, last = _tokens(alias, hop).replace(via).split(",")
    user, host, port = read_jump(last)
    way = ",".join(before) if before else None
    jump = _resolve(host, lookup, user, port, way, None, depth + 1)
    return [*jump.jumps, replace(jump, jumps=())]
