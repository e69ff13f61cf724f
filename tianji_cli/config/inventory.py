"""Inventories: hosts, how to reach them, and what they run.

Precedence: a host's own values, then its groups (a later group wins), then `defaults`.
`env` is merged key by key, everything else is replaced as a whole. A host is named under `hosts`,
in a group, or in both; `box[1-8]` means eight hosts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from engine.config.config_file import Document, convert, convert_part, read_yaml
from engine.config.yaml_text import KeyPath
from engine.errors import ConfigError
from engine.spec import Spec
from tianji_cli.config.inventory_checks import (
    HOST_NAME,
    UNSAFE,
    VARIABLE,
    check_cluster,
    check_spec,
    port_range,
)
from tianji_cli.config.inventory_schema import (
    ConnectionKind,
    GroupSpec,
    HostSpec,
    InventoryFile,
    Network,
    RaySpec,
    RolesSpec,
    expand_range,
)

DEFAULT_PORTS = "29500-29599"
DEFAULT_WORKDIR = "~/.tianji"
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_JOB = re.compile(r"[0-9]*")


class Host(Spec, frozen=True, kw_only=True):
    """A host with groups and defaults applied.

    Attributes:
        address: Empty until it is resolved, if the inventory gives none.
        job: The Slurm job whose node it is, once that is known.
        ports: Half-open range of TCP ports, or None for Unix sockets.
        roles: How many of each role; None if the placement decides.
        actors: How many `actors: auto` has chosen for it; 0 in any other run.
        groups: Those of the file that it is in.
    """

    name: str
    connection: ConnectionKind
    ssh_host: str = ""
    user: str | None = None
    port: int | None = None
    key: str | None = None
    jump: str | None = None
    known_hosts: str | None = None
    job: str = ""
    ray: RaySpec | None = None
    address: str
    ports: tuple[int, int] | None
    python: str | None = None
    workdir: str = DEFAULT_WORKDIR
    env: dict[str, str] = msgspec.field(default_factory=dict)
    gpus: tuple[int, ...] | None = None
    cores: int | None = None
    pin: bool = True
    roles: dict[str, int] | None = None
    actors: int = 0
    groups: tuple[str, ...] = ()

    def matches(self, pattern: str) -> bool:
        """Whether a glob matches its name, or that of one of its groups."""
        return any(fnmatchcase(name, pattern) for name in (self.name, *self.groups))


class Inventory(Spec, frozen=True, kw_only=True):
    """The hosts of a run, in the order of the file.

    Attributes:
        network: Between them; only in a trusted one may anything travel that is not encrypted.
    """

    source: str
    hosts: tuple[Host, ...]
    network: Network = "encrypted"

    def limited(self, patterns: list[str]) -> Inventory:
        """The hosts that these patterns select.

        Args:
            patterns: Globs of hosts or groups, comma-separated; a leading `!` excludes.

        Raises:
            ConfigError: A pattern matches none, or no host is left.
        """
        words = [word.strip() for pattern in patterns for word in pattern.split(",")]
        words = [word for word in words if word]
        for word in words:
            if not any(host.matches(word.removeprefix("!")) for host in self.hosts):
                names = dict.fromkeys(host.name for host in self.hosts)
                groups = dict.fromkeys(group for host in self.hosts for group in host.groups)
                fix = f"hosts: {', '.join(names)}"
                fix += f"; groups: {', '.join(groups)}" if groups else ""
                raise ConfigError("no host matches", where=f"--limit {word}", fix=fix)
        wanted = [word for word in words if word[0] != "!"] or ["*"]
        unwanted = [word[1:] for word in words if word[0] == "!"]
        kept = [
            host
            for host in self.hosts
            if any(map(host.matches, wanted)) and not any(map(host.matches, unwanted))
        ]
        if not kept:
            raise ConfigError("no host is left", where=f"--limit {','.join(words)}")
        return msgspec.structs.replace(self, hosts=tuple(kept))


def load_inventory(path: Path, nodes: Sequence[str] = ()) -> Inventory:
    """Reads and checks an inventory.

    Args:
        path: The file.
        nodes: Of a Slurm job: they come first, with what the file says of them.

    Raises:
        ConfigError: It cannot be used; file, line and key are named.
    """
    return _read(read_yaml(path), nodes)


def inventory_of(nodes: Sequence[str], source: str) -> Inventory:
    """The nodes of a Slurm job as hosts, without a file."""
    return _read(Document(source, {}, {}), nodes)


def _read(document: Document, nodes: Sequence[str]) -> Inventory:
    written = convert(document, InventoryFile)
    layers = _layers(written, document, nodes)
    if not layers:
        raise ConfigError(
            "there is no host", where=document.where(("hosts",)), fix="name one under `hosts:`"
        )
    hosts = tuple(_resolve(name, found, document) for name, found in layers.items())
    return Inventory(source=document.source, hosts=hosts, network=written.network)


_Layer = tuple[KeyPath, Mapping[str, Any]]
_NODE: _Layer = (("hosts",), {"connection": "slurm"})


def _layers(
    written: InventoryFile, document: Document, nodes: Sequence[str]
) -> dict[str, list[_Layer]]:
    """For each host its layers of settings, the weakest first, with their place in the file."""
    own: dict[str, list[_Layer]] = {}
    for pattern, values in written.hosts.items():
        path: KeyPath = ("hosts", pattern)
        convert_part(values or {}, HostSpec, document, path)
        for name in _expand(pattern, path, document):
            own.setdefault(name, []).append((path, values or {}))
    in_groups: dict[str, list[_Layer]] = {}
    for group, values in written.groups.items():
        spec = convert_part(values, GroupSpec, document, ("groups", group))
        for pattern in spec.hosts:
            for name in _expand(pattern, ("groups", group, "hosts"), document):
                in_groups.setdefault(name, []).append((("groups", group), values))
    defaults: _Layer = (("defaults",), document.data.get("defaults") or {})
    of_node = {name: [_NODE] for name in nodes}
    return {
        name: [defaults, *of_node.get(name, ()), *in_groups.get(name, ()), *own.get(name, ())]
        for name in dict.fromkeys([*nodes, *own, *in_groups])
    }


def _expand(pattern: str, path: KeyPath, document: Document) -> list[str]:
    try:
        names = expand_range(pattern)
    except ValueError as error:
        raise ConfigError(str(error), where=document.where(path)) from error
    for name in names:
        if not HOST_NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot name a host",
                where=document.where(path),
                fix="use letters, digits, '.', '_' and '-'; put addresses into ssh_host",
            )
    return names


class _Merged:
    """The layers of one host, and the layer of each key."""

    def __init__(self, layers: list[_Layer], document: Document) -> None:
        self._document = document
        self.values: dict[str, Any] = {}
        self._paths: dict[str, KeyPath] = {}
        for path, layer in layers:
            for key, value in layer.items():
                if value is None or (key == "hosts" and path[0] == "groups"):
                    continue
                self._paths[key] = (*path, key)
                if key == "env":
                    value = {**self.values.get("env", {}), **self._as_written(value, (*path, key))}
                self.values[key] = value
        self._default_path = layers[-1][0]

    def _as_written(self, values: dict[str, Any], path: KeyPath) -> dict[str, str]:
        """Environment variables are text: `0077` and `1e3` stay as written."""
        written = self._document.written
        return {key: written.get((*path, key), str(value)) for key, value in values.items()}

    def where(self, key: str) -> str:
        return self._document.where(self._paths.get(key, self._default_path))


def _resolve(name: str, layers: list[_Layer], document: Document) -> Host:
    merged = _Merged(layers, document)
    spec = convert_part(merged.values, HostSpec, document)
    is_named_local = name in LOCAL_NAMES and spec.ssh_host is None
    connection = spec.connection or ("local" if is_named_local else "ssh")
    check_spec(spec, connection, merged.where)
    is_local, is_ray = connection == "local", connection == "ray"
    ports = spec.ports if spec.ports is not None else (None if is_local else DEFAULT_PORTS)
    address = spec.address if spec.address is not None else ("127.0.0.1" if is_local else "")
    return Host(
        name=name,
        connection=connection,
        ssh_host=(spec.ssh_host or name) if connection == "ssh" else "",
        user=spec.user,
        port=spec.port,
        key=spec.key,
        jump=spec.jump,
        known_hosts=spec.known_hosts,
        ray=spec.ray if is_ray else None,
        address=address,
        ports=None if ports is None else port_range(str(ports), merged.where("ports")),
        python=spec.python,
        workdir=spec.workdir or DEFAULT_WORKDIR,
        env={key: str(value) for key, value in spec.env.items()},
        gpus=() if is_ray and spec.gpus is None else spec.gpus,
        cores=1 if is_ray and spec.cores is None else spec.cores,
        pin=spec.pin is not False,
        roles=None if spec.roles is None else _counts(spec.roles),
        groups=tuple(path[1] for path, _ in layers if path[0] == "groups"),
    )


def _counts(roles: RolesSpec) -> dict[str, int]:
    return {name: n for name in roles.__struct_fields__ if (n := getattr(roles, name))}


def check_host(host: Host, where: str) -> None:
    """Checks a host from a results file, without an inventory.

    Raises:
        ConfigError: It has values that no inventory can have.
    """
    texts = [getattr(host, name) for name in host.__struct_fields__]
    texts = [*(text for text in texts if isinstance(text, str)), *host.env.values()]
    is_addressed = True
    try:
        ipaddress.ip_address(host.address or "127.0.0.1")
    except ValueError:
        is_addressed = False
    words = [
        part.strip()
        for key in (host.ssh_host, host.user, host.jump)
        if key is not None
        for part in key.split(",")
    ]
    if (
        not is_addressed
        or not HOST_NAME.fullmatch(host.name)
        or any("\0" in text for text in texts)
        or any(UNSAFE.search(word) for word in words)
        or not all(map(VARIABLE.fullmatch, host.env))
        or not 1 <= (host.port or 1) <= 65535
        or not _JOB.fullmatch(host.job)
    ):
        raise ConfigError(f"{host.name!r} is no host of an inventory", where=where)
    if host.ray is not None and host.ray.address is not None:
        check_cluster(host.ray.address, where)
