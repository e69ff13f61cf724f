"""Checks the values of a host: words that become arguments, files, addresses, variables."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from engine.errors import ConfigError
from tianji_cli.config.inventory_schema import HostSpec

HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
UNSAFE = re.compile(r"^-|[\s\x00-\x1f\x7f'\"`$;&|<>(){}]")
"""Characters that no address or user needs, and that `ProxyCommand` or `Match exec` of a user's own
ssh configuration would pass to a shell; OpenSSH refuses them, too."""
_PORTS = re.compile(r"(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?")
_WITHOUT_SSH = {
    "local": "is this machine",
    "slurm": "is reached through Slurm",
    "ray": "is reached through Ray",
}
_CLUSTER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")


def check_cluster(address: str, where: str) -> None:
    """Raises ConfigError unless this is `HOST:PORT` of a Ray cluster."""
    match = _CLUSTER.fullmatch(address)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise ConfigError(
            f"{address!r} is not HOST:PORT of a Ray cluster",
            where=where,
            fix="give what `ray start --address` takes, not the address of a dashboard or client",
        )


def check_spec(spec: HostSpec, connection: str, where: Callable[[str], str]) -> None:
    """Checks the settings of one host.

    Args:
        spec: They, merged.
        connection: How it is reached.
        where: The place of a key, for errors.

    Raises:
        ConfigError: One cannot be used.
    """
    _check_words(spec, where)
    if spec.address is not None:
        try:
            ipaddress.ip_address(spec.address)
        except ValueError:
            raise ConfigError(
                f"{spec.address!r} is not an IP address", where=where("address")
            ) from None
    if spec.port is not None and not 1 <= spec.port <= 65535:
        raise ConfigError(f"{spec.port} is not a port", where=where("port"))
    for variable in spec.env:
        if not VARIABLE.fullmatch(variable):
            raise ConfigError(
                f"{variable!r} cannot name an environment variable", where=where("env")
            )
    if spec.ray is not None and spec.ray.address is not None:
        check_cluster(spec.ray.address, where("ray"))
    if connection in _WITHOUT_SSH and spec.ssh_host is not None:
        raise ConfigError(
            f"a host with `connection: {connection}` {_WITHOUT_SSH[connection]}, so it has no"
            " ssh_host",
            where=where("ssh_host"),
            fix="remove one of the two",
        )


def _check_words(spec: HostSpec, where: Callable[[str], str]) -> None:
    """Checks texts that become arguments, files and environment variables of processes."""
    for key in ("ssh_host", "user", "jump"):
        for part in str(getattr(spec, key) or "").split(","):
            if UNSAFE.search(part.strip()):
                raise ConfigError(
                    f"{part.strip()!r}: invalid character in `{key}`",
                    where=where(key),
                )
    for key in spec.__struct_fields__:
        value = getattr(spec, key)
        texts = value.values() if isinstance(value, dict) else (value,)
        if any("\0" in text for text in texts if isinstance(text, str)):
            raise ConfigError("a zero byte cannot be part of it", where=where(key))


def port_range(text: str, where: str) -> tuple[int, int]:
    """A half-open range of ports, from `first-last`; ConfigError if it is none."""
    match = _PORTS.fullmatch(text)
    if match is not None:
        first = int(match["first"])
        last = int(match["last"] or first)
        if 1 <= first <= last <= 65535:
            return first, last + 1
    raise ConfigError(
        f"{text!r} is not a range of ports", where=where, fix="for example 29500-29599"
    )
