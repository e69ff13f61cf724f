"""Inventories: which hosts there are and how they are reached."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Literal

from engine.config_file import Document, KeyPath, convert, read_yaml
from engine.errors import ConfigError
from engine.spec import Spec

_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PORTS = re.compile(r"(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?")


class HostSpec(Spec, frozen=True, kw_only=True):
    """One host."""

    connection: Literal["local"] = "local"
    address: str = "127.0.0.1"
    """IP address that other processes of the run reach it at."""
    ports: str | None = None
    """`first-last`: TCP ports to listen on. Without it a run on one host opens none."""


class DefaultsSpec(Spec, frozen=True, kw_only=True):
    """What holds for every host that says nothing else."""

    address: str | None = None
    ports: str | None = None


class InventoryFile(Spec, frozen=True, kw_only=True):
    """An inventory as it is written."""

    version: Literal[1] = 1
    defaults: DefaultsSpec = DefaultsSpec()
    hosts: dict[str, HostSpec]


class Host(Spec, frozen=True, kw_only=True):
    """A host with all defaults applied.

    Attributes:
        ports: Half-open range of TCP ports, or None for Unix sockets.
    """

    name: str
    connection: Literal["local"]
    address: str
    ports: tuple[int, int] | None


class Inventory(Spec, frozen=True, kw_only=True):
    """The hosts of a run, in the order of the file."""

    source: str
    hosts: tuple[Host, ...]


def load_inventory(path: Path) -> Inventory:
    """Reads and checks an inventory.

    Raises:
        ConfigError: It cannot be used; file, line and key are named.
    """
    document = read_yaml(path)
    written = convert(document, InventoryFile)
    if not written.hosts:
        raise ConfigError("there is no host", where=document.where(("hosts",)))
    if len(written.hosts) > 1:
        raise ConfigError(
            f"{len(written.hosts)} hosts are named, but a run takes place on one",
            where=document.where(("hosts",)),
            fix="keep one host with `connection: local`",
        )
    hosts = tuple(_host(name, written, document) for name in written.hosts)
    return Inventory(source=str(path), hosts=hosts)


def _host(name: str, written: InventoryFile, document: Document) -> Host:
    path: KeyPath = ("hosts", name)
    if not _HOST_NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a host",
            where=document.where(path),
            fix="use letters, digits, '.', '_' and '-'",
        )
    spec = written.hosts[name]
    given = document.data["hosts"][name]
    address = spec.address
    where: KeyPath = (*path, "address")
    if "address" not in given and written.defaults.address is not None:
        address, where = written.defaults.address, ("defaults", "address")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ConfigError(
            f"{address!r} is not an IP address", where=document.where(where)
        ) from None
    ports = spec.ports if spec.ports is not None else written.defaults.ports
    port_path: KeyPath = (*path, "ports") if spec.ports is not None else ("defaults", "ports")
    return Host(
        name=name,
        connection=spec.connection,
        address=address,
        ports=_port_range(ports, document.where(port_path)) if ports is not None else None,
    )


def _port_range(text: str, where: str) -> tuple[int, int]:
    match = _PORTS.fullmatch(text)
    if match is not None:
        first = int(match["first"])
        last = int(match["last"] or first)
        if 1 <= first <= last <= 65535:
            return first, last + 1
    raise ConfigError(
        f"{text!r} is not a range of ports", where=where, fix="for example 29500-29599"
    )
